"""What cards stand on and before: ground, a wall or backdrop behind it, and sky; one geometry for a whole clip.

Ground gets nearer from the horizon down, as a plane does; the camera is taken to be level, or to look up where the sky
reaches below the middle of the picture. A backdrop closes it off under a sky, a wall in a closed space, where rooms
usually end. Where no subject stands out, whatever is in the room is part of the wall: as things that are low in the
picture tend to be near, that wall leans back. Nothing here is measured but the sky.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from ex4d.core.arrays import Bool, Float32, Float64
from ex4d.core.clip import Clip
from ex4d.core.video import Video
from ex4d.depth.layout import horizon, is_sky, sky_share
from ex4d.depth.subjects_salience import find_salience
from ex4d.motion.flow import work_size

_MAX_KEYS = 24
_LEVEL = 0.5
_MIN_SKY_SHARE = 0.03
_BACKDROP, _WALL, _CROWDED_WALL = 0.3, 0.45, 0.6
"""1/depth of the foot of what closes the view, the nearest ground of the picture being 1."""
_SIDE, _CROWDED_SIDE = 0.15, 0.2
"""How much nearer walls come to the sides."""
_LEAN = 0.6
"""How much farther the top of a crowded room is than its bottom."""
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
    level = horizon(shares)
    if level is not None:
        # What stands before the sky hides the horizon: a sky that ends above the middle says nothing of it.
        shape = _Shape(horizon=max(level, _LEVEL), closing=_BACKDROP)
    elif find_salience(source) is not None:
        shape = _Shape(closing=_WALL, side=_SIDE)
    else:
        shape = _Shape(closing=_CROWDED_WALL, side=_CROWDED_SIDE, lean=_LEAN)
    ground = shape.draw(work_size(source.height, source.width))
    return Background(source=source, keys=keys.astype(np.float64), shares=shares, ground=ground)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    """Parameters of a ground, in shares of the height and of the disparity of its nearest row."""

    horizon: float = _LEVEL
    closing: float
    side: float = 0.0
    lean: float = 0.0

    def draw(self, size: tuple[int, int]) -> Float32:
        """float32 [h,w]: 1/z."""
        y = ((np.arange(size[0]) + 0.5) / size[0])[:, None]
        x = ((np.arange(size[1]) + 0.5) / size[1] * 2 - 1)[None]
        foot = self.horizon + self.closing * (1 - self.horizon)
        rise = (y - foot) / (1 - self.horizon)
        ground = self.closing + _SOFTNESS * np.logaddexp(0, rise / _SOFTNESS)
        return (ground + self.side * x * x + self.lean * np.minimum(y - foot, 0)).astype(np.float32)
