"""What a mesh is built with: `GeometryConfig` and its two named settings."""

from dataclasses import dataclass
from typing import Literal

from ex4d.errors import ConfigError

GeometryName = Literal["default", "official"]

OFFICIAL_RING_DEPTH = 100.0
"""Depth of the border ring in the official release, scene units."""
OFFICIAL_TEAR_ANGLE_DEG = 2.5
"""A face with a smaller angle than this is torn in the official release."""
RING_FACTOR = 2.0
"""Default geometry: the ring lies at this multiple of the frame's farthest valid depth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GeometryConfig:
    """How depth becomes a mesh.

    Attributes:
        name: ``default`` or ``official`` (as the EX-4D release does it, faults included).
        tear_angle_deg: a face whose smallest angle is below this is torn (default geometry: only if it
            also spans a disparity jump). Degrees, 0–60. None: 2.5 in official geometry, 15 in default,
            where it only keeps steep but smooth surfaces of small frames whole.
        tear_disparity_jump: default geometry only: relative disparity step between a face's nearest and
            farthest vertex, (d_near − d_far) / d_near, that makes an occlusion edge. 0–1. A step has the
            same size at every resolution and focal length, which the angle has not.
    """

    name: GeometryName = "default"
    tear_angle_deg: float | None = None
    tear_disparity_jump: float = 0.05

    @property
    def angle_limit_deg(self) -> float:
        """`tear_angle_deg`, resolved."""
        if self.tear_angle_deg is not None:
            return self.tear_angle_deg
        return OFFICIAL_TEAR_ANGLE_DEG if self.name == "official" else 15.0

    def __post_init__(self) -> None:
        if self.name not in ("default", "official"):
            raise ConfigError("geometry.name 'default' or 'official'", repr(self.name))
        if not 0 <= self.angle_limit_deg <= 60:
            raise ConfigError("geometry.tear_angle_deg within 0–60 degrees", repr(self.tear_angle_deg))
        if not 0 <= self.tear_disparity_jump < 1:
            raise ConfigError("geometry.tear_disparity_jump within 0–1", repr(self.tear_disparity_jump))
