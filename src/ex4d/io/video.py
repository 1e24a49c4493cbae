"""Video in: any clip or still that a whitelisted codec can read, as upright sRGB chunks with true timestamps.

Files are decoded in a child process with limits (`decode.client`); nothing in a file can crash, hang or fill this one.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import numpy as np

from ex4d.core.clip import DEFAULT_CHUNK_FRAMES
from ex4d.core.video import Video
from ex4d.errors import ConfigError, MediaError
from ex4d.io import tonemap
from ex4d.io.decode.client import DecodeWorker, check_file, clean_text
from ex4d.io.decode.limits import DecodeLimits
from ex4d.io.decode.protocol import FrameHeader
from ex4d.io.decode.select import Selection
from ex4d.io.video_frames import FrameConverter, display_size, output_size

Notify = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """What a file is, as shown (upright, square pixels), before any selection.

    Attributes:
        height: px.
        width: px.
        fps: average frames a second; 0 if the file does not say (stills).
        num_frames: as the container says; None if it does not.
        duration_s: as the container says; None if it does not.
        codec: FFmpeg's (for stills Pillow's) name.
        pix_fmt: pixel format inside the file.
        has_audio: whether there is an audio stream.
        rotation_deg: clockwise turn that was applied to the coded frames: 0, 90, 180 or 270.
        is_still: whether it is an image.
        notices: what is changed or ignored on reading.
        focal_35mm: focal length that the camera noted, as its 35 mm equivalent in mm, or None;
            `exif.focal_from_35mm` turns it into px.
    """

    height: int
    width: int
    fps: Fraction
    num_frames: int | None
    duration_s: float | None
    codec: str
    pix_fmt: str
    has_audio: bool
    rotation_deg: int
    is_still: bool
    notices: tuple[str, ...]
    focal_35mm: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSelection:
    """Which frames of a video, and at which size.

    Attributes:
        start_s: first time read, seconds from the first frame of the file, >= 0.
        end_s: end of the times read, exclusive, seconds, > start_s; None = to the end.
        frames: (first, stop), 0 <= first < stop (None = to the end), instead of times; None = all.
        fps: resample to this constant rate by nearest timestamp, 0 < fps <= 1000; None = every frame as it is.
        max_side: shrink so that no side is longer, px, >= 1; never enlarges. None = native size.
        size: exact (H, W) in px, each >= 1; wins over `max_side`; None = native aspect.
    """

    start_s: float = 0.0
    end_s: float | None = None
    frames: tuple[int, int | None] | None = None
    fps: float | None = None
    max_side: int | None = None
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        _require(0 <= self.start_s < math.inf, "start_s", ">= 0 and finite", self.start_s)
        if self.end_s is not None:
            _require(self.start_s < self.end_s < math.inf, "end_s", f"> start_s ({self.start_s:g})", self.end_s)
        if self.frames is not None:
            first, stop = self.frames
            in_order = first >= 0 and (stop is None or first < stop)
            _require(in_order, "frames", "A:B with 0 <= A < B", f"{first}:{stop}")
            untimed = self.start_s == 0 and self.end_s is None
            _require(untimed, "frames", "either frames or times", "both")
        if self.fps is not None:
            _require(0 < self.fps <= 1000, "fps", "> 0 and <= 1000", self.fps)
        if self.max_side is not None:
            _require(self.max_side >= 1, "max_side", ">= 1", self.max_side)
        if self.size is not None:
            _require(min(self.size) >= 1, "size", "(H, W), each >= 1", self.size)


def _require(condition: bool, field: str, expected: str, got: object) -> None:
    if not condition:
        raise ConfigError(f"selection.{field} {expected}", str(got), f"change selection.{field}")


class VideoReader:
    """One forward pass over the selected frames of a file, in chunks; memory does not grow with length.

    Use as a context manager; iterate once. Timestamps are the file's own (variable rates are kept), in seconds
    from the first *selected* frame.

    Args:
        path: a video or image file.
        selection: which frames and size; default all, native.
        limits: bounds of the decoder.
        chunk_frames: frames in a chunk (the last one may be shorter).
        on_notice: called with each notice, once, as soon as it is known.

    Attributes:
        info: what the file is.
        height: of the delivered frames, px.
        width: of the delivered frames, px.

    Raises:
        InputError: no such file, a folder, not readable.
        MediaError: not a video, damaged, beyond the limits; also while iterating.
    """

    def __init__(
        self,
        path: Path,
        *,
        selection: VideoSelection | None = None,
        limits: DecodeLimits | None = None,
        chunk_frames: int = DEFAULT_CHUNK_FRAMES,
        on_notice: Notify | None = None,
    ) -> None:
        self._path = check_file(path)
        self._selection = selection or VideoSelection()
        self._limits = limits or DecodeLimits()
        self._chunk_frames, self._on_notice = chunk_frames, on_notice
        self._notices: list[str] = []
        self._file_times: list[float] = []
        self._started = False
        self._worker = DecodeWorker(self._limits)
        try:
            self._worker.ask(op="stream", path=str(self._path), selection=_for_worker(self._selection))
            self._header = self._worker.receive_header()
            self.info = _info(self._header, self._worker.focal_35mm)
            self.height, self.width = self._output_size()
        except BaseException:
            self._worker.close()
            raise
        for notice in self.info.notices:
            self._note(notice)
        self._note_size()

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[Video]:
        """Yield the chunks; the worker ends with the last one."""
        if self._started:
            raise RuntimeError("VideoReader: it can be iterated once; open another one")
        self._started = True
        convert = FrameConverter(self._header, height=self.height, width=self.width)
        frames: list[np.ndarray] = []
        times: list[float] = []
        total = 0
        stream = self._worker.receive_frames(self._header)
        while True:
            try:
                time_s, file_s, raw = next(stream)
            except StopIteration as stop:
                end = stop.value
                break
            frames.append(convert(raw))
            times.append(time_s)
            self._file_times.append(file_s)
            total += 1
            if len(frames) == self._chunk_frames:
                yield _chunk(frames, times)
                frames, times = [], []
        self._worker.close()
        for notice in end["notices"]:
            self._note(notice)
        self._check_total(total)
        if frames:
            yield _chunk(frames, times)

    @property
    def notices(self) -> tuple[str, ...]:
        """Everything that was changed or ignored so far; complete after the last chunk."""
        return tuple(self._notices)

    @property
    def num_frames_expected(self) -> int | None:
        """About how many frames will come (for a progress bar), None if unknown."""
        return _expected(self.info, self._selection)

    @property
    def first_time_s(self) -> float:
        """When the first delivered frame is shown, seconds from the first frame of the file; 0 before it came."""
        return self._file_times[0] if self._file_times else 0.0

    def frame_index(self) -> list[int] | None:
        """Number in the file of every frame delivered so far; None if it cannot be known.

        Frames chosen by time or resampled can be counted only where the rate is constant.
        """
        selection, times = self._selection, self._file_times
        if selection.fps is None and selection.start_s == 0:
            first = selection.frames[0] if selection.frames else 0
            return list(range(first, first + len(times)))
        rate = float(self.info.fps)
        numbers = [round(time_s * rate) for time_s in times]
        if any(abs(time_s * rate - number) > 0.25 for time_s, number in zip(times, numbers, strict=True)):
            return None
        return numbers if rate > 0 else None

    def close(self) -> None:
        """End the worker; safe to call twice."""
        self._worker.close()

    def _output_size(self) -> tuple[int, int]:
        shown = display_size(self._header)
        size = output_size(self._header, max_side=self._selection.max_side, size=self._selection.size)
        for height, width in (shown, size):
            if height * width > self._limits.max_pixels:
                raise MediaError(
                    f"frames of at most {self._limits.max_pixels / 1e6:.0f} megapixels",
                    f"{width}x{height}",
                    "make it smaller with --max-side",
                )
        return size

    def _note_size(self) -> None:
        if self.height > self.info.height or self.width > self.info.width:
            got = f"{self.info.width}x{self.info.height} to {self.width}x{self.height}"
            self._note(f"frames are enlarged from {got}, as asked: this adds no detail")

    def _note(self, notice: str) -> None:
        if notice not in self._notices:
            self._notices.append(notice)
            if self._on_notice is not None:
                self._on_notice(notice)

    def _check_total(self, total: int) -> None:
        wanted = self._selection.frames
        if total == 0:
            held = f"{self.info.num_frames or 'unknown'} frames, {self.info.duration_s or 0:.3f} s"
            raise MediaError(
                "a selection with at least one frame",
                f"none: {self._path.name} holds {held}",
                "change --frames or --start and --end",
            )
        if wanted is None or wanted[1] is None or self._selection.fps is not None:
            return
        if total < wanted[1] - wanted[0]:
            self._note(f"frames {wanted[0]}:{wanted[1]} were asked for, the file ends at {wanted[0] + total}")


def probe_video(path: Path, *, limits: DecodeLimits | None = None) -> VideoInfo:
    """What a file is; decodes its first frame only. Errors as in `VideoReader`."""
    with VideoReader(path, limits=limits) as reader:
        return reader.info


def _chunk(frames: list[np.ndarray], times: list[float]) -> Video:
    return Video(frames=np.stack(frames), timestamps_s=np.array(times, np.float64))


def _for_worker(selection: VideoSelection) -> dict[str, object]:
    first, stop = selection.frames or (0, None)
    part = Selection(start_s=selection.start_s, end_s=selection.end_s, first=first, stop=stop, fps=selection.fps)
    return asdict(part)


def _info(header: FrameHeader, focal_35mm: float | None) -> VideoInfo:
    height, width = display_size(header)
    notices = [clean_text(str(notice)) for notice in header.notices]
    rotation = {(1, 1): 0, (0, 1): 90, (1, -1): 180, (0, -1): 270}
    a, b, c, d = header.orientation
    turn = (abs(a), d if a else b)
    if a * d - b * c < 0:
        notices.append("the video is shown mirrored, as its metadata asks")
    if header.sample_aspect != 1.0:
        was = f"{header.width}x{header.height}"
        notices.append(f"pixels were not square ({header.sample_aspect:.4g}): {was} was resampled to {width}x{height}")
    if header.transfer != "sdr" or header.primaries != "bt709":
        notices.append(tonemap.describe(header))
    return VideoInfo(
        height=height,
        width=width,
        fps=Fraction(*header.fps),
        num_frames=header.num_frames or None,
        duration_s=header.duration_s or None,
        codec=clean_text(header.codec),
        pix_fmt=clean_text(header.pix_fmt),
        has_audio=header.has_audio,
        rotation_deg=rotation[turn],
        is_still=header.is_still,
        notices=tuple(notices),
        focal_35mm=focal_35mm,
    )


def _expected(info: VideoInfo, selection: VideoSelection) -> int | None:
    fps = float(info.fps)
    num = info.num_frames if info.num_frames is not None else round((info.duration_s or 0) * fps)
    if num == 0:
        return None
    if selection.frames is not None:
        first, stop = selection.frames
        num = max(0, (num if stop is None else min(num, stop)) - first)
    elif fps > 0:
        end_s = min(num / fps, selection.end_s if selection.end_s is not None else math.inf)
        num = max(0, round((end_s - selection.start_s) * fps))
    if selection.fps is not None and fps > 0:
        num = max(1, round(num / fps * selection.fps))
    return num
