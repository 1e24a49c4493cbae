"""The subject of a clip by its colours: what stands out from the rim of the picture, near its middle."""

from dataclasses import dataclass

import cv2
import numpy as np

from ex4d.core.arrays import Bool, Float32, Float64, UInt8
from ex4d.core.clip import Clip
from ex4d.core.video import Video
from ex4d.depth.layout import is_sky, sky_share

_SIDE_PX = 128
_MAX_KEYS = 8
_RIM = 0.08
_NUM_COLORS = 12
_MIN_COLOR_SHARE = 0.04
_LIGHTNESS_WEIGHT = 0.6
_CENTER = (0.5, 0.58)
_SPREAD = (0.28, 0.33)
_STEPS = 4
_AREA = (0.02, 0.5)
_MIN_SEPARATION = 3.5
_MIN_REGION = 0.01
_LOWEST_FOOT = 0.55


@dataclass(frozen=True, slots=True, kw_only=True)
class Salience:
    """Colours of a clip's subject and of everything else.

    Attributes:
        palette: float32 [k,3], weighted Lab colours of the rim.
        threshold: contrast from which on a pixel may belong to the subject.
        background: float64 [1,65], GrabCut's colour model.
        foreground: float64 [1,65].
    """

    palette: Float32
    threshold: float
    background: Float64
    foreground: Float64

    def likelihood(self, frame: UInt8, size: tuple[int, int]) -> Float32:
        """float32 [h,w] at `size`, 0..1, above 0.5 on the subject of a frame uint8 [H,W,3]."""
        found = _standing(self._cut(_shrink(frame))).astype(np.float32)
        return np.asarray(cv2.resize(found, size[::-1], interpolation=cv2.INTER_LINEAR), np.float32)

    def _cut(self, small: UInt8) -> Bool:
        """bool [h,w]: what has the subject's colours."""
        labels = _labels(small, _contrast(small, self.palette), self.threshold)
        models = self.background.copy(), self.foreground.copy()
        cv2.grabCut(small, labels, None, *models, 1, cv2.GC_EVAL_FREEZE_MODEL)
        return np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD))

    def separation(self, small: UInt8) -> tuple[float, float]:
        """Of a shrunk frame: the share of it that the subject covers, and how many times farther it is from the
        rim's colours than the rest."""
        contrast, found = _contrast(small, self.palette), self._cut(small)
        if not found.any() or found.all():
            return 0.0, 0.0
        return float(_standing(found).mean()), float(contrast[found].mean() / max(contrast[~found].mean(), 1e-6))


def find_salience(source: Clip[Video]) -> Salience | None:
    """Learn the colours of a clip's subject from at most 8 frames.

    Pixels whose colour is far from all colours of the rim (top and sides) and that lie near the middle start GrabCut on
    all these frames at once. None unless the result covers 2 to 50 % of the frame and is at least 3.5 times as far
    from the rim's colours as the rest (medians over the frames): a wrong subject is worse than none.
    """
    num = source.num_frames
    keys = np.unique(np.linspace(0, num - 1, min(_MAX_KEYS, num)).round().astype(int))
    frames = [_shrink(source.read(int(k), int(k) + 1).frames[0]) for k in keys]
    palette = _rim_palette(frames)
    contrasts = [_contrast(frame, palette) for frame in frames]
    threshold = _otsu(np.concatenate(contrasts))
    labels = np.concatenate([_labels(f, c, threshold) for f, c in zip(frames, contrasts, strict=True)])
    if not (labels == cv2.GC_PR_FGD).any() or (labels == cv2.GC_PR_FGD).all():
        return None
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)  # GrabCut and k-means start from random clusters
    cv2.grabCut(np.concatenate(frames), labels, None, background, foreground, _STEPS, cv2.GC_INIT_WITH_MASK)
    found = Salience(palette=palette, threshold=threshold, background=background, foreground=foreground)
    area, separation = np.median([found.separation(frame) for frame in frames], axis=0)
    return found if _AREA[0] < area < _AREA[1] and separation > _MIN_SEPARATION else None


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
    return good[labels]


def _shrink(frame: UInt8) -> UInt8:
    scale = min(1.0, _SIDE_PX / max(frame.shape[:2]))
    size = (max(8, round(frame.shape[1] * scale)), max(8, round(frame.shape[0] * scale)))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)


def _grid(shape):
    height, width = shape[:2]
    return np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)


def _lab(small: UInt8) -> Float32:
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    lab = cv2.GaussianBlur(lab, (0, 0), 1.5)
    lab[..., 0] *= _LIGHTNESS_WEIGHT
    return lab


def _rim_palette(frames) -> Float32:
    x, y = _grid(frames[0].shape)
    rim = (y < _RIM) | (x < _RIM) | (x > 1 - _RIM)
    samples = np.concatenate([_lab(frame)[rim] for frame in frames])
    cv2.setRNGSeed(0)
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 20, 0.5)
    _, which, palette = cv2.kmeans(samples, _NUM_COLORS, None, criteria, 2, cv2.KMEANS_PP_CENTERS)
    share = np.bincount(which.ravel(), minlength=_NUM_COLORS) / len(samples)
    return palette[share > _MIN_COLOR_SHARE]


def _contrast(small: UInt8, palette: Float32) -> Float32:
    distance = np.linalg.norm(_lab(small)[:, :, None] - palette, axis=-1).min(axis=-1)
    x, y = _grid(small.shape)
    prior = np.exp(-0.5 * ((x - _CENTER[0]) / _SPREAD[0]) ** 2 - 0.5 * ((y - _CENTER[1]) / _SPREAD[1]) ** 2)
    return (distance * prior).astype(np.float32)


def _labels(small, contrast, threshold):
    labels = np.where(contrast > threshold, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    x, y = _grid(small.shape)
    labels[(y < 0.04) | (x < 0.04) | (x > 0.96)] = cv2.GC_BGD
    labels[is_sky(small, sky_share(small))] = cv2.GC_BGD
    return labels
