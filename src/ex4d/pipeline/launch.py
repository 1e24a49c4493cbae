"""``--gpus N``: the same command once more for every GPU, kept together by torch's launcher, as `torchrun` does it.

The launching process computes nothing. Rank 0 of the workers speaks and writes; what goes wrong in any of them ends
all, and is raised here as if it had happened here.
"""

import json
import logging
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Literal, NoReturn

from ex4d import errors
from ex4d.errors import ConfigError, Ex4dError, MissingDependencyError
from ex4d.io.atomic import write_json_atomic

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure
    from torch.distributed.launcher.api import LaunchConfig

FOLDER_VARIABLE = "EX4D_LAUNCH_FOLDER"
"""Where workers of `relaunch_with_torchrun` leave what went wrong."""

_FAILURE_SUFFIX = ".failure.json"
_PLAIN_ERRORS: Mapping[str, type[Exception | KeyboardInterrupt]] = {
    kind.__name__: kind for kind in (KeyboardInterrupt, MemoryError, RuntimeError)
}

_SHUTDOWN_S = 20
"""Between asking a worker to stop and killing it, seconds."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """What a worker leaves behind; `at_ns` orders them, as the first failure causes the others."""

    at_ns: int
    rank: int
    error: Exception | KeyboardInterrupt
    trace: str


def is_worker() -> bool:
    """Whether this process is one of several that torchrun started."""
    return "LOCAL_RANK" in os.environ


def relaunch_with_torchrun(
    argv: Sequence[str], num_gpus: int, *, device: Literal["cuda", "cpu"] = "cuda", module: str = "ex4d"
) -> int:
    """Run ``python -m ex4d`` with these words in N processes; returns 0 when all are done.

    Call it in the main thread of a process that is no worker. Ctrl-C, SIGTERM and a closed terminal end all workers.

    Args:
        argv: the words after ``ex4d``, as typed.
        num_gpus: N.
        device: ``cpu`` needs no GPU.
        module: what to run instead of ex4d.

    Raises:
        ConfigError: fewer GPUs than that, before anything is started.
        MissingDependencyError: no torch.
        Ex4dError: a worker was killed, or ended without a word.
        KeyboardInterrupt: stopped, with what rank 0 had to say.
        Exception: whatever a worker failed with first.
    """
    try:
        import torch
        from torch.distributed.elastic.multiprocessing import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.launcher.api import elastic_launch
    except ImportError as error:
        raise MissingDependencyError("torch", "gen", "--gpus") from error
    if device == "cuda" and (found := torch.cuda.device_count()) < num_gpus:
        raise ConfigError(f"at least {num_gpus} CUDA GPUs for --gpus {num_gpus}", str(found), "ask for fewer")
    with tempfile.TemporaryDirectory(prefix="ex4d-launch-") as name, _surroundings(name):
        folder = Path(name)
        command = ("-P", "-m", module, *argv)  # -P: no file in the current folder stands in for a package
        try:
            elastic_launch(_config(num_gpus, folder), sys.executable)(*command)
        except ChildFailedError as failed:
            raise _cause(failed.failures, folder) from None
        except (KeyboardInterrupt, SignalException) as stop:
            kind = type(stop) if isinstance(stop, KeyboardInterrupt) else KeyboardInterrupt
            said = [failure.error.args for failure in _failures(folder) if failure.rank == 0]
            raise kind(*(said[0] if said else ())) from None
    return 0


def _config(num_processes: int, folder: Path) -> "LaunchConfig":
    """One machine, no second try, a free port; only rank 0 reaches the terminal."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
    from torch.distributed.launcher.api import LaunchConfig

    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_processes,
        logs_specs=DefaultLogsSpecs(str(folder), redirects=dict.fromkeys(range(1, num_processes), Std.ALL)),
        run_id=folder.name,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        signals_to_handle="SIGQUIT",  # the others are ours, see `_stop_once`
        shutdown_timeout=_SHUTDOWN_S,
    )


@contextmanager
def _surroundings(folder: str) -> Generator[None, None, None]:
    """Tells workers where to leave failures, keeps torch's launcher quiet about them, and stops in order."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    os.environ[FOLDER_VARIABLE] = folder
    try:
        with _stop_once():
            yield
    finally:
        del os.environ[FOLDER_VARIABLE]
        logging.disable(level)


@contextmanager
def _stop_once() -> Generator[None, None, None]:
    """The first signal raises here and so ends the workers; a second must not end us before they are gone."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    before = {number: handler for number, handler in handlers.items() if handler != signal.SIG_IGN}  # nohup

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)
        raise KeyboardInterrupt

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_worker(job: Callable[[], int]) -> int:
    """Do a worker's part of a command; what it raises is raised in the launching process instead.

    Without `relaunch_with_torchrun` above (torchrun typed by hand) the job is simply run.

    Args:
        job: returns the exit code.
    """
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder is None:
        return job()
    try:
        return job()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - raised again by the launching process
        _leave(error, Path(folder), int(os.environ["RANK"]))
    sys.stdout.flush()
    sys.stderr.flush()
    # At once: an orderly exit may wait for ranks that wait for this one, and only its end frees them.
    os._exit(1)


def _leave(error: Exception | KeyboardInterrupt, folder: Path, rank: int) -> None:
    """As JSON: nothing that is read back runs code."""
    if isinstance(error, Ex4dError):
        kind, words = type(error).__name__, error.__reduce__()[1]
    elif isinstance(error, KeyboardInterrupt | MemoryError):
        kind = "KeyboardInterrupt" if isinstance(error, KeyboardInterrupt) else "MemoryError"
        words = tuple(str(word) for word in error.args)
    else:
        kind, words = "RuntimeError", (f"{type(error).__name__}: {error}",)
    said = {"at_ns": time.monotonic_ns(), "rank": rank, "kind": kind, "words": words, "trace": traceback.format_exc()}
    write_json_atomic(folder / f"{rank}{_FAILURE_SUFFIX}", said)


def _failures(folder: Path) -> list[_Failure]:
    """In the order of time."""
    found: list[_Failure] = []
    for path in folder.glob(f"*{_FAILURE_SUFFIX}"):
        said = json.loads(path.read_text("utf-8"))
        kind = _PLAIN_ERRORS.get(said["kind"]) or getattr(errors, said["kind"])
        found.append(_Failure(said["at_ns"], said["rank"], kind(*said["words"]), said["trace"]))
    return sorted(found, key=lambda failure: failure.at_ns)


def _cause(failed: Mapping[int, "ProcessFailure"], folder: Path) -> Exception | KeyboardInterrupt:
    """Why the workers ended: one was killed, or the first error; the others only lost their partner."""
    left = _failures(folder)
    # the launcher itself ends the others by SIGTERM, which kills one that has just started
    ours = -signal.SIGTERM if left else None
    killed = [rank for rank, failure in failed.items() if failure.exitcode < 0 and failure.exitcode != ours]
    if left and not killed:
        first = next((entry for entry in left if isinstance(entry.error, Exception)), left[0])
        first.error.add_note(f"on rank {first.rank}:\n{first.trace}")
        return first.error
    rank = min(killed or failed)
    code = failed[rank].exitcode
    how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    words = _last_words(folder, rank)
    return Ex4dError(
        "worker processes that run to the end",
        f"rank {rank} {how}{f' ({words})' if words else ''}",
        "SIGKILL mostly means that the machine ran out of memory: fewer --gpus or a smaller --plan" if killed else "",
    )


def _last_words(folder: Path, rank: int) -> str:
    """The last line that a worker other than rank 0 wrote to stderr."""
    for log in folder.glob(f"**/{rank}/stderr.log"):
        lines = log.read_text("utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
    return ""
