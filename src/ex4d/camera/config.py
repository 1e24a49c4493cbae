"""What a camera preset needs to know of the clip, and how progress along a path is eased."""

from dataclasses import dataclass

import numpy as np

from ex4d.core.arrays import Float64, Int64, check_array
from ex4d.errors import CameraPathError

OFFICIAL_PIVOT_MARGIN = 0.15
"""Scene units the official pivot lies behind the nearest point of frame 0 (EX-4D recon, method.md)."""

MAX_FRAMES = 100_000
"""An hour at 24 fps is 86 400; more is a typing error or an attack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PathRequest:
    """The source view and clip that a path is built for.

    Attributes:
        K: float64 [3,3], pixels, corner origin: intrinsics of the source view.
        height: px of the working frame.
        width: px of the working frame.
        source_index: int64 [N], the source frame that output frame i shows; its length is the number
            of frames (a frozen moment repeats one index).
        pivot_depth: p > 0, scene units: the depth that orbits turn about and moves are measured by.
        nearest_depth: > 0, scene units: smallest valid depth of frame 0. The official presets turn
            about ``nearest_depth + 0.15``.
        pivot_given: True when a person chose the pivot; official presets then turn about `pivot_depth`.
        seed: of `handheld`; nothing else here is random.
        official_overshoot: official presets of N != 49 frames reproduce the release's fault: angles
            scaled by ``max(49/N, N/49)``.

    Raises:
        CameraPathError: a field is out of range (the message names it).
    """

    K: Float64
    height: int
    width: int
    source_index: Int64
    pivot_depth: float
    nearest_depth: float
    pivot_given: bool = False
    seed: int = 0
    official_overshoot: bool = False

    def __post_init__(self) -> None:
        check_array("PathRequest.K", self.K, np.float64, (3, 3))
        check_array("PathRequest.source_index", self.source_index, np.int64, (None,))
        if not 1 <= len(self.source_index) <= MAX_FRAMES:
            raise CameraPathError(
                f"PathRequest.source_index: 1 to {MAX_FRAMES} frames",
                f"{len(self.source_index)}",
                "change --num-frames",
            )
        for name, value in (("pivot_depth", self.pivot_depth), ("nearest_depth", self.nearest_depth)):
            if not (np.isfinite(value) and value > 0):
                raise CameraPathError(f"PathRequest.{name}: a depth > 0 in scene units", f"{value}", "check the depth")

    @property
    def num_frames(self) -> int:
        """N, the number of frames of the path."""
        return len(self.source_index)

    @property
    def official_pivot_depth(self) -> float:
        """r of the official presets, scene units."""
        return self.pivot_depth if self.pivot_given else self.nearest_depth + OFFICIAL_PIVOT_MARGIN


def linear_progress(num_frames: int) -> Float64:
    """float64 [N]: i/(N-1), from 0 to 1. One frame alone is 0: a path starts at the source view."""
    return np.linspace(0.0, 1.0, num_frames) if num_frames > 1 else np.zeros(1)


def smoothstep(progress: Float64) -> Float64:
    """3t² - 2t³ of values clipped to [0,1]: leaves and arrives at rest, exact at 0 and 1."""
    t = np.clip(progress, 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)
