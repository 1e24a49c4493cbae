"""How unobserved pixels are completed: `FillConfig`."""

from dataclasses import dataclass

from ex4d.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class FillConfig:
    """Settings of the fill: a preview of what a generator would invent, made without a model.

    Attributes:
        temporal: look for unobserved pixels in other frames of the clip first.
        num_neighbors: how many other source frames are seen from each target camera. 1–16.
        color_tolerance: how much such a frame may differ around the hole once its mean difference is
            removed (RMS, levels of 255, averaged over the channels). 0–255.
        depth_tolerance: relative disparity difference up to which two surfaces count as the same. 0–0.5.
        stability: share of the previous frame's fill, carried along by camera motion, in this frame's
            fill. 0 (every frame alone) to 0.98.
        min_hole_share: frames whose share of unobserved pixels is below this skip the search in other
            frames. 0–1.
    """

    temporal: bool = True
    num_neighbors: int = 8
    color_tolerance: float = 18.0
    depth_tolerance: float = 0.05
    stability: float = 0.85
    min_hole_share: float = 5e-4

    def __post_init__(self) -> None:
        limits = {
            "num_neighbors": (1, 16),
            "color_tolerance": (0, 255),
            "depth_tolerance": (0, 0.5),
            "stability": (0, 0.98),
            "min_hole_share": (0, 1),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"fill.{name} within {low:g}–{high:g}", repr(value), f"change fill.{name}")
