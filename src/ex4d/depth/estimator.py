"""What a depth estimator is: a Protocol, and the registry of those that are built in."""

from dataclasses import dataclass
from typing import Protocol

from ex4d.core.clip import Clip
from ex4d.core.video import Video
from ex4d.io.depth.raw import RawDepthSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Whether an estimator can run now, without any download.

    Attributes:
        ready: True when its packages and weights are there.
        reason: what is missing.
        fix: the command that gets it.
    """

    ready: bool
    reason: str = ""
    fix: str = ""


class DepthEstimator(Protocol):
    """Turns a clip into raw depth or disparity."""

    @property
    def name(self) -> str:
        """The word that ``--depth`` takes."""
        ...

    @property
    def version(self) -> str:
        """Changes whenever its output may: part of the cache key (weights and settings included)."""
        ...

    @property
    def licence(self) -> str:
        """SPDX identifier of code and weights."""
        ...

    @property
    def is_preview(self) -> bool:
        """True for stand-ins that do not look at objects: ``auto`` takes them last."""
        ...

    @property
    def is_instant(self) -> bool:
        """True where computing again is cheaper than reading a cache."""
        ...

    def ready(self) -> Readiness: ...

    def estimate(self, source: Clip[Video]) -> RawDepthSource:
        """Depth of every frame of `source`, at any size of its aspect ratio, streaming."""
        ...
