"""The `layout` estimator: where floors, walls and sky usually are. No network, no download, and no object is seen.

The camera is taken to be level. Without sky it looks into a closed space: floor in the lower half of the picture,
a wall behind it 1.8 times as far as the nearest floor, bent forward at the sides. With sky it stands on open ground
that ends in a backdrop at the horizon; the sky lies beyond. The proportions of the closed space are the best of some
dozens on real RGB-D (7-Scenes, slambook2) that keep the camera level: a tilted floor fits some rooms better and makes
every orbit look rolled. One geometry holds for the whole clip, and sky changes slowly, so nothing flickers.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from ex4d.core.arrays import Bool, Float32, Float64, UInt8
from ex4d.core.camera import CameraPath
from ex4d.core.clip import Clip
from ex4d.core.depth import DepthScale
from ex4d.core.video import Video
from ex4d.depth.estimator import EstimateRequest, Readiness
from ex4d.io.depth.raw import DepthKind, RawDepth

LAYOUT_NOTICE = (
    "PREVIEW DEPTH: no depth was given, so a generic scene layout (ground, walls, sky) stands in for it. "
    "It sees no objects: people and things stay flat on the background, and motion around them will look wrong. "
    "For a real result give measured or estimated depth: --depth FILE (.npz, 16-bit PNG or EXR folder, RGB-D folder)."
)

_GRID_WIDTH = 96
_MAX_KEYS = 24
_HORIZON = 0.5
_BACK_WALL = 1 / 1.8
_SIDE_WALL = 0.4
_MIN_SKY_SHARE = 0.03
_NO_GROUND = 0.75
_GROUND_SOFTNESS = 0.04
_BACKDROP = 0.15
_SKY = _BACKDROP / 4
_SOME_SKY = 0.15
_SKY_COLOR_LEVELS = 38.0


@dataclass(frozen=True, slots=True)
class LayoutEstimator:
    """Satisfies `DepthEstimator`; always ready."""

    name: str = "layout"
    version: str = "1"
    licence: str = "Apache-2.0"
    purpose: str = "a generic scene layout, instant; sees no objects"
    weights: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    is_preview: bool = True
    is_instant: bool = True
    brings_cameras: bool = False

    def ready(self) -> Readiness:
        """Nothing is needed."""
        return Readiness(ready=True)

    def estimate(self, source: Clip[Video], request: EstimateRequest) -> "LayoutDepth":
        """Look at no more than 24 frames of the clip and fix its layout.

        Args:
            source: the clip, any size.
            request: not used: the layout is that of a level camera.
        """
        num = source.num_frames
        keys = np.unique(np.linspace(0, num - 1, min(_MAX_KEYS, num)).round().astype(np.int64))
        sky = np.stack([sky_share(source.read(int(k), int(k) + 1).frames[0]) for k in keys])
        shares = sky.mean(axis=(1, 2))
        if np.median(shares) < _MIN_SKY_SHARE:
            sky[:] = 0
        return LayoutDepth(
            source=source,
            keys=keys.astype(np.float64),
            sky=sky,
            base=base_disparity(source.height, source.width, horizon(sky)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutDepth:
    """The layout of one clip, nearest depth about 1; satisfies `RawDepthSource`.

    Attributes:
        source: the clip; its frames are read again only where sky was found, to draw its outline.
        keys: float64 [k], frame numbers that were looked at, increasing.
        sky: float32 [k,h,w], 0–1 share of sky on a coarse grid at those frames; linear in time between them.
        base: float32 [height,width], 1/depth without sky, the same for all frames.
    """

    source: Clip[Video]
    keys: Float64
    sky: Float32
    base: Float32

    @property
    def num_frames(self) -> int:
        return self.source.num_frames

    @property
    def height(self) -> int:
        return self.source.height

    @property
    def width(self) -> int:
        return self.source.width

    @property
    def timestamps_s(self) -> Float64:
        return self.source.timestamps_s

    @property
    def kind(self) -> DepthKind:
        return "depth"

    @property
    def scale(self) -> DepthScale:
        return "relative"

    @property
    def K(self) -> Float64 | None:  # noqa: N802
        return None

    @property
    def path(self) -> CameraPath | None:
        return None

    @property
    def description(self) -> str:
        kind = "open ground under a sky" if self.sky.any() else "a closed space"
        return f"layout preview ({kind}; no objects)"

    @property
    def notices(self) -> tuple[str, ...]:
        return (LAYOUT_NOTICE,)

    def read(self, start: int, stop: int) -> RawDepth:
        """Frames ``start:stop``."""
        values = np.repeat(np.float32(1) / self.base[None], stop - start, axis=0)
        if self.sky.any():
            for slot, frame in enumerate(self.source.read(start, stop).frames):
                values[slot][is_sky(frame, self._sky_at(start + slot))] = 1 / _SKY
        return RawDepth(values=values, timestamps_s=self.timestamps_s[start:stop])

    def _sky_at(self, index: int) -> Float32:
        after = int(np.clip(np.searchsorted(self.keys, index), 0, len(self.keys) - 1))
        before = max(after - 1, 0)
        span = self.keys[after] - self.keys[before]
        weight = np.float32((index - self.keys[before]) / span if span > 0 else 0)
        return (1 - weight) * self.sky[before] + weight * self.sky[after]


def sky_share(frame: UInt8) -> Float32:
    """How much of each cell of a coarse grid is open sky.

    Sky is what is reached from the top edge without meeting texture and is blue, or is gray, bright and brighter
    than the lower half of the picture (which a plain wall in a room seldom is).

    Args:
        frame: uint8 [H,W,3] sRGB.

    Returns:
        float32 [h,96], 0–1, soft at its border.
    """
    height = max(8, round(_GRID_WIDTH * frame.shape[0] / frame.shape[1]))
    small = cv2.resize(frame, (_GRID_WIDTH, height), interpolation=cv2.INTER_AREA).astype(np.float32) / np.float32(255)
    red, green, blue = small[..., 0], small[..., 1], small[..., 2]
    luma = (0.2126 * red + 0.7152 * green + 0.0722 * blue).astype(np.float32)
    smooth = cv2.GaussianBlur(luma, (0, 0), 1.0)
    edges = np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=0.25), cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=0.25))
    lower = luma[height // 2 :].mean()
    blue_sky = _step(blue - red, 0.08, 0.2) * _step(blue - green, 0.0, 0.05) * _step(luma, 0.2, 0.35)
    gray_sky = _step(blue - red, -0.1, -0.02) * _step(luma, 0.5, 0.65) * _step(luma - lower, 0.05, 0.15)
    calm = 1 - _step(edges, 0.04, 0.08)
    likely = np.maximum(blue_sky, gray_sky) * calm
    reached = np.minimum.accumulate(likely, axis=0)
    if reached.mean() > _MIN_SKY_SHARE:
        # Wires, branches and tracks cut the sky off from the edge: what has its colour is sky beyond them too.
        color = (small * reached[..., None]).sum(axis=(0, 1)) / reached.sum()
        distance = np.abs(small - color).max(axis=-1)
        reached = np.maximum(reached, (1 - _step(distance, 0.08, 0.16)) * likely)
        reached = _spread_over_clouds(reached, small, luma)
    return np.asarray(np.clip(cv2.GaussianBlur(reached, (0, 0), 1.5), 0, 1), np.float32)


def is_sky(frame: UInt8, share: Float32) -> Bool:
    """The coarse share of sky, sharpened along the outlines of what stands before it.

    Sky is what lies where some was found and is about as bright and coloured as it is there, or brighter (clouds).

    Args:
        frame: uint8 [H,W,3] sRGB.
        share: float32 [h,96], see `sky_share`.

    Returns:
        bool [H,W].
    """
    height, width = frame.shape[:2]
    small = cv2.resize(frame, share.shape[::-1], interpolation=cv2.INTER_AREA).astype(np.float32)
    weight = cv2.GaussianBlur(share, (0, 0), 4.0)[..., None] + np.float32(1e-4)
    color = cv2.GaussianBlur(small * share[..., None], (0, 0), 4.0) / weight
    color = cv2.resize(color, (width, height), interpolation=cv2.INTER_LINEAR)
    distance = np.where(frame > color, np.float32(0.4), np.float32(1)) * np.abs(frame - color)
    near = cv2.resize(share, (width, height), interpolation=cv2.INTER_LINEAR) > _SOME_SKY
    sky = near & (distance.max(axis=-1) < _SKY_COLOR_LEVELS)
    return cv2.medianBlur(sky.astype(np.uint8), 5) > 0


def _spread_over_clouds(sky: Float32, small: Float32, luma: Float32) -> Float32:
    """Add what is nearly white, at least as bright as the sky, and touches it: clouds have texture."""
    sky_luma = float((luma * sky).sum() / sky.sum())
    colorfulness = small.max(axis=-1) - small.min(axis=-1)
    cloud = _step(luma, sky_luma, sky_luma + 0.08) * (1 - _step(colorfulness, 0.3, 0.45))
    for _ in range(_GRID_WIDTH // 4):
        sky = np.maximum(sky, np.minimum(cv2.dilate(sky, np.ones((3, 3), np.uint8)), cloud)).astype(np.float32)
    return sky


def _step(values: Any, low: float, high: float) -> Float32:
    """0 below `low`, 1 above `high`, linear between."""
    return np.clip((np.asarray(values, np.float32) - np.float32(low)) / np.float32(high - low), 0, 1)


def horizon(sky: Float32) -> float | None:
    """The horizon of a clip as a share of the height (0 = top), from sky float32 [k,h,w]; None without sky.

    It is where the sky ends in those columns that show most of it: things that stand up hide the horizon
    elsewhere, and never lower it.
    """
    if not sky.any():
        return None
    depth_of_sky = (sky.mean(axis=0) > 0.5).mean(axis=0)
    share = float(np.percentile(depth_of_sky, 90))
    # Sky down to the bottom: the camera looks up and no ground is in view; what stands there is taken as in a room.
    return None if share > _NO_GROUND else max(share, 0.05)


def base_disparity(height: int, width: int, horizon_share: float | None) -> Float32:
    """float32 [H,W], 1/depth without sky, nearest about 1.

    A level floor has a disparity that rises from 0 at the horizon to 1 at the bottom of the picture. It meets the
    back wall of a closed space (horizon None), or, outdoors, a backdrop at the horizon: what stands above it without
    being sky (trees, houses).
    """
    v = ((np.arange(height) + 0.5) / height).astype(np.float32)[:, None]
    x = ((np.arange(width) + 0.5) / width * 2 - 1).astype(np.float32)[None]
    if horizon_share is None:
        space = np.maximum((v - np.float32(_HORIZON)) / np.float32(1 - _HORIZON), np.float32(_BACK_WALL))
        return np.asarray(space + np.float32(_SIDE_WALL * (1 - _BACK_WALL)) * x * x, np.float32)
    above = (v - horizon_share) / _GROUND_SOFTNESS
    ground = np.logaddexp(0, above).astype(np.float32) * np.float32(_GROUND_SOFTNESS / (1 - horizon_share))
    return np.broadcast_to(_BACKDROP + (1 - _BACKDROP) * ground, (height, width)).astype(np.float32)
