"""What the decode worker and its parent say to each other; standard library only.

Parent to worker: one JSON object a line. Worker to parent: records of a 9-byte head (kind, payload length,
little-endian) and a payload:

===== ======================================================================================
``H`` header, JSON (`FrameHeader`): what follows; before the first frame
``F`` frame: float64 timestamp in seconds, then the rows of all planes one after the other
``T`` float64 timestamps of all frames of a lossless clip
``P`` progress: work was done although no frame is due yet
``Z`` end of the answer, JSON: totals and notices
``E`` the answer failed, JSON: ``expected``, ``got``, ``fix``
===== ======================================================================================

The parent believes none of it: lengths are bounded before anything is read or allocated.
"""

import json
import struct
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

HEAD = struct.Struct("<cQ")
TIME = struct.Struct("<dd")
MAX_JSON_BYTES = 1 << 20

HEADER, FRAME, TIMES, PROGRESS, END, ERROR = b"H", b"F", b"T", b"P", b"Z", b"E"

LAYOUTS = ("rgb24", "gray", "gray16le", "bgr0", "yuv444p10le", "yuv444p12le", "yuv444p16le", "rgb48le")
"""Pixel layouts that a worker may send."""

LosslessFormat = Literal["rgb", "gray", "gray16"]
LOSSLESS_LAYOUTS: dict[LosslessFormat, str] = {"rgb": "bgr0", "gray": "gray", "gray16": "gray16le"}
"""What our intermediates hold; 8-bit "gbrp" is not possible in FFV1, bgr0 is, and its fourth byte is not stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameHeader:
    """What the worker says about the frames it is going to send.

    Attributes:
        layout: one of `LAYOUTS`.
        height: rows of a plane, as coded (before rotation).
        width: pixels of a row, as coded.
        stride: bytes of a row as sent, padding included.
        num_planes: planes of `height` x `stride` bytes.
        full_range: codes run over the whole range (else video range 16-235).
        matrix: ``"bt601"``, ``"bt709"`` or ``"bt2020"``; which YUV this is, where the layout is YUV.
        transfer: ``"sdr"``, ``"pq"`` or ``"hlg"``.
        primaries: ``"bt709"``, ``"bt2020"`` or ``"p3"``.
        peak_nits: brightest value that the file says it holds; 0 where it does not say.
        orientation: (a, b, c, d), each -1, 0 or 1: coded (x, y) is shown at x' = a x + c y, y' = b x + d y.
        sample_aspect: width / height of one pixel.
        fps: (numerator, denominator), average; (0, 1) if unknown.
        num_frames: as the container says; 0 if it does not.
        duration_s: as the container says; 0 if it does not.
        codec: FFmpeg's or Pillow's name.
        pix_fmt: pixel format inside the file.
        has_audio: whether there is an audio stream.
        is_still: whether it is an image file.
        notices: what was changed or ignored on the way.
    """

    layout: str
    height: int
    width: int
    stride: int
    num_planes: int = 1
    full_range: bool = True
    matrix: str = "bt709"
    transfer: str = "sdr"
    primaries: str = "bt709"
    peak_nits: float = 0.0
    orientation: tuple[int, int, int, int] = (1, 0, 0, 1)
    sample_aspect: float = 1.0
    fps: tuple[int, int] = (0, 1)
    num_frames: int = 0
    duration_s: float = 0.0
    codec: str = ""
    pix_fmt: str = ""
    has_audio: bool = False
    is_still: bool = False
    notices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        pixel_bytes = {"rgb24": 3, "gray": 1, "bgr0": 4, "rgb48le": 6}.get(self.layout, 2)
        right = (
            self.layout in LAYOUTS
            and self.height > 0
            and self.width > 0
            and self.width * pixel_bytes <= self.stride <= self.width * pixel_bytes + 4096
            and self.num_planes == (3 if self.layout.startswith("yuv") else 1)
            and sorted(map(abs, self.orientation)) == [0, 0, 1, 1]
            and 0 < self.sample_aspect < float("inf")
            and self.fps[0] >= 0
            and self.fps[1] > 0
        )
        if not right:
            raise ValueError(f"impossible frame header {self!r}")

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame as sent, without its timestamp."""
        return self.height * self.stride * self.num_planes

    def to_json(self) -> bytes:
        """UTF-8 JSON."""
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def from_json(data: bytes) -> "FrameHeader":
        """Parse and check what a worker sent.

        Raises:
            ValueError: if it is not a possible header (`TypeError`s of wrong fields are turned into it).
        """
        raw: dict[str, Any] = json.loads(data)
        try:
            known = {field.name: raw[field.name] for field in fields(FrameHeader)}
            for name in ("orientation", "fps", "notices"):
                known[name] = tuple(known[name])
            return FrameHeader(**known)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"impossible frame header: {error}") from error
