"""Checkpoints of what is trained: whole or absent, written while training goes on.

::

    checkpoints/step-00000500/   torch.distributed.checkpoint's files: model.*, optimizer.*, ema.*
                  state.json     step, position of the sampler, and what it belongs to
                  COMMITTED      written last, before the folder gets this name

torch's ``.metadata`` is a pickle: resume runs of your own only. What is given away is written by `export`.
"""

import contextlib
import json
import os
import shutil
import warnings
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load as load_state
from torch.distributed.checkpoint.state_dict_saver import async_save

from ex4d.errors import OutputError, WeightsError
from ex4d.io.atomic import output_error
from ex4d.training.folder import CHECKPOINTS, COMMITTED, list_checkpoints
from ex4d.training.processes import Processes

STATE = "state.json"
_OPTIONS = StateDictOptions(ignore_frozen_params=True)
_BELONGS = (("model", "model"), ("dataset", "dataset"), ("recipe", "recipe"))

Tensors = Literal["model", "ema"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """Where a run is, and what it belongs to.

    Attributes:
        step: steps that are done.
        epoch: of the sampler.
        cursor: of the sampler.
        recipe: `TrainConfig.digest`.
        dataset: its fingerprint.
        model: `model.fingerprint`.
    """

    step: int
    epoch: int
    cursor: int
    recipe: str
    dataset: str
    model: str


@dataclass(frozen=True, slots=True)
class Trained:
    """The objects that a checkpoint is taken of.

    Attributes:
        model: as the processes hold it.
        optimizer: of its trained parameters.
        ema: their running averages; {} = none.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: Mapping[str, Tensor]

    def state(self) -> dict[str, Any]:
        """What is stored: trained tensors only, in parts where the model is in parts."""
        return {
            "model": get_model_state_dict(self.model, options=_OPTIONS),
            "optimizer": get_optimizer_state_dict(self.model, self.optimizer, options=_OPTIONS),
            **({"ema": dict(self.ema)} if self.ema else {}),
        }


class Checkpoints:
    """Those of one run.

    Args:
        folder: of the run.
        processes: all of them call the methods together.
        keep_last: how many are kept.
    """

    def __init__(self, folder: Path, processes: Processes, *, keep_last: int) -> None:
        self._folder, self._processes, self._keep = folder / CHECKPOINTS, processes, keep_last
        self._pending: tuple[Future[Any], Path, RunState] | None = None
        if processes.rank == 0:
            with _named(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)
                for path in self._folder.glob(".*.tmp"):
                    shutil.rmtree(path)  # what a killed run left

    def save(self, trained: Trained, state: RunState) -> None:
        """Begin to write; training may go on and change the tensors.

        Raises:
            OutputError: the one before could not be written.
        """
        self.finish()
        final = self._folder / f"step-{state.step:08d}"
        staged = final.with_name(f".{final.name}.tmp")
        self._processes.gather(None)  # rank 0 has made the folder
        with _named(staged):
            future = async_save(
                trained.state(),
                storage_writer=FileSystemWriter(staged, overwrite=True),
                process_group=self._processes.save,
            )
        self._pending = (cast("Future[Any]", future), final, state)

    def finish(self) -> None:
        """Wait for what is being written, and give it its name.

        Raises:
            OutputError: it could not be written; those before are kept.
        """
        if self._pending is None:
            return
        future, final, state = self._pending
        self._pending = None
        failed: Exception | None = None
        try:
            future.result()
            if self._processes.rank == 0:
                _commit(final, state)
                for old in list_checkpoints(self._folder.parent)[: -self._keep]:
                    shutil.rmtree(old)
        except (Exception, CheckpointException) as error:  # noqa: BLE001 - raised below, on all ranks
            cause = _cause(error)
            failed = (
                output_error(final, cause)
                if isinstance(cause, OSError)
                else OutputError(f"to be able to write {final}", str(cause), "free some space, or write elsewhere")
            )
        for error in self._processes.gather(failed):
            if error is not None:
                raise error

    def finish_if_done(self) -> None:
        """As `finish`, if all processes have written their part; waits for nothing."""
        if self._pending is not None and all(self._processes.gather(self._pending[0].done())):
            self.finish()


def _commit(final: Path, state: RunState) -> None:
    """State and marker into the staged folder, everything flushed, then the name."""
    staged = final.with_name(f".{final.name}.tmp")
    (staged / STATE).write_text(json.dumps(asdict(state), indent=2) + "\n", "utf-8")
    for path in staged.iterdir():
        _flush(path)
    (staged / COMMITTED).touch()
    _flush(staged / COMMITTED)
    _flush(staged)
    if final.exists():
        shutil.rmtree(final)  # of the same step, from before a resume
    staged.rename(final)
    _flush(final.parent)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_state(checkpoint: Path) -> RunState:
    """What a checkpoint says of itself.

    Raises:
        WeightsError: damaged.
    """
    try:
        return RunState(**json.loads((checkpoint / STATE).read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(f"a checkpoint at {checkpoint}", str(error), "delete it to use the one before") from error


def check_belongs(found: RunState, expected: RunState, checkpoint: Path) -> None:
    """Raise a WeightsError if a checkpoint is of another model, dataset or recipe."""
    wrong = [what for name, what in _BELONGS if getattr(found, name) != getattr(expected, name)]
    if wrong:
        raise WeightsError(
            f"a checkpoint of this model, dataset and recipe in {checkpoint}",
            f"one of another {', '.join(wrong)}",
            "repeat the command that began the run, or choose another --output-dir",
        )


def load(trained: Trained, checkpoint: Path, processes: Processes) -> None:
    """Put a checkpoint's tensors where they belong; all processes call this, as many as there are now.

    Raises:
        WeightsError: it holds other tensors, or is damaged.
    """
    state = trained.state()
    reader = FileSystemReader(checkpoint)
    try:
        load_state(state, storage_reader=reader, process_group=processes.talk)
    except (Exception, CheckpointException) as error:
        got = f"{type(_cause(error)).__name__}: {_cause(error)}"
        raise WeightsError(f"a whole checkpoint at {checkpoint}", got, "delete it to use the one before") from error
    set_model_state_dict(trained.model, state["model"], options=StateDictOptions(strict=False))
    set_optimizer_state_dict(trained.model, trained.optimizer, state["optimizer"], options=_OPTIONS)


def read_tensors_of(checkpoint: Path, which: Tensors) -> dict[str, Tensor]:
    """Trained tensors of a checkpoint by their names in `TrainedModel`, whole, on the CPU; {} if there are none.

    Args:
        checkpoint: of `list_checkpoints`; one of your own, because its index is a pickle.
        which: the weights, or their running averages.

    Raises:
        WeightsError: damaged.
    """
    reader = FileSystemReader(checkpoint)
    try:
        metadata = reader.read_metadata().state_dict_metadata
        found = {
            name.removeprefix(f"{which}."): torch.empty(entry.size, dtype=entry.properties.dtype)
            for name, entry in metadata.items()
            if name.startswith(f"{which}.") and isinstance(entry, TensorStorageMetadata)
        }
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)  # as is meant
            load_state({which: found}, storage_reader=reader, no_dist=True)
    except (Exception, CheckpointException) as error:
        got = f"{type(_cause(error)).__name__}: {_cause(error)}"
        raise WeightsError(f"a whole checkpoint at {checkpoint}", got, "choose another with --step") from error
    return found


def _cause(error: BaseException) -> BaseException:
    """What went wrong in the first rank that failed; torch wraps it, in what is no `Exception`."""
    if isinstance(error, CheckpointException):
        return next(iter(error.failures.values()))[0]
    return error


@contextlib.contextmanager
def _named(path: Path) -> Any:
    try:
        yield
    except OSError as error:
        raise output_error(path, error) from error
