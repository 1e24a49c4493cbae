"""From raw depth to checked `DepthVideo`, and from its size to another: what every depth input passes through."""

from dataclasses import dataclass

import numpy as np

from ex4d.core.arrays import Bool, Float64, Int64, check_array
from ex4d.core.camera import CameraPath
from ex4d.core.clip import Clip, iter_chunks
from ex4d.core.depth import DepthScale, DepthVideo
from ex4d.errors import DepthError
from ex4d.io.depth.raw import RawDepth, RawDepthSource
from ex4d.io.intrinsics import scale_intrinsics


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedDepthClip:
    """Given depth (not disparity) as ``Clip[DepthVideo]``; every frame is checked as it is read.

    Attributes:
        raw: the depth; ``raw.kind`` must be ``"depth"``.
        max_depth: largest valid depth in the clip's unit, or None for no limit.
        sky_depth: depth of what the source says is sky; None: its own numbers count there too.
    """

    raw: RawDepthSource
    max_depth: float | None = None
    sky_depth: float | None = None

    @property
    def num_frames(self) -> int:
        return self.raw.num_frames

    @property
    def height(self) -> int:
        return self.raw.height

    @property
    def width(self) -> int:
        return self.raw.width

    @property
    def timestamps_s(self) -> Float64:
        return self.raw.timestamps_s

    def read(self, start: int, stop: int) -> DepthVideo:
        """Frames ``start:stop``: 0 and depth beyond `max_depth` are invalid.

        Raises:
            DepthError: NaN, infinity, negative depth, or a frame without a valid pixel (the first is named).
        """
        chunk = self.raw.read(start, stop)
        check_finite(chunk, start, allow_negative=False)
        values = chunk.values
        valid = values > 0
        if self.max_depth is not None:
            valid &= values <= np.float32(self.max_depth)
        if self.sky_depth is not None and chunk.sky is not None:
            values = np.where(chunk.sky, np.float32(self.sky_depth), values)
            valid |= chunk.sky
        check_some_valid(valid, frame_numbers(chunk, start), self.max_depth)
        depth = np.where(valid, values, np.float32(0))
        return DepthVideo(depth=depth, valid=valid, timestamps_s=chunk.timestamps_s, scale=self.raw.scale)


def frame_numbers(chunk: RawDepth, start: int) -> Int64:
    """int64 [T]: what to call the frames of a chunk that starts at frame `start` of its clip."""
    return np.arange(start, start + len(chunk)) if chunk.frame_number is None else chunk.frame_number


def check_finite(chunk: RawDepth, start: int, *, allow_negative: bool) -> None:
    """Raise `DepthError` naming the first frame of a chunk (which starts at frame `start`) that cannot be used."""
    for number, frame in zip(frame_numbers(chunk, start), chunk.values, strict=True):
        low, high = frame.min(), frame.max()  # NaN and infinities show in these two: cheaper than testing each pixel
        if not (np.isfinite(low) and np.isfinite(high)):
            num_nan, num_infinite = int(np.isnan(frame).sum()), int(np.isinf(frame).sum())
            raise DepthError(
                f"finite numbers in depth frame {number}",
                f"{num_nan} NaN and {num_infinite} infinite pixels",
                "write 0 where the depth is unknown",
            )
        if not allow_negative and low < 0:
            raise DepthError(
                f"depth >= 0 in frame {number}",
                f"{int((frame < 0).sum())} negative pixels (minimum {low:.4g})",
                "write 0 where the depth is unknown; if these are disparities, say --depth-kind disparity",
            )


def check_some_valid(valid: Bool, numbers: Int64, max_depth: float | None) -> None:
    """Raise `DepthError` naming the first frame of valid [T,H,W] in which no depth is known."""
    for number, frame in zip(numbers, valid, strict=True):
        if not frame.any():
            limit = "" if max_depth is None else f" and at most {max_depth:g}"
            raise DepthError(
                f"some depth above 0{limit} in frame {number}",
                "no valid pixel",
                "check the unit (--depth-scale), or leave that frame out (--frames A:B)",
            )


def check_depth_clip(clip: Clip[DepthVideo]) -> None:
    """Read every frame once, so that bad depth is found before long work.

    Raises:
        DepthError: see `CheckedDepthClip.read`; the first bad frame is named.
    """
    for _ in iter_chunks(clip):
        pass


@dataclass(frozen=True, slots=True, kw_only=True)
class ResampledDepthClip:
    """A selection of a depth clip's frames at another size; nearest sample, validity travels with it.

    Nearest, because an average across an occlusion edge is a depth that nothing in the scene has.

    Attributes:
        clip: what is read.
        frame_index: int64 [num_frames], which frame of `clip` each frame is.
        timestamps_s: float64 [num_frames], those of the video beside it.
        height: px.
        width: px.
    """

    clip: Clip[DepthVideo]
    frame_index: Int64
    timestamps_s: Float64
    height: int
    width: int

    def __post_init__(self) -> None:
        check_array("ResampledDepthClip.frame_index", self.frame_index, np.int64, (None,))
        check_array("ResampledDepthClip.timestamps_s", self.timestamps_s, np.float64, (len(self.frame_index),))

    @property
    def num_frames(self) -> int:
        return len(self.frame_index)

    def read(self, start: int, stop: int) -> DepthVideo:
        """Frames ``start:stop``."""
        parts = [self.clip.read(a, b) for a, b in frame_runs(self.frame_index[start:stop])]
        depth = np.concatenate([part.depth for part in parts])
        valid = np.concatenate([part.valid for part in parts])
        if depth.shape[1:] != (self.height, self.width):
            rows = nearest_index(depth.shape[1], self.height)
            columns = nearest_index(depth.shape[2], self.width)
            depth = depth[:, rows[:, None], columns]
            valid = valid[:, rows[:, None], columns]
        scale: DepthScale = parts[0].scale
        return DepthVideo(depth=depth, valid=valid, timestamps_s=self.timestamps_s[start:stop], scale=scale)


def nearest_index(size: int, new_size: int) -> Int64:
    """int64 [new_size]: the sample whose pixel holds the centre of each new pixel."""
    return np.minimum(((np.arange(new_size) + 0.5) * size / new_size).astype(np.int64), size - 1)


def frame_runs(indices: Int64) -> list[tuple[int, int]]:
    """Consecutive indices int64 [n] joined into (start, stop), in the order given."""
    breaks = np.flatnonzero(np.diff(indices) != 1) + 1
    return [(int(run[0]), int(run[-1]) + 1) for run in np.split(indices, breaks)]


def resize_path(path: CameraPath, height: int, width: int) -> CameraPath:
    """The same cameras for pictures of another size."""
    return CameraPath(
        K=scale_intrinsics(path.K, from_size=(path.height, path.width), to_size=(height, width)),
        world_to_camera=path.world_to_camera,
        source_index=path.source_index,
        height=height,
        width=width,
    )
