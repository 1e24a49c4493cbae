"""One scale and shift a clip: disparity tied to depth that is known somewhere, never frame by frame.

What a network calls disparity is right up to a scale and a shift. Both are fitted once, on keyframes, to depth from
landmarks (points seen from several cameras) or from a metric estimator; then walls stay flat and nothing pumps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ex4d.core.arrays import Bool, Float32, Float64, Int64
from ex4d.core.clip import Clip
from ex4d.core.depth import DepthScale, DepthVideo
from ex4d.core.video import Video
from ex4d.depth.estimator import DepthEstimator, EstimateRequest
from ex4d.depth.mapping import DEFAULT_SKY_FACTOR
from ex4d.depth.measure import AffineFit, fit_clip
from ex4d.io.depth.clip import check_finite, nearest_index
from ex4d.io.depth.raw import RawDepthSource
from ex4d.motion.landmarks import Landmarks

NUM_KEYFRAMES = 12
MIN_LANDMARKS = 60
"""Fewer points in all keyframes together do not anchor a clip."""
_MIN_GAIN = 0.1
_FAR_FACTOR = 2.0
"""Disparity below that of the farthest known depth is put no farther than twice that depth."""
_LATTICE = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """Depth that is known at some pixels of some frames.

    Attributes:
        frame: int64 [n].
        xy: float64 [n,2], px of the clip, corner origin.
        depth: float64 [n] > 0.
        scale: ``"metric"`` if that depth is metres.
        name: for people: where it is from.
    """

    frame: Int64
    xy: Float64
    depth: Float64
    scale: DepthScale
    name: str


def keyframes(num_frames: int, count: int = NUM_KEYFRAMES) -> list[int]:
    """At most `count` frames, spread over the clip."""
    return np.unique(np.linspace(0, num_frames - 1, min(count, num_frames)).round().astype(int)).tolist()


def landmark_anchor(landmarks: Landmarks, num_frames: int) -> Anchor | None:
    """Depth of the landmarks in keyframes, in the unit of the cameras; None if there are too few."""
    seen = [(frame, *landmarks.seen(frame)) for frame in keyframes(num_frames)]
    if sum(len(depth) for *_, depth in seen) < MIN_LANDMARKS:
        return None
    return Anchor(
        frame=np.concatenate([np.full(len(depth), frame, np.int64) for frame, _, depth in seen]),
        xy=np.concatenate([xy for _, xy, _ in seen]),
        depth=np.concatenate([depth for *_, depth in seen]),
        scale="relative",
        name="landmarks",
    )


def metric_anchor(estimator: DepthEstimator, source: Clip[Video], request: EstimateRequest) -> Anchor:
    """Depth in metres on a lattice of keyframes, from an estimator that knows them."""
    frames = keyframes(source.num_frames)
    selected = SelectedFrames(clip=source, frames=frames)
    raw = estimator.estimate(selected, replace(request, cameras=None, landmarks=None, subject=None))
    rows, columns = (nearest_index(size, _LATTICE) for size in (raw.height, raw.width))
    numbers: list[Int64] = []
    places: list[Float64] = []
    depths: list[Float64] = []
    for slot, frame in enumerate(frames):
        chunk = raw.read(slot, slot + 1)
        check_finite(chunk, frame, allow_negative=False)
        values = chunk.values[0][rows[:, None], columns]
        known = values > 0
        if chunk.sky is not None:
            known &= ~chunk.sky[0][rows[:, None], columns]
        y, x = np.nonzero(known)
        scale = np.array([source.width / raw.width, source.height / raw.height])
        xy = (np.stack([columns[x], rows[y]], axis=1) + 0.5) * scale
        numbers.append(np.full(len(x), frame, np.int64))
        places.append(xy.astype(np.float64))
        depths.append(values[known].astype(np.float64))
    return Anchor(
        frame=np.concatenate(numbers),
        xy=np.concatenate(places),
        depth=np.concatenate(depths),
        scale=raw.scale,
        name=estimator.name,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectedFrames:
    """Some frames of a clip as a clip of their own."""

    clip: Clip[Video]
    frames: Sequence[int]

    @property
    def num_frames(self) -> int:
        return len(self.frames)

    @property
    def height(self) -> int:
        return self.clip.height

    @property
    def width(self) -> int:
        return self.clip.width

    @property
    def timestamps_s(self) -> Float64:
        return self.clip.timestamps_s[list(self.frames)]

    def read(self, start: int, stop: int) -> Video:
        """Frames ``start:stop`` of the selection."""
        parts = [self.clip.read(frame, frame + 1) for frame in self.frames[start:stop]]
        return Video(frames=np.concatenate([part.frames for part in parts]), timestamps_s=self.timestamps_s[start:stop])


def fit_anchor(raw: RawDepthSource, anchor: Anchor, size: tuple[int, int]) -> AffineFit | None:
    """The clip's scale and shift (>= 0) from disparity to 1/depth.

    Args:
        raw: disparity.
        anchor: depth of pixels of the clip.
        size: (height, width) of the clip.

    Returns:
        None where the disparity and the anchor have next to nothing to do with each other: the fit explains less
        than 10 % of the anchor's spread.
    """
    if len(anchor.depth) < MIN_LANDMARKS:
        return None
    x, z = sample(raw, anchor, size)
    if len(x) < MIN_LANDMARKS:
        return None
    farthest = _FAR_FACTOR * float(np.percentile(z, 99))
    fit = fit_clip(x, z, farthest=farthest)
    if fit.shift < 0:  # no surface lies beyond infinity: the line goes through the origin
        ratio = float(np.median(1 / (z * np.maximum(x, 1e-9))))
        fit = AffineFit(scale=ratio, shift=0.0, floor=fit.floor)
    error = np.abs(1 / fit.depth(x) - 1 / z)
    spread = np.abs(1 / z - np.median(1 / z))
    return fit if fit.scale > 0 and np.median(error) < (1 - _MIN_GAIN) * np.median(spread) else None


def sample(raw: RawDepthSource, anchor: Anchor, size: tuple[int, int]) -> tuple[Float32, Float32]:
    """(values of `raw` at the anchor's pixels float32 [n], the anchor's depth float32 [n]); sky is left out."""
    values: list[Float32] = []
    depths: list[Float32] = []
    for frame in np.unique(anchor.frame):
        chunk = raw.read(int(frame), int(frame) + 1)
        rows = anchor.frame == frame
        x, y = _pixels(anchor.xy[rows], size, (raw.height, raw.width))
        known = np.isfinite(chunk.values[0, y, x])
        if chunk.sky is not None:
            known &= ~chunk.sky[0, y, x]
        values.append(chunk.values[0, y, x][known])
        depths.append(anchor.depth[rows][known].astype(np.float32))
    return np.concatenate(values), np.concatenate(depths)


def _pixels(xy: Float64, size: tuple[int, int], of_size: tuple[int, int]) -> tuple[Int64, Int64]:
    """(column, row) int64 [n] in maps of `of_size` (height, width) of points [n,2] px in pictures of `size`."""
    scaled = xy * (of_size[1] / size[1], of_size[0] / size[0])
    last = of_size[1] - 1, of_size[0] - 1
    return (
        np.clip(scaled[:, 0].astype(np.int64), 0, last[0]),
        np.clip(scaled[:, 1].astype(np.int64), 0, last[1]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchoredDepthClip:
    """Disparity seen as ``Clip[DepthVideo]`` through one fit.

    Attributes:
        raw: disparity.
        fit: from `fit_anchor`.
        scale: of the anchor.
    """

    raw: RawDepthSource
    fit: AffineFit
    scale: DepthScale = field(default="relative")

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
        """Frames ``start:stop``; every pixel is valid, sky lies four times farther than the farthest surface.

        Raises:
            DepthError: NaN or infinity; the frame is named.
        """
        chunk = self.raw.read(start, stop)
        check_finite(chunk, start, allow_negative=True)
        depth = self.fit.depth(chunk.values)
        if chunk.sky is not None:
            depth = np.where(chunk.sky, np.float32(DEFAULT_SKY_FACTOR / self.fit.floor), depth)
        valid: Bool = np.ones(depth.shape, np.bool_)
        return DepthVideo(
            depth=depth.astype(np.float32, copy=False), valid=valid, timestamps_s=chunk.timestamps_s, scale=self.scale
        )


def camera_scale(depth: Clip[DepthVideo], landmarks: Landmarks) -> tuple[float, float] | None:
    """How many units of the depth one unit of the cameras is, and how well that is known.

    Args:
        depth: of the clip, at any size of its shape.
        landmarks: in the unit of the cameras.

    Returns:
        the median of depth over landmark depth, and half of the central 68 % of it as a share of it; None with fewer
        than 60 landmarks.
    """
    anchor = landmark_anchor(landmarks, depth.num_frames)
    if anchor is None:
        return None
    ratios: list[Float64] = []
    for frame in np.unique(anchor.frame):
        chunk = depth.read(int(frame), int(frame) + 1)
        rows = anchor.frame == frame
        path = landmarks.path
        x, y = _pixels(anchor.xy[rows], (path.height, path.width), (depth.height, depth.width))
        known = chunk.valid[0, y, x]
        ratios.append(chunk.depth[0, y, x][known] / anchor.depth[rows][known])
    all_ratios = np.concatenate(ratios)
    if len(all_ratios) < MIN_LANDMARKS:
        return None
    low, middle, high = np.percentile(all_ratios, (16, 50, 84))
    return float(middle), float((high - low) / (2 * middle))
