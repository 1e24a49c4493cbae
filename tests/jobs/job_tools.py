"""Handlers and workers for tests: children and Ray import them by name."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ex4d.errors import MediaError


def make_handler(settings: Any) -> Any:
    """A child's handler; a request is (verb, value)."""
    count = 0

    def handle(request: tuple[str, Any]) -> Any:
        nonlocal count
        verb, value = request
        count += 1
        if verb == "echo":
            print("noise on stdout")  # noqa: T201
            return settings, value, count, os.getpid(), os.environ["OMP_NUM_THREADS"]
        if verb == "sleep":
            time.sleep(value)
        if verb == "fail":
            raise MediaError("a video", value)
        if verb == "bug":
            raise KeyError(value)
        if verb == "exit":
            os.write(2, b"first words\nlast words\n")
            os._exit(value)
        if verb == "kill":
            os.kill(os.getpid(), value)
        if verb == "allocate":
            return np.ones(value, np.uint8).sum()
        return None

    return handle


@dataclass(frozen=True)
class Squares:
    """A factory of workers that square numbers.

    Attributes:
        wrong: a job that is refused.
        deadly: a file; whoever finds that it is not there yet makes it and is killed.
    """

    wrong: int = -1
    deadly: Path | None = None

    def open(self) -> "SquareWorker":
        return SquareWorker(self)


class SquareWorker:
    def __init__(self, factory: Squares) -> None:
        self._factory, self._closed = factory, False

    def run(self, job: int) -> int:
        assert not self._closed
        if self._factory.deadly is not None and not self._factory.deadly.exists():
            self._factory.deadly.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if job == self._factory.wrong:
            raise MediaError("a number that can be squared", str(job))
        time.sleep(0.01)
        return job * job

    def close(self) -> None:
        self._closed = True
