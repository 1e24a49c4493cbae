"""Inside the worker: what the first frame and its container say about size, colour and rotation."""

import contextlib
import struct
from dataclasses import dataclass
from typing import Any

import av
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition
from av.video.frame import VideoFrame

from ex4d.io.decode.media import MediaSource, display_orientation
from ex4d.io.decode.protocol import FrameHeader
from ex4d.io.exif import focal_35mm_of_mov, focal_35mm_of_video

# ITU-T H.273 code points, as FFmpeg uses them.
_MATRICES = {1: "bt709", 4: "bt601", 5: "bt601", 6: "bt601", 7: "bt709", 9: "bt2020", 10: "bt2020"}
_PRIMARIES = {9: "bt2020", 11: "p3", 12: "p3"}
_PQ, _HLG = 16, 18
_MPEG, _JPEG = 1, 2
_HD_LINES = 720
# Aspects beyond this are broken headers, not anamorphic lenses.
_MAX_PIXEL_ASPECT = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaHeader(FrameHeader):
    """What the worker says about a file that a camera may have written; `client` reads the added field.

    Attributes:
        focal_35mm: 35 mm equivalent of the focal length in mm; 0 where the file does not say.
    """

    focal_35mm: float = 0.0


def media_header(source: MediaSource, frame: VideoFrame) -> MediaHeader:
    """The header of a video whose first frame is `frame`; adds notices to `source`."""
    codec = source.stream.codec_context
    transfer = {_PQ: "pq", _HLG: "hlg"}.get(frame.color_trc, "sdr")
    primaries = _PRIMARIES.get(frame.color_primaries, "bt2020" if transfer != "sdr" else "bt709")
    layout = _layout(frame, deep=transfer != "sdr" or primaries != "bt709")
    orientation, rest_deg = display_orientation(frame)
    if rest_deg > 1.0:
        source.note(f"the video asks to be shown tilted by {rest_deg:.0f} degrees: only quarter turns are applied")
    _note_oddities(source, frame)
    rate = source.rate
    plane = 3 if layout.startswith("yuv") else 1
    return MediaHeader(
        layout=layout,
        height=frame.height,
        width=frame.width,
        stride=_stride(layout, frame),
        num_planes=plane,
        full_range=is_full_range(frame),
        matrix=matrix_of(frame),
        transfer=transfer,
        primaries=primaries,
        peak_nits=_peak_nits(frame),
        orientation=orientation,
        sample_aspect=_sample_aspect(source),
        fps=(rate.numerator, rate.denominator),
        num_frames=max(0, source.stream.frames),
        duration_s=max(0.0, (source.container.duration or 0) / av.time_base),
        codec=codec.codec.canonical_name,
        pix_fmt=frame.format.name,
        has_audio=bool(source.container.streams.audio),
        notices=tuple(source.notices),
        focal_35mm=_focal_35mm(source),
    )


def _focal_35mm(source: MediaSource) -> float:
    """35 mm equivalent in mm that the file names; 0 if it does not."""
    named = focal_35mm_of_video(source.stream.metadata, source.container.metadata)
    if named is None and source.container.format.name.startswith("mov"):
        named = focal_35mm_of_mov(source.path)
    return named or 0.0


def matrix_of(frame: VideoFrame) -> str:
    """Which YUV the frame is; untagged: BT.709 from 720 lines on, else BT.601, as players do."""
    guess = "bt709" if frame.height >= _HD_LINES else "bt601"
    return _MATRICES.get(frame.colorspace, guess)


def is_full_range(frame: VideoFrame) -> bool:
    """Whether codes use the whole range; untagged YUV does not, RGB and ``yuvj`` do."""
    name = frame.format.name
    if name.startswith(("yuvj", "pal")) or frame.format.is_rgb:
        return True
    return frame.color_range == _JPEG


def _layout(frame: VideoFrame, *, deep: bool) -> str:
    """What to send: gray as it is (swscale ignores its range), wide-gamut or HDR at full depth, else rgb24."""
    pixel = frame.format
    bits = max((component.bits for component in pixel.components), default=8)
    if pixel.name.startswith(("gray", "ya")) or pixel.name in ("monow", "monob"):
        return "gray16le" if bits > 8 else "gray"
    if not deep:
        return "rgb24"
    if pixel.is_rgb:
        return "rgb48le"
    return "yuv444p10le" if bits <= 10 else "yuv444p12le" if bits <= 12 else "yuv444p16le"


def _stride(layout: str, frame: VideoFrame) -> int:
    """Bytes of a row in FFmpeg's own padding, which is sent along rather than stripped here."""
    return VideoFrame(frame.width, frame.height, layout).planes[0].line_size


def _sample_aspect(source: MediaSource) -> float:
    aspect = source.stream.codec_context.sample_aspect_ratio
    if not aspect or aspect <= 0:
        return 1.0
    if not 1 / _MAX_PIXEL_ASPECT <= aspect <= _MAX_PIXEL_ASPECT:
        source.note(f"the pixel aspect {aspect} is not believable and was ignored")
        return 1.0
    return float(aspect)


def _peak_nits(frame: VideoFrame) -> float:
    """MaxCLL, else the mastering display's peak, else 0; nits (CTA-861.3, SMPTE ST 2086)."""
    data: Any = frame.side_data
    with contextlib.suppress(KeyError, struct.error):
        max_cll = struct.unpack_from("=I", memoryview(data[SideDataType.CONTENT_LIGHT_LEVEL]))[0]
        if max_cll:
            return float(max_cll)
    with contextlib.suppress(KeyError, struct.error):
        # AVMasteringDisplayMetadata: 6 + 2 rationals of primaries and white, then min and max luminance.
        raw = memoryview(data[SideDataType.MASTERING_DISPLAY_METADATA])
        numerator, denominator = struct.unpack_from("=ii", raw, 72)
        if numerator > 0 and denominator > 0:
            return numerator / denominator
    return 0.0


def _note_oddities(source: MediaSource, frame: VideoFrame) -> None:
    if frame.interlaced_frame:
        source.note("the video is interlaced: it is not deinterlaced, moving edges may show combing")
    if _has_alpha(frame):
        source.note("transparency (alpha) was dropped")
    shown = [s for s in source.container.streams.video if not s.disposition & Disposition.attached_pic]
    if len(shown) > 1:
        source.note(f"the file has {len(shown)} video streams: only the best one is read")


def _has_alpha(frame: VideoFrame) -> bool:
    return frame.format.name.startswith(("yuva", "rgba", "bgra", "argb", "abgr", "gbrap", "ya", "ayuv", "vuya"))
