"""Which K the source camera gets, and the sentence that says so."""

import math
from typing import Literal

from ex4d.core.arrays import Float64
from ex4d.core.camera import pinhole
from ex4d.errors import ConfigError
from ex4d.io.intrinsics import focal_from_fov_x

OFFICIAL_FOCAL_PX = 500.0
"""The official release's focal length at any resolution."""

DEFAULT_FOCAL_SHARE = 0.9
"""Focal length over the longer side when nothing is known: about 58° across, a common video camera."""


def choose_intrinsics(
    *,
    height: int,
    width: int,
    file_K: Float64 | None = None,
    fov_deg: float | None = None,
    focal_px: float | None = None,
    geometry: Literal["default", "official"] = "default",
) -> tuple[Float64, str]:
    """K of the source, and the sentence that says where it is from.

    Order: the depth's own K > ``fov_deg``/``focal_px`` > f = 0.9·max(W, H) (official geometry: f = 500 px),
    principal point (W/2, H/2), corner origin.

    Args:
        height: px of the working clip.
        width: px of the working clip.
        file_K: float64 [3,3] in pixels of the working clip, or None.
        fov_deg: horizontal field of view in (0, 180).
        focal_px: focal length in px at the working size, > 0; not together with `fov_deg`.
        geometry: ``"default"`` or ``"official"``.

    Returns:
        float64 [3,3] and a sentence.

    Raises:
        ConfigError: `fov_deg` or `focal_px` out of range, or both given.
    """
    if fov_deg is not None and not 0 < fov_deg < 180:
        raise ConfigError("--fov-deg between 0 and 180", f"{fov_deg}")
    if focal_px is not None and not 0 < focal_px < math.inf:
        raise ConfigError("--focal-px > 0", f"{focal_px}")
    if fov_deg is not None and focal_px is not None:
        raise ConfigError("one of --fov-deg and --focal-px", "both")
    if file_K is not None:
        unused = "; --fov-deg/--focal-px is not used" if (fov_deg, focal_px) != (None, None) else ""
        return file_K, f"K from the depth source: f = {file_K[0, 0]:.1f} px{unused}"
    if fov_deg is not None:
        focal, why = focal_from_fov_x(fov_deg, width / 2, width), f"from --fov-deg {fov_deg:g}"
    elif focal_px is not None:
        focal, why = focal_px, "from --focal-px"
    elif geometry == "official":
        focal, why = OFFICIAL_FOCAL_PX, "the official release's constant"
    else:
        focal, why = DEFAULT_FOCAL_SHARE * max(height, width), "assumed, 0.9 of the longer side"
    return pinhole(focal_px=focal, height=height, width=width), f"K: f = {focal:.1f} px ({why}), c = (W/2, H/2)"
