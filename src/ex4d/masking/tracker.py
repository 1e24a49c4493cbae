"""What follows points through a clip: the Protocol, its result, and which tracker a name means."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ex4d.core.arrays import Bool, Float32, UInt8, check_array
from ex4d.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class PointTracks:
    """N points in T frames.

    Attributes:
        points: float32 [T,N,2], px (x right, y down) of the tracked pictures, corner origin. Where a point is not
            visible its place means nothing.
        visible: bool [T,N], True where the point was found again.
    """

    points: Float32
    visible: Bool

    def __post_init__(self) -> None:
        check_array("PointTracks.points", self.points, np.float32, (None, None, 2))
        check_array("PointTracks.visible", self.visible, np.bool_, self.points.shape[:2])


class Tracker(Protocol):
    """Follows points from the first of some pictures through the others."""

    @property
    def name(self) -> str:
        """The word that `MaskConfig.tracker` takes."""
        ...

    @property
    def licence(self) -> str:
        """Of code and weights, with what it forbids: said as a notice."""
        ...

    def track(self, frames: UInt8, queries: Float32) -> PointTracks:
        """Follow points.

        Args:
            frames: uint8 [T,h,w,3], sRGB, T >= 1, in any order of time.
            queries: float32 [N,2], px of frame 0, corner origin.

        Returns:
            T × N places; those in frame 0 are the queries.
        """
        ...


_CLASSES: Mapping[str, tuple[str, str]] = {
    "dis": ("ex4d.masking.dis", "DisTracker"),
    "raft": ("ex4d.masking.raft", "RaftTracker"),
    "tapnext": ("ex4d.masking.tapnext", "TapNextTracker"),
    "bootstapir": ("ex4d.masking.bootstapir", "BootsTapirTracker"),
    "cotracker": ("ex4d.masking.cotracker", "CoTrackerTracker"),
}


def make_tracker(name: str) -> Tracker:
    """The tracker of a name; its packages are imported now, and only its own.

    Raises:
        ConfigError: no such tracker.
        MissingDependencyError: its package is not installed.
        WeightsError: its weights are not there, or do not fit.
    """
    if name not in _CLASSES:
        raise ConfigError(f"masks.tracker of {', '.join(_CLASSES)}", repr(name), "choose one of them")
    module, kind = _CLASSES[name]
    return getattr(importlib.import_module(module), kind)()
