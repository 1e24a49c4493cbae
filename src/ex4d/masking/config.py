"""What simulated masks are drawn from: `MaskConfig`. Imports nothing heavy: datasets and recipes store it."""

import math
from dataclasses import dataclass, field
from typing import Literal

from ex4d.errors import ConfigError
from ex4d.mesh.config import GeometryConfig

Style = Literal["orbit", "arc", "dolly", "truck", "crane", "spiral"]
TrackerName = Literal["dis", "raft", "tapnext", "bootstapir", "cotracker"]
STYLES: tuple[Style, ...] = ("orbit", "arc", "dolly", "truck", "crane", "spiral")
TRACKERS: tuple[TrackerName, ...] = ("dis", "raft", "tapnext", "bootstapir", "cotracker")

_MAX_MORPHOLOGY_PX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskConfig:
    """How masks are simulated. Pairs are closed ranges (low, high) that numbers are drawn from evenly.

    Attributes:
        rendering_share: share of rendering masks among all, 0–1; the others are tracking masks.
        yaw_deg: of orbits and arcs about the pivot, degrees within −90…90; + is a camera that moved right.
        elevation_deg: of arcs, degrees within −60…60; + is a camera that moved up.
        dolly: forward (+) or backward (−) travel of dollies as a share of the pivot depth, −2…0.9.
        shift: size of trucks, cranes and spirals as a share of the pivot depth, 0–2; the side is drawn.
        orbit_weight: how often a path is an orbit, against the other weights; ≥ 0.
        arc_weight: how often it has yaw and elevation.
        dolly_weight: how often it goes forward or backward.
        truck_weight: how often it goes sideways without turning.
        crane_weight: how often it rises or sinks, looking at the pivot.
        spiral_weight: how often it turns about the source view and returns to it.
        pivots: options of `camera.pivot.resolve_pivot`, one is drawn; ``auto`` is what `ex4d run` takes.
        pivot_spread: the pivot depth is multiplied by e^x, x even within ±pivot_spread, 0–1: pivots that people choose,
            and estimated depth, are not exact.
        geometry: what meshes are built with: which faces are torn, and what grazing ones show; as at inference. A
            pixel survives where the depth found for it agrees to `geometry.tear_disparity_jump` with its own.
        erode_px: masks lose a rim of this many pixels (half the side of a square), 0–64, drawn once a clip. The model's
            own erosion (`model.preprocess`) comes on top.
        dilate_px: masks first gain such a rim.
        noise_px: outlines are displaced by smooth noise of this size, px, 0–64, the same for all frames of a clip.
        tracker: what follows points: ``dis`` (no weights), or the name of an optional one.
        keyframe: where labels of tracking masks are set: a ``random`` frame or the ``first``.
        restart_frames: points are followed for this many frames, then new ones take over, 1–1000.
        grid_step_px: distance of the points that are followed, px of pictures of `track_side_px`, 2–64.
        track_side_px: longer side of the pictures that points are followed in, px, 64–2048.
    """

    rendering_share: float = 0.5
    yaw_deg: tuple[float, float] = (-90.0, 90.0)
    elevation_deg: tuple[float, float] = (-20.0, 20.0)
    dolly: tuple[float, float] = (-0.5, 0.5)
    shift: tuple[float, float] = (0.1, 0.6)
    orbit_weight: float = 0.4
    arc_weight: float = 0.35
    dolly_weight: float = 0.1
    truck_weight: float = 0.05
    crane_weight: float = 0.05
    spiral_weight: float = 0.05
    pivots: tuple[str, ...] = ("auto",)
    pivot_spread: float = 0.1
    geometry: GeometryConfig = field(default_factory=GeometryConfig)
    erode_px: tuple[int, int] = (0, 0)
    dilate_px: tuple[int, int] = (0, 0)
    noise_px: float = 0.0
    tracker: TrackerName = "dis"
    keyframe: Literal["random", "first"] = "random"
    restart_frames: int = 12
    grid_step_px: int = 8
    track_side_px: int = 384

    @property
    def weights(self) -> dict[Style, float]:
        """Weight of each style, in the order of `STYLES`."""
        return {style: getattr(self, f"{style}_weight") for style in STYLES}

    def __post_init__(self) -> None:
        _check_number("rendering_share", self.rendering_share, 0, 1)
        _check_range("yaw_deg", self.yaw_deg, -90, 90, "degrees")
        _check_range("elevation_deg", self.elevation_deg, -60, 60, "degrees")
        _check_range("dolly", self.dolly, -2, 0.9, "pivot depths")
        _check_range("shift", self.shift, 0, 2, "pivot depths")
        for style, weight in self.weights.items():
            _check_number(f"{style}_weight", weight, 0, math.inf)
        if not 0 < sum(self.weights.values()) < math.inf:
            raise ConfigError("masks.*_weight with at least one above 0", "none", "give a style a weight")
        if not self.pivots:
            raise ConfigError("masks.pivots with at least one option", "none", 'e.g. ("auto",)')
        _check_number("pivot_spread", self.pivot_spread, 0, 1)
        for name in ("erode_px", "dilate_px"):
            _check_range(name, getattr(self, name), 0, _MAX_MORPHOLOGY_PX, "whole px", kind=int)
        _check_number("noise_px", self.noise_px, 0, _MAX_MORPHOLOGY_PX)
        if self.tracker not in TRACKERS:
            raise ConfigError(f"masks.tracker of {', '.join(TRACKERS)}", repr(self.tracker), "choose one of them")
        if self.keyframe not in ("random", "first"):
            raise ConfigError("masks.keyframe random or first", repr(self.keyframe), "choose one of them")
        _check_number("restart_frames", self.restart_frames, 1, 1000)
        _check_number("grid_step_px", self.grid_step_px, 2, 64)
        _check_number("track_side_px", self.track_side_px, 64, 2048)


def _check_number(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        bounds = f"of at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
        raise ConfigError(f"masks.{name} {bounds}", repr(value), "change it")


def _check_range(
    name: str, pair: tuple[float, float], low: float, high: float, unit: str, *, kind: type[float] = float
) -> None:
    whole = kind is not int or all(isinstance(value, int) for value in pair)
    if len(pair) != 2 or not whole or not low <= pair[0] <= pair[1] <= high:
        raise ConfigError(f"masks.{name} (low, high) within {low:g} to {high:g} {unit}", repr(pair), "low comes first")
