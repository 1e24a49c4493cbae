"""Outlines that follow colour edges: GrabCut around each region that is likely a subject."""

import cv2
import numpy as np

from ex4d.core.arrays import Bool, Float32, UInt8
from ex4d.depth.subjects_grabcut import grab_cut

MIN_SHARE = 0.002
"""Regions smaller than this share of the frame are dropped."""
MAX_REGIONS = 8
_SIDE_PX = 160
_BAND_PX = 7
"""How far outside of a region its outline is looked for; working px, as all below."""
_HALO_PX = 14.0
_HALO_SHARE = 0.5
"""Flow swells regions: what lies deeper than this, or than this share of the deepest pixel, is no halo."""
_SURE_PX = 9
_STEPS = 2
_AREA_RATIO = (0.35, 2.5)


def regions(subject: Bool) -> list[Bool]:
    """The connected regions bool [h,w] that are large enough, largest first, at most `MAX_REGIONS`."""
    num, labels, stats, _ = cv2.connectedComponentsWithStats(subject.astype(np.uint8), connectivity=8)
    areas = stats[1:num, cv2.CC_STAT_AREA]
    order = np.argsort(-areas, kind="stable")[:MAX_REGIONS]
    return [np.asarray(labels == 1 + i) for i in order if areas[i] >= MIN_SHARE * subject.size]


def outline(rgb: UInt8, likelihood: Float32, remembered: Bool) -> Bool:
    """Snap likely regions to the colours of the picture.

    Args:
        rgb: uint8 [h,w,3].
        likelihood: float32 [h,w], 0..1; a region is where it exceeds 0.5.
        remembered: bool [h,w], what has had an outline before; all but its rim stays.

    Returns:
        bool [h,w]: of each region what GrabCut makes of it; the region itself where that would shrink or grow it
        beyond recognition, because its colours are those of the background.
    """
    likely = cv2.morphologyEx((likelihood > 0.5).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8)) > 0
    sure = cv2.erode(remembered.astype(np.uint8), np.ones((_SURE_PX, _SURE_PX), np.uint8)) > 0
    out = np.zeros(likely.shape, np.bool_)
    for region in regions(np.asarray(likely)):
        window = _window(region)
        cut = _cut(rgb[window], region[window], np.asarray(sure[window]))
        ratio = np.count_nonzero(cut) / np.count_nonzero(region)
        out[window] |= cut if _AREA_RATIO[0] < ratio < _AREA_RATIO[1] else region[window]
    return out


def _window(region: Bool) -> tuple[slice, slice]:
    """Around a region, with room for the band and some background."""
    margin = _BAND_PX + 9
    y, x = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    return (
        slice(max(int(y[0]) - margin, 0), int(y[-1]) + margin + 1),
        slice(max(int(x[0]) - margin, 0), int(x[-1]) + margin + 1),
    )


def _cut(rgb: UInt8, region: Bool, sure: Bool) -> Bool:
    """GrabCut of one window: what is deep inside of the region is subject, what is far from it is not."""
    inside = region.astype(np.uint8)
    depth_px = cv2.distanceTransform(inside, cv2.DIST_L2, 3)
    band = cv2.dilate(inside, np.ones((2 * _BAND_PX + 1, 2 * _BAND_PX + 1), np.uint8)) > 0
    labels = np.where(band, cv2.GC_PR_BGD, cv2.GC_BGD).astype(np.uint8)
    labels[region] = cv2.GC_PR_FGD
    labels[depth_px > min(_HALO_SHARE * depth_px.max(), _HALO_PX)] = cv2.GC_FGD
    labels[sure & region] = cv2.GC_FGD
    scale = min(1.0, _SIDE_PX / max(region.shape))
    size = (max(8, round(region.shape[1] * scale)), max(8, round(region.shape[0] * scale)))
    labels = np.asarray(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST), np.uint8)
    small = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    found = grab_cut(small, labels, steps=_STEPS)
    if found is None:
        return region
    cut = cv2.resize(found[0].astype(np.float32), region.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(cut > 0.5)
