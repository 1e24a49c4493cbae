"""Where jobs run: one Protocol, and the part of a plan that one machine of many does."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ex4d.errors import ConfigError


class Worker(Protocol):
    """Does one job after the other, in one thread of one process."""

    def run(self, job: Any) -> Any:
        """The result of a job; an error ends all jobs."""
        ...

    def close(self) -> None:
        """Free what it holds; safe to call twice."""
        ...


class WorkerFactory(Protocol):
    """Picklable: workers may be opened on another machine."""

    def open(self) -> Worker:
        """A new worker; opened and closed by the thread that uses it."""
        ...


class Executor(Protocol):
    """Does jobs on some number of workers."""

    def run(self, factory: WorkerFactory, jobs: Sequence[Any]) -> Iterator[Any]:
        """Yield results as they are ready, in any order.

        The first error of a worker is raised when the others have finished what they were doing. When the caller
        leaves the loop, or is interrupted, no further job is begun, and what runs ends with this process.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Which jobs of a plan are this machine's: of every `count` consecutive ones the one at `index`.

    Attributes:
        index: 0 <= index < count.
        count: machines that share the plan.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ConfigError(
                f"--shard I/N with 0 <= I < N (parts count from 0: 0/{self.count} to {self.count - 1}/{self.count})",
                f"{self.index}/{self.count}",
            )

    @staticmethod
    def parse(text: str) -> "Part":
        """``"0/2"``; the first of two machines.

        Raises:
            ConfigError: anything else.
        """
        index, slash, count = text.partition("/")
        if not slash or not (index.isdecimal() and count.isdecimal() and int(count)):
            raise ConfigError("--shard I/N, e.g. 0/2 and 1/2", repr(text))
        return Part(index=int(index), count=int(count))

    def of(self, jobs: Sequence[int]) -> list[int]:
        """Those of these numbers that are this machine's."""
        return [job for job in jobs if job % self.count == self.index]
