"""What a run tells: a line of JSON for every step, and TensorBoard's files if asked for."""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ex4d.errors import MissingDependencyError
from ex4d.io.atomic import output_error, write_bytes_atomic

LOG = "log.jsonl"
NUM_BINS = 10
"""Of σ, each 0.1 wide."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One sample in one step.

    Attributes:
        sigma: σ it was noised with.
        error: mean squared error of its velocity.
        weight: what that counted.
    """

    sigma: float
    error: float
    weight: float


def summarize(measured: Sequence[Measured]) -> dict[str, Any]:
    """``loss`` (weighted mean), ``error`` (mean) and ``error_by_sigma``: lower edge of a bin → its mean error."""
    bins: defaultdict[int, list[float]] = defaultdict(list)
    for entry in measured:
        bins[min(int(entry.sigma * NUM_BINS), NUM_BINS - 1)].append(entry.error)
    return {
        "loss": _mean([entry.error * entry.weight for entry in measured]),
        "error": _mean([entry.error for entry in measured]),
        "error_by_sigma": {f"{index / NUM_BINS:g}": _mean(found) for index, found in sorted(bins.items())},
    }


def _mean(values: Sequence[float]) -> float:
    """Equal whatever their order, and so whatever the number of processes."""
    return math.fsum(values) / len(values)


class Log:
    """Appends to ``log.jsonl``; a resumed run first drops the steps that it computes again.

    Args:
        folder: of the run.
        step: steps that are done.
        tensorboard: also write TensorBoard's files.

    Raises:
        MissingDependencyError: tensorboard is not installed.
        OutputError: it cannot be written.
    """

    def __init__(self, folder: Path, *, step: int, tensorboard: bool) -> None:
        self._path = folder / LOG
        kept = [entry for entry in read_log(folder) if entry["step"] <= step]
        write_bytes_atomic(self._path, "".join(json.dumps(entry) + "\n" for entry in kept).encode())
        self._board = _open_board(folder, step) if tensorboard else None

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """One step's values; the line is there when this returns, whatever happens to the process."""
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")
        except OSError as error:
            raise output_error(self._path, error) from error
        if self._board is not None:
            for name, value in values.items():
                parts = value if isinstance(value, Mapping) else {"": value}
                for part, number in parts.items():
                    self._board.add_scalar(f"{name}/{part}" if part else name, number, step)

    def close(self) -> None:
        """Flush TensorBoard's files."""
        if self._board is not None:
            self._board.close()


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The steps of a run so far; a line that a killed run left unfinished is not one."""
    path = folder / LOG
    if not path.is_file():
        return []
    lines = path.read_text("utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("}\n")]


def _open_board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError as error:
        raise MissingDependencyError("tensorboard", "tensorboard", "TensorBoard's files") from error
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
