"""How a run tells where it is: a bar on a terminal, plain lines elsewhere, nothing in a library call."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_LINE_EVERY_S = 10.0
"""Without a terminal a long stage says where it is this often."""


class Reporter(Protocol):
    """What a run calls; every method may be a no-op."""

    def note(self, text: str) -> None:
        """Something was chosen, substituted or skipped."""
        ...

    def begin(self, stage: str, total: int | None, unit: str = "frames") -> None:
        """A stage of this many frames (or other units) starts."""
        ...

    def advance(self, count: int = 1) -> None:
        """This many more are done."""
        ...

    def end(self) -> None:
        """The stage is over."""
        ...


class SilentReporter:
    """Says nothing: for library use."""

    def note(self, text: str) -> None:
        """Ignored."""

    def begin(self, stage: str, total: int | None, unit: str = "frames") -> None:
        """Ignored."""

    def advance(self, count: int = 1) -> None:
        """Ignored."""

    def end(self) -> None:
        """Ignored."""


class ConsoleReporter:
    """Rich bars with ETA and fps on a terminal; otherwise a line a stage, and one every 10 s in long ones."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._stage, self._started, self._done, self._unit = "", 0.0, 0, "frames"
        self._total: int | None = None
        self._last_line = 0.0
        self._told: set[str] = set()

    def note(self, text: str) -> None:
        """Print a notice, once."""
        if text not in self._told:
            self._told.add(text)
            self._print(f"· {text}")

    def begin(self, stage: str, total: int | None, unit: str = "frames") -> None:
        """Start a bar, or remember the stage for its line."""
        self._stage, self._started, self._done, self._unit = stage, time.monotonic(), 0, unit
        self._total, self._last_line = total, self._started
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description:<22}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._bar.start()
            self._bar.add_task(stage, total=total, rate="")

    def advance(self, count: int = 1) -> None:
        """Move the bar."""
        self._done += count
        now = time.monotonic()
        rate = self._done / max(now - self._started, 1e-9)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], advance=count, rate=self._rate(rate))
        elif now - self._last_line >= PLAIN_LINE_EVERY_S:
            self._last_line = now
            left = f" of {self._total}, {max(self._total - self._done, 0) / rate:.0f} s left" if self._total else ""
            self._print(f"  {self._stage:<22} … {self._done} {self._unit}{left}, {self._rate(rate)}")

    def end(self) -> None:
        """Close the bar and leave one line."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        seconds = time.monotonic() - self._started
        rate = f"  {self._rate(self._done / seconds):>10}" if self._done and seconds > 0 else ""
        frames = f"{self._done:>5} {self._unit}" if self._done else ""
        line = f"  {self._stage:<22} {seconds:6.2f} s  {frames}{rate}"
        self._print(line.rstrip())

    def _rate(self, rate: float) -> str:
        """Frames or megabytes a second; of slower units, seconds for one."""
        if self._unit in ("frames", "MB"):
            return f"{rate:.1f} {'fps' if self._unit == 'frames' else 'MB/s'}"
        return f"{1 / max(rate, 1e-9):.1f} s each"

    def _print(self, text: str) -> None:
        """As it is: brackets in names are no markup, long lines are not cut."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def timed_stage(
    reporter: Reporter, timings: dict[str, float], name: str, total: int | None, *, unit: str = "frames"
) -> Generator[None, None, None]:
    """Report a stage and add its wall-clock seconds to `timings`."""
    started = time.monotonic()
    reporter.begin(name, total, unit)
    try:
        yield
    finally:
        timings[name] = timings.get(name, 0.0) + time.monotonic() - started
        reporter.end()
