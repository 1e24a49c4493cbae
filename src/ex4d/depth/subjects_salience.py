"""The subject of a clip by its colours: what stands out from the rim of the picture, near its middle."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ex4d.core.arrays import Bool, Float32, Float64, UInt8
from ex4d.core.clip import Clip
from ex4d.core.video import Video
from ex4d.depth.layout import is_sky, sky_share
from ex4d.depth.subjects_grabcut import ColorModels, cut_with, grab_cut

_SIDE_PX = 128
_MAX_KEYS = 8
_RIM = 0.08
_CERTAIN_RIM = 0.04
_NUM_COLORS = 12
_MIN_COLOR_SHARE = 0.04
_LIGHTNESS_WEIGHT = 0.6
_CENTER, _SPREAD = (0.5, 0.58), (0.28, 0.33)
"""Where subjects are: a Gaussian in shares of the width and height."""
_STEPS = 4
_AREA = (0.02, 0.5)
_MIN_SEPARATION = 3.5
_MIN_REGION = 0.01
_LOWEST_FOOT = 0.55


@dataclass(frozen=True, slots=True, kw_only=True)
class Salience:
    """Colours of a clip's subject and of everything else; use `find_salience`.

    Attributes:
        palette: float32 [k,3], weighted Lab colours of the rim.
        models: GrabCut's, of the whole clip: one choice for all frames does not flicker.
    """

    palette: Float32
    models: ColorModels

    def likelihood(self, frame: UInt8, size: tuple[int, int]) -> Float32:
        """float32 [h,w] at `size`, 0..1, above 0.5 on the subject of a frame uint8 [H,W,3]."""
        found = _standing(self._cut(_shrink(frame))).astype(np.float32)
        return np.asarray(cv2.resize(found, size[::-1], interpolation=cv2.INTER_LINEAR), np.float32)

    def _cut(self, small: UInt8) -> Bool:
        """bool [h,w]: what has the subject's colours and can be it."""
        labels = np.full(small.shape[:2], cv2.GC_PR_BGD, np.uint8)
        labels[_is_background(small)] = cv2.GC_BGD
        return cut_with(small, labels, self.models)

    def separation(self, frame: UInt8) -> tuple[float, float]:
        """How much of a frame uint8 [H,W,3] the subject covers, and how many times farther it is from the rim's
        colours than the rest."""
        small = _shrink(frame)
        contrast, found = _contrast(small, self.palette), self._cut(small)
        if not found.any():
            return 0.0, 0.0
        rest = max(float(contrast[~found].mean()), 1e-6)
        return float(_standing(found).mean()), float(contrast[found].mean()) / rest


def find_salience(source: Clip[Video]) -> Salience | None:
    """Learn the colours of a clip's subject from at most 8 frames.

    Pixels whose colour is far from all colours of the rim (top and sides) and that lie near the middle start GrabCut on
    all these frames at once. None unless the result stands below the middle, covers 2 to 50 % of the frame and is at
    least 3.5 times as far from the rim's colours as the rest (medians over the frames): a wrong subject is worse than
    none. Subjects were at 4.8 and more, other things at 2.2 and less, on the clips that the threshold was set on.
    """
    num = source.num_frames
    keys = np.unique(np.linspace(0, num - 1, min(_MAX_KEYS, num)).round().astype(int))
    frames = [_shrink(source.read(int(key), int(key) + 1).frames[0]) for key in keys]
    palette = _rim_palette(frames)
    contrast = np.concatenate([_contrast(frame, palette) for frame in frames])
    labels = np.where(contrast > _otsu(contrast), cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[np.concatenate([_is_background(frame) for frame in frames])] = cv2.GC_BGD
    found = grab_cut(np.concatenate(frames), labels, steps=_STEPS)
    if found is None:
        return None
    salience = Salience(palette=palette, models=found[1])
    area, separation = np.median([salience.separation(frame) for frame in frames], axis=0)
    return salience if _AREA[0] < area < _AREA[1] and separation > _MIN_SEPARATION else None


def _otsu(values: Float32) -> float:
    """The level that best splits values >= 0 in two (Otsu, 1979)."""
    top = max(float(values.max()), 1e-6)
    split, _ = cv2.threshold((values / top * 255).astype(np.uint8), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return split / 255 * top


def _standing(found: Bool) -> Bool:
    """The regions of a mask [h,w] that are large and reach far enough down to stand on the ground."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(found.astype(np.uint8), connectivity=8)
    foot = stats[:, cv2.CC_STAT_TOP] + stats[:, cv2.CC_STAT_HEIGHT]
    good = (stats[:, cv2.CC_STAT_AREA] > _MIN_REGION * found.size) & (foot > _LOWEST_FOOT * len(found))
    good[0] = False
    return good[np.asarray(labels, np.int64)]


def _shrink(frame: UInt8) -> UInt8:
    scale = min(1.0, _SIDE_PX / max(frame.shape[:2]))
    size = (max(8, round(frame.shape[1] * scale)), max(8, round(frame.shape[0] * scale)))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)


def _grid(small: UInt8) -> tuple[Float64, Float64]:
    """x [1,w] and y [h,1] of pixel centres, shares of the width and height."""
    height, width = small.shape[:2]
    return ((np.arange(width) + 0.5) / width)[None], ((np.arange(height) + 0.5) / height)[:, None]


def _rim(small: UInt8, share: float) -> Bool:
    """bool [h,w]: the rim of a picture but for its bottom, where subjects stand."""
    x, y = _grid(small)
    return (y < share) | (x < share) | (x > 1 - share)


def _is_background(small: UInt8) -> Bool:
    """bool [h,w]: never subject."""
    return _rim(small, _CERTAIN_RIM) | is_sky(small, sky_share(small))


def _lab(small: UInt8) -> Float32:
    lab = cv2.GaussianBlur(cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), (0, 0), 1.5)
    return np.asarray(lab * np.array([_LIGHTNESS_WEIGHT, 1, 1], np.float32), np.float32)


def _rim_palette(frames: Sequence[UInt8]) -> Float32:
    """float32 [k,3]: the common colours of the rim."""
    samples = np.concatenate([_lab(frame)[_rim(frame, _RIM)] for frame in frames])
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 20, 0.5)
    which = np.zeros((len(samples), 1), np.int32)
    cv2.setRNGSeed(0)
    _, which, palette = cv2.kmeans(samples, _NUM_COLORS, which, criteria, 2, cv2.KMEANS_PP_CENTERS)
    share = np.bincount(np.asarray(which).ravel(), minlength=_NUM_COLORS) / len(samples)
    return np.asarray(palette, np.float32)[share > _MIN_COLOR_SHARE]


def _contrast(small: UInt8, palette: Float32) -> Float32:
    """float32 [h,w]: distance of each pixel's colour to the nearest of the palette, weighted by where subjects are."""
    distance = np.linalg.norm(_lab(small)[:, :, None] - palette, axis=-1).min(axis=-1)
    x, y = _grid(small)
    prior = np.exp(-0.5 * (((x - _CENTER[0]) / _SPREAD[0]) ** 2 + ((y - _CENTER[1]) / _SPREAD[1]) ** 2))
    return (distance * prior).astype(np.float32)
