"""Outlines that follow colour edges: GrabCut around each region that is likely a subject."""

import cv2
import numpy as np

from ex4d.core.arrays import Bool, Float32, UInt8

MIN_SHARE = 0.0015
"""Regions smaller than this share of the frame are dropped."""
MAX_REGIONS = 8
_GRABCUT_SIDE_PX = 160
_BAND_PX = 7
_CORE_SHARE = 0.5
_STEPS = 2
_SURE_PX = 9
_HALO_PX = 14.0
_AREA_RATIO = (0.35, 2.5)


def regions(subject: Bool) -> list[Bool]:
    """The connected regions bool [h,w] that are large enough, largest first, at most `MAX_REGIONS`."""
    num, labels, stats, _ = cv2.connectedComponentsWithStats(subject.astype(np.uint8), connectivity=8)
    areas = stats[1:num, cv2.CC_STAT_AREA]
    order = np.argsort(-areas, kind="stable")[:MAX_REGIONS]
    return [labels == 1 + i for i in order if areas[i] >= MIN_SHARE * subject.size]


def outline(rgb: UInt8, likelihood: Float32, remembered: Bool) -> Bool:
    """Snap likely regions to the colours of the picture.

    Args:
        rgb: uint8 [h,w,3].
        likelihood: float32 [h,w], 0..1; a region is where it exceeds 0.5.

    Returns:
        bool [h,w]: per region what GrabCut makes of it within `_BAND_PX` of it; the region itself where that would
        shrink or grow it beyond recognition, because its colours are those of the background.
    """
    likely = cv2.morphologyEx((likelihood > 0.5).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8)) > 0
    sure = cv2.erode(remembered.astype(np.uint8), np.ones((_SURE_PX,) * 2, np.uint8)) > 0
    out = np.zeros(likely.shape, np.bool_)
    for region in regions(likely):
        rows, columns = _box(region)
        cut = _cut(rgb[rows, columns], region[rows, columns], sure[rows, columns])
        ratio = cut.sum() / region.sum()
        out[rows, columns] |= cut if _AREA_RATIO[0] < ratio < _AREA_RATIO[1] else region[rows, columns]
    return out


def _box(region: Bool) -> tuple[slice, slice]:
    """A window around a region with room for the band and some background."""
    margin = _BAND_PX + 6
    y, x = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    return (
        slice(max(int(y[0]) - margin, 0), int(y[-1]) + margin + 1),
        slice(max(int(x[0]) - margin, 0), int(x[-1]) + margin + 1),
    )


def _cut(rgb: UInt8, region: Bool, sure: Bool) -> Bool:
    """GrabCut of one window: the core of the region is subject, what is far from it is not."""
    inside = region.astype(np.uint8)
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, 3)
    band = cv2.dilate(inside, np.ones((2 * _BAND_PX + 1,) * 2, np.uint8)) > 0
    labels = np.where(band, cv2.GC_PR_BGD, cv2.GC_BGD).astype(np.uint8)
    labels[region] = cv2.GC_PR_FGD
    labels[distance > min(_CORE_SHARE * distance.max(), _HALO_PX)] = cv2.GC_FGD
    labels[sure & region] = cv2.GC_FGD
    scale = min(1.0, _GRABCUT_SIDE_PX / max(region.shape))
    size = (max(8, round(region.shape[1] * scale)), max(8, round(region.shape[0] * scale)))
    labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    if not _has_both(labels):
        return region
    cv2.setRNGSeed(0)  # GrabCut starts from random clusters
    cv2.grabCut(small, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), _STEPS, cv2.GC_INIT_WITH_MASK)
    cut = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.float32)
    return np.asarray(cv2.resize(cut, region.shape[::-1], interpolation=cv2.INTER_LINEAR)) > 0.5


def _has_both(labels: UInt8) -> bool:
    subject = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD))
    return bool(subject.any() and not subject.all())
