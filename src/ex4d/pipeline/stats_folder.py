"""A folder that a command wrote beside the chain: files, and ``stats.json``, whose presence says that all is there."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ex4d.io.strict_json import read_json_object

STATS = "stats.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsFolder:
    """What `ex4d depth` or `ex4d masks` made.

    Attributes:
        folder: where it lies.
        stats: content of ``stats.json``.
        timings_s: wall-clock seconds a stage; empty where nothing had to be done.
    """

    folder: Path
    stats: Mapping[str, Any]
    timings_s: Mapping[str, float]

    @staticmethod
    def read(folder: Path) -> "StatsFolder":
        """One that was complete already."""
        return StatsFolder(folder=folder, stats=read_json_object(folder / STATS), timings_s={})
