"""Depth as a file or an estimator gives it, before anything is checked or mapped: `RawDepth` and its clip."""

from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import numpy as np

from ex4d.core.arrays import Bool, Float32, Float64, Int64, check_array
from ex4d.core.camera import CameraPath
from ex4d.core.clip import Clip
from ex4d.core.depth import DepthScale
from ex4d.errors import DepthError
from ex4d.io.rgbd.poses import select_path

DepthKind = Literal["depth", "disparity"]

MAX_PIXELS = 1 << 26
"""Largest depth or colour image read (8192×8192); a bigger one is a mistake or an attack."""

MAX_FRAMES = 1_000_000
"""Most frames a depth file may declare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawDepth:
    """A chunk of depth as it was given.

    Attributes:
        values: float32 [T,H,W]; z-depth (0 = unknown) or disparity (affine in 1/z, larger = nearer).
            May hold NaN, infinities or negative numbers: whoever turns it into depth checks that.
        timestamps_s: float64 [T], seconds.
        sky: bool [T,H,W], True where an estimator saw open sky, or None where nothing is known of it.
        frame_number: int64 [T], the number of each frame in its file, for messages; None: as in the clip.
    """

    values: Float32
    timestamps_s: Float64
    sky: Bool | None = None
    frame_number: Int64 | None = None

    def __post_init__(self) -> None:
        check_array("RawDepth.values", self.values, np.float32, (None, None, None))
        check_array("RawDepth.timestamps_s", self.timestamps_s, np.float64, (len(self.values),))
        if self.sky is not None:
            check_array("RawDepth.sky", self.sky, np.bool_, self.values.shape)
        if self.frame_number is not None:
            check_array("RawDepth.frame_number", self.frame_number, np.int64, (len(self.values),))

    def __len__(self) -> int:
        return len(self.values)


class DepthFrames(Protocol):
    """Where numbers come from: one file format, read frame by frame."""

    @property
    def num_frames(self) -> int: ...

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    def read_frames(self, indices: Int64) -> Float32:
        """float32 [n,H,W]: the named frames as stored, without any scaling; cheap in ascending order."""
        ...


class RawDepthSource(Clip[RawDepth], Protocol):
    """A clip of `RawDepth` and what is known about all of it: what estimators and `open_depth` return."""

    @property
    def kind(self) -> DepthKind: ...

    @property
    def scale(self) -> DepthScale: ...

    @property
    def K(self) -> Float64 | None:  # noqa: N802
        """float64 [3,3] in pixels of these depth maps, corner origin, or None."""
        ...

    @property
    def path(self) -> CameraPath | None:
        """The source cameras in the unit of the depth, one a frame, or None."""
        ...

    @property
    def description(self) -> str: ...

    @property
    def notices(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RawDepthClip:
    """Depth from a file, frame by frame; satisfies `RawDepthSource` and ``Clip[RawDepth]``.

    Attributes:
        frames: the reader of the file's format.
        kind: depth or disparity.
        scale: ``"metric"`` when the values, once divided, are metres.
        timestamps_s: float64 [num_frames].
        frame_index: int64 [num_frames], which stored frame each frame of the clip is.
        divisor: stored numbers per unit (1000 for millimetres), > 0.
        unknown_code: a stored number that means "unknown" beside 0 (65535 in 7-Scenes), or None.
        inverse_unit: 0, or c > 0 when depth is stored inversely: z = c / code (code 0 = unknown).
        K: float64 [3,3], pixels of the depth maps, corner origin, or None.
        path: the source cameras, or None.
        description: what this is, for people.
        notices: what was assumed or substituted.
        squeeze_px: the maps are the whole picture with each side rounded by less than this; 0: not at all.
    """

    frames: DepthFrames
    kind: DepthKind
    scale: DepthScale
    timestamps_s: Float64
    frame_index: Int64
    divisor: float = 1.0
    unknown_code: float | None = None
    inverse_unit: float = 0.0
    K: Float64 | None = None
    path: CameraPath | None = None
    description: str = "depth file"
    notices: tuple[str, ...] = field(default=())
    squeeze_px: int = 0

    def __post_init__(self) -> None:
        check_array("RawDepthClip.frame_index", self.frame_index, np.int64, (None,))
        check_array("RawDepthClip.timestamps_s", self.timestamps_s, np.float64, (len(self.frame_index),))

    @property
    def num_frames(self) -> int:
        return len(self.frame_index)

    @property
    def height(self) -> int:
        return self.frames.height

    @property
    def width(self) -> int:
        return self.frames.width

    def read(self, start: int, stop: int) -> RawDepth:
        """Frames ``start:stop`` in the clip's unit.

        Raises:
            DepthError: a frame that cannot be decoded.
        """
        codes = self.frames.read_frames(self.frame_index[start:stop])
        if self.unknown_code is not None:
            codes = np.where(codes == np.float32(self.unknown_code), np.float32(0), codes)
        if self.inverse_unit > 0:
            known = codes > 0
            codes = np.where(known, np.float32(self.inverse_unit) / np.where(known, codes, 1), 0).astype(np.float32)
        elif self.divisor != 1.0:
            codes = codes / np.float32(self.divisor)
        return RawDepth(
            values=codes, timestamps_s=self.timestamps_s[start:stop], frame_number=self.frame_index[start:stop]
        )

    def select(self, indices: Int64, timestamps_s: Float64) -> "RawDepthClip":
        """Some frames of this clip with the times of the video beside it; cameras are rebased on the first."""
        path = None if self.path is None else select_path(self.path, indices)
        return replace(
            self,
            frame_index=self.frame_index[indices],
            timestamps_s=timestamps_s,
            path=path,
            K=self.K if path is None else path.K[0].copy(),
        )


def check_declared_size(what: str, *, num_frames: int, height: int, width: int) -> None:
    """Refuse sizes that no real depth has, before a byte is allocated for them.

    Args:
        what: names the file in the message.
        num_frames: declared frames.
        height: declared px.
        width: declared px.

    Raises:
        DepthError: an empty, negative or absurd size.
    """
    if min(num_frames, height, width) < 1:
        raise DepthError(
            f"at least one frame and one pixel of depth in {what}", f"{num_frames} frames of {width}x{height}"
        )
    if height * width > MAX_PIXELS or num_frames > MAX_FRAMES:
        raise DepthError(
            f"at most {MAX_PIXELS} pixels a frame and {MAX_FRAMES} frames in {what}",
            f"{num_frames} frames of {width}x{height}",
            "check that the file is depth, and reduce its size",
        )
