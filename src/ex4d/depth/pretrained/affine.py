"""Scale and shift between two maps of the same things; imports no torch."""

import math

import numpy as np

from ex4d.core.arrays import Float32, Float64

_MIN_CORRELATION = 0.1
"""Below it a slope by least squares says nothing of the scale."""
_MIN_SYMMETRIC_CORRELATION = 0.5
"""The same for the ratio of two spreads, which is never small."""
_FLAT = 1e-5
"""Spread over size below which a map is constant but for rounding."""
_TRIM = 2.5 * 1.4826
"""Median |residual| times this: 2.5 standard deviations of Gaussian errors."""
_NUM_TRIMS = 4
_MAX_SCALE = 4.0
"""Two neighbouring frames of one network never differ more."""


def fit_affine(values: Float32, target: Float32) -> tuple[float, float] | None:
    """Least squares of ``scale · values + shift ≈ target``, in double precision.

    Args:
        values: float32, any shape, finite.
        target: float32, the same shape.

    Returns:
        Scale > 0 and shift; None where `values` or `target` is constant, or they do not rise together.
    """
    x, y = values.astype(np.float64).ravel(), target.astype(np.float64).ravel()
    if _is_flat(x) or _is_flat(y) or _correlation(x, y) < _MIN_CORRELATION:
        return None
    mean_x = x.mean()
    scale = np.mean((x - mean_x) * y) / x.var()
    return float(scale), float(y.mean() - scale * mean_x)


def fit_affine_between(before: Float32, after: Float32) -> tuple[float, float] | None:
    """Scale and shift that turn one frame's disparity into the next one's, for the same visible things.

    Both are noisy, so the scale is the ratio of their spreads: it is the same seen from either side, where least
    squares would find too small a scale each time and a chain of them would shrink. Robust: quartiles first, then
    pixels farther than 2.5 σ are left out, four times.

    Args:
        before: float32 [n].
        after: float32 [n], of the same things.

    Returns:
        Scale in (1/4, 4) and shift; (1, shift) where both are constant; None where they do not correspond.
    """
    x, y = before.astype(np.float64), after.astype(np.float64)
    if _is_flat(x) and _is_flat(y):
        return 1.0, float(np.median(y) - np.median(x))
    low_x, middle_x, high_x = np.percentile(x, (25, 50, 75))
    low_y, middle_y, high_y = np.percentile(y, (25, 50, 75))
    scale = (high_y - low_y) / (high_x - low_x) if high_x > low_x else y.std() / max(x.std(), 1e-12)
    shift = middle_y - scale * middle_x
    for _ in range(_NUM_TRIMS):
        residual = np.abs(y - scale * x - shift)
        keep = residual <= _TRIM * np.median(residual) + _FLAT * abs(middle_y)
        kept_x, kept_y = x[keep], y[keep]
        if _is_flat(kept_x) or _is_flat(kept_y) or _correlation(kept_x, kept_y) < _MIN_SYMMETRIC_CORRELATION:
            return None
        scale = kept_y.std() / kept_x.std()
        shift = kept_y.mean() - scale * kept_x.mean()
    return (float(scale), float(shift)) if _is_sane(float(scale)) else None


def fit_scale_between(before: Float32, after: Float32) -> tuple[float, float] | None:
    """The same for depth in metres: (scale in (1/4, 4), 0), the median ratio; None where none can be had."""
    known = (before > 0) & (after > 0)
    if not known.any():
        return None
    scale = math.exp(float(np.median(np.log(after[known].astype(np.float64) / before[known]))))
    return (scale, 0.0) if _is_sane(scale) else None


def _is_sane(scale: float) -> bool:
    return 1 / _MAX_SCALE < scale < _MAX_SCALE


def _is_flat(values: Float64) -> bool:
    return bool(values.std() <= _FLAT * abs(values.mean()))


def _correlation(x: Float64, y: Float64) -> float:
    return float(np.mean((x - x.mean()) * (y - y.mean())) / (x.std() * y.std()))
