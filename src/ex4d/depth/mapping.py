"""From disparity to depth: the official mapping, and ours with a floor; both from statistics of the whole clip."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ex4d.core.arrays import Bool, Float32, Float64
from ex4d.core.clip import Clip, iter_chunks
from ex4d.core.depth import DepthVideo
from ex4d.core.seeding import make_rng
from ex4d.errors import DepthError
from ex4d.io.depth.clip import check_finite
from ex4d.io.depth.raw import RawDepth, RawDepthSource

MappingName = Literal["floor", "official"]

DEFAULT_FLOOR = 0.15
"""Disparity of the farthest surface when the nearest is 1; the best compromise across indoor recordings."""

DEFAULT_SKY_FACTOR = 4.0
"""How many times farther than the farthest surface the sky is put: beyond it, and still inside every far plane."""

_OFFICIAL_GAIN = 3900.0
_OFFICIAL_SCALE = 10000.0
_MAX_SAMPLES = 2_000_000
_MIN_FRAME_SAMPLES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class DisparityStatistics:
    """What one pass over a clip says about its disparity (sky left out).

    Attributes:
        minimum: exact.
        maximum: exact.
        low: 1st percentile, of a fixed sample where the clip is large.
        high: 99th percentile of the same.
    """

    minimum: float
    maximum: float
    low: float
    high: float


def measure_disparity(clip: Clip[RawDepth]) -> DisparityStatistics:
    """First pass: the range of a clip of disparity, the same however the clip is cut into chunks.

    Percentiles are exact up to about two million pixels a clip; beyond that they are of a fixed random choice
    of pixels (the same in every frame) and, in very long clips, of every j-th frame.

    Raises:
        DepthError: NaN or infinity (the first frame is named), or a clip without any contrast.
    """
    num_pixels = clip.height * clip.width
    frame_step = max(1, math.ceil(clip.num_frames * _MIN_FRAME_SAMPLES / _MAX_SAMPLES))
    budget = _MAX_SAMPLES // math.ceil(clip.num_frames / frame_step)
    pixels = np.arange(num_pixels)
    if budget < num_pixels:
        pixels = np.sort(make_rng(0, "disparity percentiles").choice(num_pixels, budget, replace=False))
    low, high = math.inf, -math.inf
    samples: list[Float32] = []
    for start, chunk in iter_chunks(clip):
        check_finite(chunk, start, allow_negative=True)
        known = None if chunk.sky is None else ~chunk.sky
        values = chunk.values if known is None else chunk.values[known]
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
        for slot in range(-start % frame_step, len(chunk), frame_step):
            sample = chunk.values[slot].ravel()[pixels]
            samples.append(sample if known is None else sample[known[slot].ravel()[pixels]])
    sampled = np.concatenate(samples)
    if not low < high or sampled.size == 0:
        raise DepthError(
            "disparity that varies over the clip", f"the same value everywhere ({low:g})", "check the depth file"
        )
    p1, p99 = (float(value) for value in np.percentile(sampled, (1, 99)))
    return DisparityStatistics(minimum=low, maximum=high, low=p1, high=p99)


def official_depth(disparity: Float32, minimum: float, maximum: float) -> Float32:
    """EX-4D's mapping in float32: d = (x − min)/(max − min), z = clip(10000 / max(3900 d, 1e-5), 1e-4, 1e4).

    Args:
        disparity: float32 [...].
        minimum: of the whole clip.
        maximum: of the whole clip, > minimum.

    Returns:
        float32 [...], z from 2.564 (nearest) to 1e4; never metric.
    """
    low, span = np.float32(minimum), np.float32(maximum) - np.float32(minimum)
    normalised = (disparity - low) / span
    scaled = np.maximum(normalised * np.float32(_OFFICIAL_GAIN), np.float32(1e-5))
    depth = np.clip(np.float32(_OFFICIAL_SCALE) / scaled, np.float32(1e-4), np.float32(1e4))
    return depth.astype(np.float32, copy=False)


def floor_depth(
    disparity: Float32,
    low: float,
    high: float,
    *,
    floor: float = DEFAULT_FLOOR,
    sky: Bool | None = None,
    sky_factor: float = DEFAULT_SKY_FACTOR,
) -> Float32:
    """Depth of disparity with unknown scale and shift: d' = r + (1 − r)·clip((d − low)/(high − low), 0, 1), z = 1/d'.

    Args:
        disparity: float32 [...], larger = nearer.
        low: disparity of the farthest surface (1st percentile of the clip).
        high: disparity of the nearest (99th percentile), > low.
        floor: r in (0, 1).
        sky: bool like `disparity`; True is put at ``sky_factor`` times the farthest depth.
        sky_factor: > 1.

    Returns:
        float32 [...], z from 1 to 1/r (sky: sky_factor/r).
    """
    share = np.clip((disparity - np.float32(low)) / np.float32(high - low), 0, 1)
    depth = np.float32(1) / (np.float32(floor) + np.float32(1 - floor) * share)
    if sky is not None:
        depth = np.where(sky, np.float32(sky_factor / floor), depth)
    return depth.astype(np.float32, copy=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedDepthClip:
    """Disparity seen as ``Clip[DepthVideo]`` through one mapping with clip-global statistics.

    Attributes:
        raw: disparity.
        statistics: of the whole of `raw`, from `measure_disparity`.
        mapping: ``"floor"`` or ``"official"``.
        floor: r of the floor mapping.
    """

    raw: RawDepthSource
    statistics: DisparityStatistics
    mapping: MappingName = "floor"
    floor: float = DEFAULT_FLOOR

    def __post_init__(self) -> None:
        # A track that is flat but for a few pixels has equal percentiles: its full range is all there is to map.
        if self.statistics.low >= self.statistics.high:
            full = DisparityStatistics(
                minimum=self.statistics.minimum,
                maximum=self.statistics.maximum,
                low=self.statistics.minimum,
                high=self.statistics.maximum,
            )
            object.__setattr__(self, "statistics", full)

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
        """Frames ``start:stop``; every pixel is valid.

        Raises:
            DepthError: NaN or infinity; the frame is named.
        """
        chunk = self.raw.read(start, stop)
        check_finite(chunk, start, allow_negative=True)
        stats = self.statistics
        if self.mapping == "official":
            depth = official_depth(chunk.values, stats.minimum, stats.maximum)
        else:
            depth = floor_depth(chunk.values, stats.low, stats.high, floor=self.floor, sky=chunk.sky)
        valid = np.ones(depth.shape, np.bool_)
        return DepthVideo(depth=depth, valid=valid, timestamps_s=chunk.timestamps_s, scale="relative")
