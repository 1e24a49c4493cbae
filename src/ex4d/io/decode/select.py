"""Which frames of a stream are wanted: by index, by time, resampled to a constant rate. Standard library only."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

Payload = TypeVar("Payload")

# Timestamps are rationals read as floats: a frame at exactly --start must not fall before it.
TIME_TOLERANCE_S = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The part of a `VideoSelection` that the worker applies; times in seconds from the first frame of the file.

    Attributes:
        start_s: first time shown.
        end_s: end, exclusive; None = to the end.
        first: index of the first frame.
        stop: index after the last frame; None = to the end.
        fps: resample to this rate; None = every frame, true timestamps.
    """

    start_s: float = 0.0
    end_s: float | None = None
    first: int = 0
    stop: int | None = None
    fps: float | None = None

    @property
    def reads_to_end(self) -> bool:
        """Whether the end of the file lies inside the selection."""
        return self.end_s is None and self.stop is None


def select(
    frames: Iterable[tuple[float, Payload]], selection: Selection, *, nominal_interval_s: float
) -> Iterator[tuple[float, Payload]]:
    """Yield (seconds since the first selected frame, payload) of the selected frames; stops reading when done.

    Args:
        frames: (seconds since the first frame of the file, payload), times increasing, starting at index 0 —
            or, where only times are selected, at any earlier point of the file.
        selection: what is wanted.
        nominal_interval_s: how long the last frame lasts.
    """
    chosen = _within(frames, selection)
    if selection.fps is None:
        origin: float | None = None
        for time_s, payload in chosen:
            origin = time_s if origin is None else origin
            yield time_s - origin, payload
    else:
        yield from _resample(chosen, selection.fps, nominal_interval_s)


def _within(frames: Iterable[tuple[float, Payload]], selection: Selection) -> Iterator[tuple[float, Payload]]:
    end_s, stop = selection.end_s, selection.stop
    if stop is not None and stop <= selection.first:
        return
    for index, (time_s, payload) in enumerate(frames):
        if end_s is not None and time_s >= end_s - TIME_TOLERANCE_S:
            return
        if index >= selection.first and time_s >= selection.start_s - TIME_TOLERANCE_S:
            yield time_s, payload
        if stop is not None and index + 1 >= stop:
            return


def _resample(
    frames: Iterable[tuple[float, Payload]], fps: float, nominal_interval_s: float
) -> Iterator[tuple[float, Payload]]:
    """The frame nearest in time to each k / fps (the earlier one of a tie), until the last frame is over."""
    previous: tuple[float, Payload] | None = None
    origin, count = 0.0, 0
    for time_s, payload in frames:
        if previous is None:
            origin = time_s
        else:
            middle = (previous[0] + time_s) / 2 - origin
            while count / fps <= middle + TIME_TOLERANCE_S:
                yield count / fps, previous[1]
                count += 1
        previous = time_s, payload
    if previous is None:
        return
    end = previous[0] - origin + nominal_interval_s
    while count == 0 or count / fps < end - TIME_TOLERANCE_S:
        yield count / fps, previous[1]
        count += 1
