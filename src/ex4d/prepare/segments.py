"""Clips to segments: decoded once, cut at shots, at the size of the nearest bucket."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ex4d.core.arrays import Int64, UInt8
from ex4d.core.camera import CameraPath
from ex4d.core.video import Video
from ex4d.dataset.layout import Bucket
from ex4d.io.video import VideoInfo, VideoReader, VideoSelection
from ex4d.io.video_frames import resize
from ex4d.prepare.config import BucketConfig
from ex4d.prepare.cuts import CutDetector
from ex4d.prepare.items import Item
from ex4d.prepare.refused import Refused

_SLOW = 0.95
"""Resampling to a higher rate repeats frames: a clip may be this much slower than asked."""

Timed = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How frames of a clip become a bucket's: resized until they cover it, then cut in the middle.

    Attributes:
        height: of the resized frame, px.
        width: of the resized frame, px.
        top: first row that is kept.
        left: first column that is kept.
        bucket_height: rows that are kept.
        bucket_width: columns that are kept.
    """

    height: int
    width: int
    top: int
    left: int
    bucket_height: int
    bucket_width: int

    def crop(self, maps: np.ndarray) -> np.ndarray:
        """The part of [T,H,W,…] that is kept, contiguous."""
        rows, columns = slice(self.top, self.top + self.bucket_height), slice(self.left, self.left + self.bucket_width)
        return np.ascontiguousarray(maps[:, rows, columns])

    def crop_video(self, video: Video) -> Video:
        """The part of every frame that is kept."""
        return Video(frames=self.crop(video.frames), timestamps_s=video.timestamps_s)

    def crop_path(self, path: CameraPath) -> CameraPath:
        """Cameras of the kept part: the principal point moves with the corner."""
        K = path.K.copy()
        K[:, 0, 2] -= self.left
        K[:, 1, 2] -= self.top
        return CameraPath(
            K=K,
            world_to_camera=path.world_to_camera,
            source_index=path.source_index,
            height=self.bucket_height,
            width=self.bucket_width,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Consecutive frames of one shot.

    Attributes:
        number: of the segment in its clip, from 0.
        video: resized, not cropped; times from its first frame.
        start_s: time of its first frame since the first selected frame of the clip.
        first_frame: number of its first frame among those selected.
        fit: what of it is the sample.
    """

    number: int
    video: Video
    start_s: float
    first_frame: int
    fit: Fit


def fit_bucket(height: int, width: int, sizes: list[Bucket]) -> Fit:
    """How a clip of this size is fitted to the bucket of the nearest aspect; of equal ones to the largest it fills."""
    aspect = np.log(width / height)
    nearest = min(abs(np.log(w / h) - aspect) for _, h, w in sizes)
    same = sorted({(h, w) for _, h, w in sizes if abs(np.log(w / h) - aspect) < nearest + 1e-9}, reverse=True)
    high, wide = next((size for size in same if size[0] <= height and size[1] <= width), same[-1])
    scale = max(high / height, wide / width)
    resized = max(high, round(height * scale)), max(wide, round(width * scale))
    return Fit(
        height=resized[0],
        width=resized[1],
        top=(resized[0] - high) // 2,
        left=(resized[1] - wide) // 2,
        bucket_height=high,
        bucket_width=wide,
    )


class SegmentReader:
    """Segments of a clip, one after the other; memory holds one. Use as a context manager, iterate once.

    Args:
        path: the file.
        item: which part of it.
        config: buckets.
        cut_threshold: see `CutDetector`.
        timed: opens a block whose time counts for a stage.

    Raises:
        Refused: too small, or too slow for the rate asked for.
        InputError, MediaError: not readable; also while iterating.
    """

    def __init__(self, path: Path, item: Item, config: BucketConfig, *, cut_threshold: float, timed: Timed) -> None:
        self._config, self._timed = config, timed
        self._cuts = CutDetector(cut_threshold)
        selection = VideoSelection(start_s=item.start_s, end_s=item.end_s, fps=config.fps)
        self._reader = VideoReader(path, selection=selection)
        try:
            self.info: VideoInfo = self._reader.info
            self._fit = fit_bucket(self._reader.height, self._reader.width, config.sizes())
            self._lengths = sorted(
                {t for t, h, w in config.sizes() if (h, w) == (self._fit.bucket_height, self._fit.bucket_width)}
            )
            self._check()
        except BaseException:
            self._reader.close()
            raise

    def __enter__(self) -> "SegmentReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    @property
    def fps(self) -> float:
        """Average rate of the segments, frames a second; 24 where nobody knows."""
        return self._config.fps or float(self.info.fps) or 24.0

    def frame_index(self, segment: Segment) -> Int64 | None:
        """int64 [T]: number in the file of each frame; None if it cannot be known. Right after it was yielded."""
        numbers = self._reader.frame_index()
        if numbers is None:
            return None
        return np.array(numbers[segment.first_frame : segment.first_frame + len(segment.video)], np.int64)

    def __iter__(self) -> Iterator[Segment]:
        """Yield at most ``max_segments``; what is too short is left out."""
        made = 0
        for start, shot in self._shots():
            length = max((t for t in self._lengths if t <= len(shot)), default=0)
            if not length:
                continue
            frames, times = zip(*shot[:length], strict=True)
            clock = np.array(times)
            video = Video(frames=np.stack(frames), timestamps_s=clock - clock[0])
            yield Segment(number=made, video=video, start_s=float(clock[0]), first_frame=start, fit=self._fit)
            made += 1
            if made == self._config.max_segments:
                return

    def _shots(self) -> Iterator[tuple[int, list[tuple[UInt8, float]]]]:
        """(number of the first frame, frames with times): pieces of shots of at most the longest length."""
        held: list[tuple[UInt8, float]] = []
        count = 0
        for chunk in self._chunks():
            for frame, time_s in zip(chunk.frames, chunk.timestamps_s, strict=True):
                with self._timed("cuts"):
                    is_cut = self._cuts.push(frame)
                if held and (is_cut or len(held) == self._lengths[-1]):
                    yield count - len(held), held
                    held = []
                held.append((frame, float(time_s)))
                count += 1
        if held:
            yield count - len(held), held

    def _chunks(self) -> Iterator[Video]:
        """Chunks at the resized size."""
        chunks = iter(self._reader)
        while True:
            with self._timed("decode"):
                chunk = next(chunks, None)
                if chunk is None:
                    self._reader.close()
                    return
                frames = np.stack([resize(frame, self._fit.height, self._fit.width) for frame in chunk.frames])
            yield Video(frames=frames, timestamps_s=chunk.timestamps_s)

    def _check(self) -> None:
        growth = max(self._fit.height / self._reader.height, self._fit.width / self._reader.width)
        size = f"{self._reader.width}x{self._reader.height}"
        if growth > self._config.max_enlargement:
            raise Refused(
                "small", f"{size} would have to grow by {growth:.2f}; allowed is {self._config.max_enlargement:g}"
            )
        if self._config.fps is not None and 0 < self.info.fps < _SLOW * self._config.fps:
            raise Refused("rate", f"{float(self.info.fps):g} frames a second; asked for are {self._config.fps:g}")
