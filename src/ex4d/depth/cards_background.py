"""What cards stand on and before: level ground, a wall or backdrop behind it, and sky; for a whole clip.

The camera is taken to be level, or to look up where the sky reaches below the middle of the picture. Ground gets
nearer from the horizon down, as a plane does. A wall (closed space) or backdrop (under a sky) closes it off; walls come
nearer to the sides. Nothing here is measured but the sky. Unlike in the `layout` preview the wall stands about where
rooms end and not where it fits best without any object: cards take care of those.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from ex4d.core.arrays import Bool, Float32, Float64
from ex4d.core.clip import Clip
from ex4d.core.video import Video
from ex4d.depth.layout import horizon, is_sky, sky_share
from ex4d.motion.flow import work_size

_MAX_KEYS = 24
_LEVEL = 0.5
_MIN_SKY_SHARE = 0.03
_WALL = 0.45
_BACKDROP = 0.3
"""1/depth of what closes the view, the nearest ground of the picture being 1."""
_SIDE = 0.15
_SOFTNESS = 0.03
_SKY = 0.25
"""1/depth of the sky, the backdrop being 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Background:
    """Ground, wall and sky of a clip, at `flow.work_size`.

    Attributes:
        source: the clip; its frames are read again only where sky was found, to draw its outline.
        keys: float64 [k], frames that were looked at for sky, increasing.
        shares: float32 [k,h',w'], `layout.sky_share` of those frames; all 0 where the clip shows no sky.
        ground: float32 [h,w], 1/z of ground and wall, nearest about 1; the same for all frames.
    """

    source: Clip[Video]
    keys: Float64
    shares: Float32
    ground: Float32

    def sky(self, index: int) -> Bool:
        """bool [h,w]: the sky in a frame."""
        if not self.shares.any():
            return np.zeros(self.ground.shape, np.bool_)
        at = float(np.interp(index, self.keys, np.arange(len(self.keys))))
        first, weight = int(at), np.float32(at % 1)
        share = (1 - weight) * self.shares[first] + weight * self.shares[min(first + 1, len(self.keys) - 1)]
        frame = self.source.read(index, index + 1).frames[0]
        small = cv2.resize(frame, self.ground.shape[::-1], interpolation=cv2.INTER_AREA)
        return is_sky(np.asarray(small, np.uint8), share)

    def disparity(self, index: int) -> Float32:
        """float32 [h,w] > 0: 1/z of a frame without its subjects."""
        return np.where(self.sky(index), np.float32(_SKY * self.ground.min()), self.ground)


def find_background(source: Clip[Video]) -> Background:
    """Look for sky in at most 24 frames of a clip and fix its ground."""
    num = source.num_frames
    keys = np.unique(np.linspace(0, num - 1, min(_MAX_KEYS, num)).round().astype(np.int64))
    shares = np.stack([sky_share(source.read(int(key), int(key) + 1).frames[0]) for key in keys])
    if np.median(shares.mean(axis=(1, 2))) < _MIN_SKY_SHARE:
        shares[:] = 0
    ground = _ground(work_size(source.height, source.width), horizon(shares))
    return Background(source=source, keys=keys.astype(np.float64), shares=shares, ground=ground)


def _ground(size: tuple[int, int], horizon_share: float | None) -> Float32:
    """float32 [h,w]: 1/z of the ground, level off where the wall (None: no sky) or backdrop stands."""
    y = ((np.arange(size[0]) + 0.5) / size[0])[:, None]
    x = ((np.arange(size[1]) + 0.5) / size[1] * 2 - 1)[None]
    # What stands before the sky hides the horizon, so a sky that ends above the middle says nothing of it.
    level = max(horizon_share or 0.0, _LEVEL)
    closing, side = (_WALL, _SIDE) if horizon_share is None else (_BACKDROP, 0.0)
    rise = (y - level) / (1 - level) - closing
    return (closing + _SOFTNESS * np.logaddexp(0, rise / _SOFTNESS) + side * x * x).astype(np.float32)
