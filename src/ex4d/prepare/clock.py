"""Where the time of a worker goes, stage by stage. Never decides a byte."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

Seconds = dict[str, dict[str, float]]
"""Stage → ``wall`` and ``cpu`` seconds."""


class StageClock:
    """Adds up wall-clock and processor seconds (this process and the children that it has waited for) by stage."""

    def __init__(self) -> None:
        self.seconds: Seconds = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """The block's time counts for `stage`."""
        wall, cpu = time.monotonic(), _cpu_s()
        try:
            yield
        finally:
            add_seconds(self.seconds, {stage: {"wall": time.monotonic() - wall, "cpu": _cpu_s() - cpu}})


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def add_seconds(total: Seconds, more: Mapping[str, Mapping[str, float]]) -> None:
    """Add `more` to `total`."""
    for stage, values in more.items():
        entry = total.setdefault(stage, {"wall": 0.0, "cpu": 0.0})
        for name in entry:
            entry[name] += values[name]
