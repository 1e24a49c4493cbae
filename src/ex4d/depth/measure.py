"""How good depth is: one affine fit a clip, AbsRel and δ1, order at object borders, flicker. NumPy only.

One rule for all methods: an estimate becomes disparity (1/z, larger = nearer) and gets one scale and shift for the
whole clip. Flicker needs either true cameras and depth (`match_points`, `flicker_by_matches`) or nothing but a flow
(`flicker_by_flow`).
"""

from dataclasses import dataclass

import numpy as np

from ex4d.core.arrays import Bool, Float32, Float64, Int64
from ex4d.core.camera import Camera
from ex4d.core.geometry import project
from ex4d.errors import DepthError
from ex4d.io.depth.raw import DepthKind

BORDER_RATIO = 1.1
"""Two surfaces belong to an object border where one is at least 10 % farther than the other."""

ORDER_RATIO = 1.03
"""An estimate has the order right where it puts the farther surface at least 3 % farther."""

SAME_POINT = 0.03
"""A point counts as the surface that another frame sees if their depths differ by no more than 3 %."""

_HUBER = 1.345  # 95 % efficient under Gaussian errors
_KEPT_PERCENTILES = (0.5, 99.5)
_MAX_STEPS = 50
_EXACT = 1e-6  # smallest σ, relative to the mean of the truth: an exact fit has none
_JUMP = 4.0  # disparity changes this many times faster across a border than on either side of it
_REACH_SHARE = 0.01  # of the width: how far behind a border a pair looks


@dataclass(frozen=True, slots=True, kw_only=True)
class AffineFit:
    """1/z = max(scale · disparity + shift, floor).

    Attributes:
        scale: >= 0; 0 where the estimate says nothing of the truth, or the opposite of it.
        shift: in 1/unit of the truth.
        floor: > 0, 1 / the farthest truth of the clip.
    """

    scale: float
    shift: float
    floor: float

    def depth(self, disparity: Float32) -> Float32:
        """float32 depth of the same shape, in the truth's unit.

        Whatever falls below the floor (which includes all that is not positive) is put as far as the farthest truth;
        so is what the estimate does not know (NaN: sky, holes).
        """
        fitted = np.float32(self.scale) * disparity + np.float32(self.shift)
        return np.reciprocal(np.fmax(fitted, np.float32(self.floor)), dtype=np.float32)


def raw_disparity(values: Float32, kind: DepthKind, sky: Bool | None = None) -> Float32:
    """What an estimator returned as disparity of any scale and shift.

    Args:
        values: float32 [...], finite: depth (0 = unknown) or disparity.
        kind: which of both.
        sky: bool [...], or None.

    Returns:
        float32 [...], NaN where the estimate knows nothing or sees sky.
    """
    known = np.ones(values.shape, np.bool_) if sky is None else ~sky
    if kind == "depth":
        known &= values > 0
        values = np.reciprocal(np.where(known, values, np.float32(1)), dtype=np.float32)
    return np.where(known, values, np.float32(np.nan))


def lattice_step(num_frames: int, height: int, width: int, budget: int = 1 << 18) -> int:
    """Every how many px in x and in y a clip is sampled, so that at most about `budget` pixels are taken."""
    return max(1, int(np.ceil(np.sqrt(num_frames * height * width / budget))))


def fit_clip(disparity: Float32, truth: Float32, *, farthest: float) -> AffineFit:
    """The one affine fit of a clip: Huber's regression of 1 / truth on the estimate's disparity.

    Least squares, reweighted until the line stays (at most 50 times) by min(1, 1.345 σ / |residual|) with
    σ = 1.4826 · the median |residual| (Huber, 1981). Pixels outside the 0.5th to 99.5th percentile of the estimate
    have no say, so that a few wild ones do not turn the line. A negative scale becomes 0: nobody may have near and far
    exchanged.

    Args:
        disparity: float32 [N], of pixels sampled evenly over the whole clip; NaN is left out.
        truth: float32 [N], depth > 0 of the same pixels.
        farthest: the largest truth of the clip.

    Raises:
        DepthError: fewer than two pixels with a known estimate.
    """
    known = np.isfinite(disparity)
    if np.count_nonzero(known) < 2:
        raise DepthError("an estimate on at least two pixels with a known depth", f"{np.count_nonzero(known)}")
    low, high = np.percentile(disparity[known], _KEPT_PERCENTILES)
    known &= (disparity >= low) & (disparity <= high)
    x, y = disparity[known].astype(np.float64), 1 / truth[known].astype(np.float64)
    weight = np.ones_like(x)
    line = _least_squares(x, y, weight)
    for _ in range(_MAX_STEPS):
        residual = np.abs(line[0] * x + line[1] - y)
        limit = _HUBER * max(1.4826 * float(np.median(residual)), _EXACT * float(y.mean()))
        weight = limit / np.maximum(residual, limit)
        before, line = line, _least_squares(x, y, weight)
        if np.allclose(before, line, rtol=1e-6, atol=0):
            break
    return AffineFit(scale=line[0], shift=line[1], floor=1 / farthest)


def _least_squares(x: Float64, y: Float64, weight: Float64) -> tuple[float, float]:
    """Scale >= 0 and shift of a weighted fit."""
    total = float(weight.sum())
    mean_x, mean_y = float((weight * x).sum()) / total, float((weight * y).sum()) / total
    variance = float((weight * (x - mean_x) ** 2).sum()) / total
    if variance <= (1e-6 * mean_x) ** 2:
        return 0.0, mean_y
    scale = max(float((weight * (x - mean_x) * (y - mean_y)).sum()) / total / variance, 0.0)
    return scale, mean_y - scale * mean_x


def depth_errors(depth: Float32, truth: Float32) -> tuple[float, float]:
    """AbsRel = mean |z / z_true − 1| and δ1 = share of max(z / z_true, z_true / z) < 1.25, of depths [N] > 0."""
    ratio = depth.astype(np.float64) / truth
    return float(np.abs(ratio - 1).mean()), float((np.maximum(ratio, 1 / ratio) < 1.25).mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class BorderPairs:
    """Pairs of pixels on both sides of object borders, as flat indices into a map [H,W].

    Attributes:
        near: int64 [P].
        far: int64 [P].
    """

    near: Int64
    far: Int64


def border_pairs(truth: Float32, known: Bool) -> BorderPairs:
    """All pairs that straddle an occlusion border of the truth, in rows and in columns.

    Two known pixels p, q that follow each other in a row (fewer than R unknown ones between them are skipped,
    R = max(2, round(1 % of the width))) are a border if one is at least 1.1 times as far as the other and disparity
    changes at least 4 times as fast from p to q as from either to its pixel R − 1 farther outward: a slanted plane is
    linear in disparity and never a border. Those two outward pixels are the pair; both must be known, within a ratio
    of 1.1 of their border pixel, and 1.1 apart in the same order. A pair is thus about 2 % of the width wide, 3 % at
    most, and things thinner than R px have none.

    Args:
        truth: float32 [H,W], depth > 0 where `known`.
        known: bool [H,W]; sky is not known.
    """
    index = np.arange(truth.size, dtype=np.int64).reshape(truth.shape)
    reach = max(2, round(_REACH_SHARE * truth.shape[1]))
    parts = [_pairs_in_rows(*maps, reach) for maps in ((truth, known, index), (truth.T, known.T, index.T))]
    return BorderPairs(near=np.concatenate([near for near, _ in parts]), far=np.concatenate([far for _, far in parts]))


def _pairs_in_rows(truth: Float32, known: Bool, index: Int64, reach: int) -> tuple[Int64, Int64]:
    width = truth.shape[1]
    columns = np.arange(width)
    last_known = np.maximum.accumulate(np.where(known, columns, -1), axis=1)
    p, q = last_known[:, :-1], columns[1:]
    row, at = np.nonzero(known[:, 1:] & (p >= 0) & (q - p <= reach) & (p > reach - 2) & (q + reach <= width))
    p, q = p[row, at], q[at]
    outer_p, outer_q = p - (reach - 1), q + (reach - 1)
    both = known[row, outer_p] & known[row, outer_q]
    row, p, q, outer_p, outer_q = (values[both] for values in (row, p, q, outer_p, outer_q))
    z_p, z_q, z_outer_p, z_outer_q = (truth[row, column] for column in (p, q, outer_p, outer_q))
    slope = np.maximum(np.abs(1 / z_p - 1 / z_outer_p), np.abs(1 / z_q - 1 / z_outer_q)) / (reach - 1)
    is_border = (
        (_ratio(z_p, z_q) >= BORDER_RATIO)
        & (np.abs(1 / z_p - 1 / z_q) >= _JUMP * slope * (q - p))
        & (np.maximum(_ratio(z_p, z_outer_p), _ratio(z_q, z_outer_q)) <= BORDER_RATIO)
        & (_ratio(z_outer_p, z_outer_q) >= BORDER_RATIO)
        & ((z_p < z_q) == (z_outer_p < z_outer_q))
    )
    first, second = (index[row[is_border], column[is_border]] for column in (outer_p, outer_q))
    p_is_near = (z_p < z_q)[is_border]
    return np.where(p_is_near, first, second), np.where(p_is_near, second, first)


def _ratio(a: Float32, b: Float32) -> Float32:
    return np.divide(np.maximum(a, b), np.minimum(a, b), dtype=np.float32)


def count_ordered(depth: Float32, pairs: BorderPairs) -> tuple[int, int]:
    """How many pairs the estimate orders rightly: by at least 3 %, and by anything at all (ties are wrong).

    Args:
        depth: float32 [H,W] > 0, after the clip's fit.
        pairs: from the truth of the same frame.
    """
    flat = depth.ravel()
    near, far = flat[pairs.near], flat[pairs.far]
    return int((far >= np.float32(ORDER_RATIO) * near).sum()), int((far > near).sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class PointMatches:
    """The same surface points in two frames, as flat indices into maps [H,W].

    Attributes:
        before: int64 [M], pixels of the earlier frame.
        after: int64 [M], the pixels of the later one that hold the points.
    """

    before: Int64
    after: Int64


def match_points(pixels: Int64, points: Float64, camera: Camera, truth: Float32, known: Bool) -> PointMatches:
    """Which pixels of a frame see given surface points.

    A point is seen if it lies before the camera, falls into the frame, and the true depth of the pixel that it falls
    into is known and within 3 % of its own.

    Args:
        pixels: int64 [M], flat indices of the points in the earlier frame.
        points: float64 [M,3], where these points are at the later time, world coordinates.
        camera: of the later frame.
        truth: float32 [H,W], its depth.
        known: bool [H,W].
    """
    at, z = project(camera, points)
    with np.errstate(invalid="ignore"):
        inside = (z > 0) & (at >= 0).all(axis=-1) & (at[:, 0] < camera.width) & (at[:, 1] < camera.height)
    column, row = at[inside].astype(np.int64).T
    after = row * camera.width + column
    seen = known.ravel()[after] & (np.abs(truth.ravel()[after] / z[inside] - 1) <= SAME_POINT)
    return PointMatches(before=pixels[inside][seen], after=after[seen])


def flicker_by_matches(
    before: Float32, after: Float32, matches: PointMatches, *, true_before: Float32, true_after: Float32
) -> Float64:
    """|Δ log z − Δ log z_true| of the same surface points in two frames; the truth itself scores 0.

    Args:
        before: float32 [H,W] > 0, estimate after the clip's fit, earlier frame.
        after: the same, later frame.
        matches: from true depth, cameras and object motion.
        true_before: float32 [H,W], true depth of the earlier frame.
        true_after: of the later one.

    Returns:
        float64 [M]; 0.01 is a point that jumps by 1 % of its distance.
    """
    start, end = matches.before, matches.after
    change = np.log(after.ravel()[end].astype(np.float64) / before.ravel()[start])
    true_change = np.log(true_after.ravel()[end].astype(np.float64) / true_before.ravel()[start])
    return np.abs(change - true_change)


def flicker_by_flow(before: Float32, after: Float32, flow_px: Float32, consistent: Bool) -> float:
    """Median |log z_after(p) − log z_before(p + flow)|: flicker where no truth is known.

    It holds the real motion of points towards the camera too, which is small from one frame to the next. Where p + flow
    falls between pixels the nearest one is read: between a surface and what is behind it there is no depth.

    Args:
        before: float32 [H,W] > 0, depth of the earlier frame.
        after: the same of the later one.
        flow_px: float32 [H,W,2], from each pixel of the later frame to where the earlier one shows it (x, y).
        consistent: bool [H,W], True where the flows forward and backward agree.

    Returns:
        0.01 for 1 %; NaN where no pixel is consistent and inside the frame.
    """
    height, width = after.shape
    y, x = np.mgrid[0:height, 0:width]
    column = np.floor(x + 0.5 + flow_px[..., 0]).astype(np.int64)
    row = np.floor(y + 0.5 + flow_px[..., 1]).astype(np.int64)
    use = consistent & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    if not use.any():
        return float("nan")
    change = np.log(after[use].astype(np.float64) / before[row[use], column[use]])
    return float(np.median(np.abs(change)))
