"""Where other programs put the origin of the pixel grid, and how their K becomes ours.

Ours: the origin is the top-left *corner* of the image, centres of pixels at +0.5. A K that was
calibrated with centres at whole numbers (OpenCV's habit) therefore gets half a pixel.
"""

from typing import Literal, get_args

import numpy as np

from ex4d.core.arrays import Float64

PixelConvention = Literal[
    "ex4d", "colmap", "nerfstudio", "blender", "official", "7scenes", "tum", "record3d", "opencv-calibrated"
]

_PRINCIPAL_SHIFT_PX: dict[PixelConvention, float] = {
    # Corner origin, as ours.
    "ex4d": 0.0,
    "colmap": 0.0,
    "nerfstudio": 0.0,
    "blender": 0.0,
    # c = W/2 is meant as the middle of the image, which it is from the corner: kept.
    "official": 0.0,
    "7scenes": 0.0,
    # Calibrated with the centre of the top-left pixel at (0, 0).
    "tum": 0.5,
    "record3d": 0.5,
    "opencv-calibrated": 0.5,
}

ASPECT_TOLERANCE = 0.01
"""Relative: sides rounded to even or to multiples of 8 pass, another shape does not."""


def to_corner_origin(K: Float64, convention: PixelConvention) -> Float64:
    """K [...,3,3] of another program as ours: the principal point measured from the top-left corner.

    Args:
        K: float64 [...,3,3], pixels, in the convention of its source.
        convention: whose K it is.

    Raises:
        ValueError: the convention is unknown.
    """
    if convention not in _PRINCIPAL_SHIFT_PX:
        raise ValueError(f"to_corner_origin: expected one of {get_args(PixelConvention)}, got {convention!r}")
    out = np.array(K, dtype=np.float64)
    out[..., :2, 2] += _PRINCIPAL_SHIFT_PX[convention]
    return out


def same_aspect(size: tuple[int, int], other: tuple[int, int], *, step_px: int = 0) -> bool:
    """True when two (height, width) have the same shape within 1 %.

    Args:
        size: of a picture, maybe after a program resized it and rounded each side by less than `step_px`.
        other: of the picture it is compared with.
        step_px: 0 where nothing was rounded.
    """
    ratio = (size[1] * other[0]) / (size[0] * other[1])
    scale = max(size) / max(other)
    rounded = all(abs(have - side * scale) < step_px for have, side in zip(size, other, strict=True))
    return rounded or abs(ratio - 1.0) <= ASPECT_TOLERANCE


def scale_intrinsics(K: Float64, *, from_size: tuple[int, int], to_size: tuple[int, int]) -> Float64:
    """K [...,3,3] after the image is resized from one (height, width) to another (exact, corner origin)."""
    out = np.array(K, dtype=np.float64)
    out[..., 0, :] *= to_size[1] / from_size[1]
    out[..., 1, :] *= to_size[0] / from_size[0]
    return out


def focal_from_fov_x(fov_x_deg: float, cx_px: float, width: int) -> float:
    """fx in pixels of a horizontal field of view in (0, 180) degrees, for a principal point inside the frame.

    The positive root of ``sin(a) f² - W cos(a) f - sin(a) cx (W - cx) = 0``, which is
    ``tan(a) = tan(atan(cx/f) + atan((W - cx)/f))``; W/2 / tan(a/2) when cx = W/2.
    """
    sine, cosine = np.sin(np.radians(fov_x_deg)), np.cos(np.radians(fov_x_deg))
    root = np.sqrt((width * cosine) ** 2 + 4 * sine**2 * cx_px * (width - cx_px))
    return float((width * cosine + root) / (2 * sine))
