"""The focal length that makes pairs of views agree best: a sweep of the two-view geometry."""

import numpy as np

from ex4d.core.arrays import Float64
from ex4d.core.camera import pinhole
from ex4d.motion.structure import Work, choose_keyframes
from ex4d.motion.tracks import Tracks
from ex4d.motion.two_view import epipolar_error_px, relative_pose

USUAL_FOCAL_SHARE = 0.9
"""Focal length over the longer side of most video cameras: about 58° across."""
_SHARES = np.geomspace(0.5, 2.0, 15)
_MAX_PAIRS = 16
_MIN_PAIRS = 4
_MIN_PARALLAX_PX = 0.5
_PRIOR = 0.06
"""Relative cost of a focal length that is twice or half of the usual: what settles the matter where curves are flat."""


def sweep_focal(tracks: Tracks) -> float | None:
    """Focal length over the longer side, found without knowing anything but a still scene and a moved camera.

    For each of 15 focal lengths the truncated Sampson distances of the pairs with most parallax are averaged; the
    lowest point of the curve, with a weak preference for the usual, wins. Forward motion and little parallax leave
    the curve flat, and the usual value wins.

    Args:
        tracks: of a clip whose camera moves.

    Returns:
        the share, 0.5 to 2; None where fewer than four pairs of views show parallax, or an end of that range fits best.
    """
    longer = max(tracks.height, tracks.width)
    K = pinhole(focal_px=USUAL_FOCAL_SHARE * longer, height=tracks.height, width=tracks.width)
    work = Work.of(tracks, choose_keyframes(tracks), K)
    scored = [(work.score(*pair), pair) for pair in work.pairs()]
    useful = sorted(
        ((found.quality, pair) for found, pair in scored if found and found.quality > _MIN_PARALLAX_PX), reverse=True
    )
    if len(useful) < _MIN_PAIRS:
        return None
    views = [work.shared(*pair) for _, pair in useful[:_MAX_PAIRS]]
    costs = np.array([_cost(views, share * longer, tracks) for share in _SHARES])
    relative = costs / costs.min() + _PRIOR * np.log2(_SHARES / USUAL_FOCAL_SHARE) ** 2
    return _lowest(relative)


def _cost(views: list[tuple[Float64, Float64]], focal_px: float, tracks: Tracks) -> float:
    K = pinhole(focal_px=focal_px, height=tracks.height, width=tracks.width)
    found: list[float] = []
    for here, there in views:
        pose = relative_pose(here, there, K, threshold_px=0.5)
        if pose is None:
            found.append(1.0)
            continue
        error = epipolar_error_px(here, there, K, pose.rotation, pose.translation)
        found.append(float(np.minimum(error, 1.0).mean()))
    return float(np.mean(found))


def _lowest(costs: Float64) -> float | None:
    """The share at the vertex of the parabola through the lowest point and its neighbours, in the logarithm."""
    i = int(np.argmin(costs))
    if i in (0, len(costs) - 1):
        return None
    a, b, c = costs[i - 1 : i + 2]
    bend = a - 2 * b + c
    offset = float(np.clip(0.5 * (a - c) / bend, -1, 1)) if bend > 1e-12 else 0.0
    step = np.log(_SHARES[1] / _SHARES[0])
    return float(_SHARES[i] * np.exp(offset * step))
