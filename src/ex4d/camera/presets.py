"""The table of camera presets: the one place that names, bounds and explains them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ex4d.camera import handheld, moves, official
from ex4d.camera.config import PathRequest
from ex4d.core.arrays import Float64

Builder = Callable[[moves.Values, PathRequest, Float64], moves.Poses]


@dataclass(frozen=True, slots=True)
class Value:
    """One number after the colon: its name in usage lines, default and closed range."""

    name: str
    default: float
    low: float
    high: float
    unit: Literal["deg", "p", "strength"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A named camera move.

    Attributes:
        name: what is typed; ``"N"`` stands for the official number of degrees.
        values: the numbers it takes (none, one, or two separated by a comma).
        summary: one line for people.
        build: makes the poses from values, request and progress.
        official: True for the release's paths (linear progress, official pivot).
        closed: True when the path returns to the source view.
    """

    name: str
    summary: str
    build: Builder
    values: tuple[Value, ...] = ()
    official: bool = False
    closed: bool = False

    @property
    def usage(self) -> str:
        """``name[:VALUE,...]`` as it is typed."""
        if self.name == DEGREES:
            return DEGREES
        return self.name + (f"[:{','.join(value.name for value in self.values)}]" if self.values else "")


DEGREES = "N"
"""Name of the official preset that is typed as a bare number of degrees."""


def _deg(name: str = "DEG", high: float = 180.0, low: float = 0.0) -> Value:
    return Value(name, 30.0, low, high, "deg")


def _share(high: float = 10.0, low: float = 0.0) -> Value:
    return Value("K", 0.3, low, high, "p")


def _move(name: str, build: Builder, summary: str, *values: Value, closed: bool = False) -> Preset:
    return Preset(name=name, build=build, summary=summary, values=values, closed=closed)


def _official(name: str, build: Builder, summary: str, *values: Value, closed: bool = False) -> Preset:
    return Preset(name=name, build=build, summary=summary, values=values, closed=closed, official=True)


# Elevations stop short of 90 degrees, where a look-at has no up; K of moves towards the pivot stops short of it.
_STEEPEST_DEG = 85.0
_CLOSEST = 0.99

_TABLE = (
    _official(
        DEGREES,
        official.arc_degrees,
        "EX-4D arc to N degrees, any number from -90 to 90 (30, 60, -45, 22.5); + is right",
        Value("N", 60.0, -90.0, 90.0, "deg"),
    ),
    _official("180", official.swing_180, "EX-4D swing: right, back, left and back, with a small rise", closed=True),
    _official("zoom_in", official.zoom_in, "EX-4D zoom: forward to just before its pivot"),
    _official("zoom_out", official.zoom_out, "EX-4D zoom: back by its pivot depth"),
    _move("orbit-left", moves.orbit_left, "around the pivot to the left", _deg()),
    _move("orbit-right", moves.orbit_right, "around the pivot to the right", _deg()),
    _move("orbit-up", moves.orbit_up, "around the pivot upwards", _deg(high=_STEEPEST_DEG)),
    _move("orbit-down", moves.orbit_down, "around the pivot downwards", _deg(high=_STEEPEST_DEG)),
    _move(
        "arc",
        moves.arc,
        "around the pivot: + yaw is right, + elevation is up",
        _deg("YAW", 180.0, -180.0),
        _deg("ELEV", _STEEPEST_DEG, -_STEEPEST_DEG),
    ),
    _move("full", moves.full, "around the pivot to 90 deg right, to 90 deg left and back", closed=True),
    _move("dolly-in", moves.dolly_in, "forward", _share(_CLOSEST)),
    _move("dolly-out", moves.dolly_out, "backward", _share()),
    _move(
        "dolly-zoom",
        moves.dolly_zoom,
        "forward (K < 0: backward) while the lens widens: the pivot keeps its size",
        _share(_CLOSEST, -10.0),
    ),
    _move("truck-left", moves.truck_left, "sideways to the left", _share()),
    _move("truck-right", moves.truck_right, "sideways to the right", _share()),
    _move("pedestal-up", moves.pedestal_up, "straight up", _share()),
    _move("pedestal-down", moves.pedestal_down, "straight down", _share()),
    _move("crane-up", moves.crane_up, "straight up, looking at the pivot", _share()),
    _move("crane-down", moves.crane_down, "straight down, looking at the pivot", _share()),
    _move("pan-left", moves.pan_left, "turns to the left in place", _deg()),
    _move("pan-right", moves.pan_right, "turns to the right in place", _deg()),
    _move("tilt-up", moves.tilt_up, "turns upwards in place", _deg()),
    _move("tilt-down", moves.tilt_down, "turns downwards in place", _deg()),
    _move("roll-cw", moves.roll_cw, "the camera rolls clockwise (the image turns counter-clockwise)", _deg()),
    _move("roll-ccw", moves.roll_ccw, "the camera rolls counter-clockwise (the image turns clockwise)", _deg()),
    _move("spiral", moves.spiral, "two turns of radius up to K, looking at the pivot", _share(), closed=True),
    _move(
        "figure-eight", moves.figure_eight, "a lying eight of half-width K, looking at the pivot", _share(), closed=True
    ),
    _move("static", moves.static, "stays at the source view", closed=True),
    _move(
        "handheld",
        handheld.handheld,
        "the restlessness of a hand-held camera, seeded",
        Value("K", 0.3, 0.0, 3.0, "strength"),
    ),
)

PRESETS: dict[str, Preset] = {preset.name: preset for preset in _TABLE}
"""Every preset by name, in the order people read them."""

UNIT_TEXT = {"deg": "degrees", "p": "x pivot depth", "strength": "strength"}


def value_text(value: Value) -> str:
    """E.g. ``DEG 0 to 180 degrees, default 30``."""
    return f"{value.name} {value.low:g} to {value.high:g} {UNIT_TEXT[value.unit]}, default {value.default:g}"


def presets_help() -> str:
    """The table as plain text, one preset a line: for ``--help`` and the documentation."""
    rows: list[tuple[str, str, str]] = []
    for preset in _TABLE:
        # The bare number has no default: leaving it out leaves nothing.
        values = "" if preset.name == DEGREES else "; ".join(value_text(value) for value in preset.values)
        rows.append((preset.usage, preset.summary, values))
    width = max(len(usage) for usage, _, _ in rows)
    return "\n".join(
        f"{usage:<{width}}  {summary}{f' ({values})' if values else ''}" for usage, summary, values in rows
    )
