"""Inside the worker: a video as a stream of selected frames in a layout that the parent can take."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from ex4d.errors import MediaError
from ex4d.io.decode.header import is_full_range, matrix_of, media_header
from ex4d.io.decode.limits import DecodeLimits
from ex4d.io.decode.media import MediaSource
from ex4d.io.decode.protocol import FrameHeader
from ex4d.io.decode.select import Selection, select

# Below this a seek saves nothing.
_SEEK_FROM_S = 2.0

_COLORSPACES = {"bt601": Colorspace.ITU601, "bt709": Colorspace.ITU709, "bt2020": Colorspace.BT2020}
# Without these two flags swscale is off by several codes and takes the nearest chroma sample.
_EXACT = int(Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT)


class StreamJob:
    """One pass over a video.

    Args:
        path: an existing file.
        limits: bounds.
        selection: which frames.
        on_progress: told the number of frames decoded so far, for each of them.

    Raises:
        MediaError: see `MediaSource`.
    """

    def __init__(
        self, path: Path, limits: DecodeLimits, selection: Selection, *, on_progress: Callable[[int], None]
    ) -> None:
        self._path, self._limits, self._selection, self._on_progress = path, limits, selection, on_progress
        self._source = MediaSource(path, limits)
        self._decoded = self._source.frames()
        first = next(self._decoded)
        self._origin_s = first[0]
        self._head: list[tuple[float, VideoFrame]] = [first]
        self.header: FrameHeader = media_header(self._source, first[1])

    def frames(self) -> Iterator[tuple[float, float, VideoFrame]]:
        """Yield (seconds since the first selected frame, since the first of the file, frame in the header's layout)."""
        interval_s = float(1 / self._source.rate) if self._source.rate else 1 / 30
        reformatter = VideoReformatter()
        self._seek()
        last: tuple[VideoFrame, VideoFrame] | None = None
        timed = ((file_s, (file_s, frame)) for file_s, frame in self._relative())
        for time_s, (file_s, frame) in select(timed, self._selection, nominal_interval_s=interval_s):
            # Resampling shows a frame more than once: convert it once.
            if last is None or last[0] is not frame:
                last = frame, _convert(reformatter, frame, self.header)
            yield time_s, file_s, last[1]

    def late_notices(self) -> list[str]:
        """Notices that came up after the header was sent."""
        return [notice for notice in self._source.notices if notice not in self.header.notices]

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def _relative(self) -> Iterator[tuple[float, VideoFrame]]:
        head, self._head = self._head, []
        for time_s, frame in head:
            yield time_s - self._origin_s, frame
        head.clear()
        for time_s, frame in self._decoded:
            self._on_progress(self._source.num_decoded)
            yield time_s - self._origin_s, frame

    def _seek(self) -> None:
        """Jump near the start time where that saves decoding, and check that the jump landed before it."""
        start_s = self._selection.start_s
        if start_s < _SEEK_FROM_S:
            return
        self._source.seek(start_s, self._origin_s)
        self._decoded = self._source.frames()
        try:
            landed = next(self._decoded)
        except MediaError:
            landed = None
        if landed is not None and landed[0] - self._origin_s <= start_s:
            self._head = [landed]
            return
        # Some containers cannot seek exactly: decode from the beginning instead.
        notices = self._source.notices
        self._source.close()
        self._source = MediaSource(self._path, self._limits)
        self._source.notices = notices
        self._head, self._decoded = [], self._source.frames()


def _convert(reformatter: VideoReformatter, frame: VideoFrame, header: FrameHeader) -> VideoFrame:
    """The frame in the header's layout; the range and matrix of each frame itself are honoured."""
    if frame.format.name == header.layout:
        return frame
    same_range = ColorRange.JPEG if is_full_range(frame) else ColorRange.MPEG
    # Deep layouts stay in the file's own YUV: the parent applies matrix and range at full precision.
    target_range = ColorRange.JPEG if header.layout == "rgb24" else same_range
    space = _COLORSPACES[matrix_of(frame)]
    return reformatter.reformat(
        frame,
        format=header.layout,
        src_colorspace=int(space),
        dst_colorspace=int(space),
        src_color_range=int(same_range),
        dst_color_range=int(target_range),
        interpolation=_EXACT,
        threads=1,
    )


def planes_of(frame: Any, header: FrameHeader) -> list[Any]:
    """The raw bytes of a frame, one buffer a plane, rows of the header's stride.

    Raises:
        MediaError: if the frame is not what the header promised.
    """
    planes = frame.planes[: header.num_planes]
    size = (frame.format.name, frame.height, frame.width, len(planes))
    if size != (header.layout, header.height, header.width, header.num_planes):
        raise MediaError("frames of one layout", f"a frame {size} among others", "convert the file first")
    return [_rows(memoryview(plane).cast("B"), plane.line_size, header) for plane in planes]


def _rows(view: memoryview, line_size: int, header: FrameHeader) -> Any:
    """The plane as it is where its padding is the header's; decoders pad differently from converters."""
    if line_size == header.stride:
        return view[: header.height * header.stride]
    used = min(line_size, header.stride)
    padding = bytes(header.stride - used)
    rows = (view[start : start + used] for start in range(0, header.height * line_size, line_size))
    return b"".join(part for row in rows for part in (row, padding))
