"""Which K the source camera gets, and the sentence that says so."""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

from ex4d.core.arrays import Float64
from ex4d.core.camera import pinhole
from ex4d.errors import ConfigError
from ex4d.io.exif import focal_from_35mm
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
    focal_35mm: float | None = None,
    estimated_K: Float64 | None = None,
    sweep: Callable[[], float | None] = lambda: None,
    geometry: Literal["default", "official"] = "default",
) -> tuple[Float64, str]:
    """K of the source, and the sentence that says where it is from.

    Order: ``fov_deg``/``focal_px`` > K that comes with given depth or cameras > what the camera wrote into the file >
    an estimator's > two-view geometry of the clip > f = 0.9·max(W, H). Official geometry: f = 500 px instead of the
    last four. The principal point is (W/2, H/2), corner origin, unless K was given.

    Args:
        height: px of the working clip.
        width: px of the working clip.
        file_K: float64 [3,3] in pixels of the working clip, or None.
        fov_deg: horizontal field of view in (0, 180).
        focal_px: focal length in px at the working size, > 0; not together with `fov_deg`.
        focal_35mm: 35 mm equivalent that the file names, mm.
        estimated_K: float64 [3,3] of a depth estimator, or None.
        sweep: called last: focal length over the longer side from the clip's own motion, or None.
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
    longer = max(height, width)
    if fov_deg is not None or focal_px is not None:
        flag = f"--fov-deg {fov_deg:g}" if fov_deg is not None else "--focal-px"
        focal = focal_px if fov_deg is None else focal_from_fov_x(fov_deg, width / 2, width)
        assert focal is not None
        why = f"from {flag}"
        if file_K is not None:
            K = np.array(file_K)
            K[0, 0], K[1, 1] = focal, focal * file_K[1, 1] / file_K[0, 0]
            return K, f"K: f = {focal:.1f} px ({why}; the given K had {file_K[0, 0]:.1f})"
    elif file_K is not None:
        return file_K, f"K came with the depth or the cameras: f = {file_K[0, 0]:.1f} px"
    elif geometry == "official":
        focal, why = OFFICIAL_FOCAL_PX, "the official release's constant"
    elif focal_35mm is not None:
        focal, why = focal_from_35mm(focal_35mm, height, width), f"the file says {focal_35mm:g} mm (35 mm equivalent)"
    elif estimated_K is not None:
        return estimated_K, f"K from the depth estimator: f = {estimated_K[0, 0]:.1f} px"
    elif (share := sweep()) is not None:
        focal, why = share * longer, f"from two-view geometry of the clip, {share:.2f} of the longer side"
    else:
        focal, why = DEFAULT_FOCAL_SHARE * longer, "assumed, 0.9 of the longer side"
    return pinhole(focal_px=focal, height=height, width=width), f"K: f = {focal:.1f} px ({why}), c = (W/2, H/2)"
