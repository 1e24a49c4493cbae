"""The folder of a run: who writes there, which run it holds, what a start that came to nothing leaves. No torch."""

import contextlib
import json
import re
import shutil
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ex4d.errors import Ex4dError, OutputError, WeightsError
from ex4d.io.atomic import output_error
from ex4d.pipeline.folder_lock import LOCK, locked
from ex4d.training.config import TrainConfig, config_from_json
from ex4d.training.log import read_log

if TYPE_CHECKING:
    from ex4d.training.processes import Processes

RUN = "run.json"
CHECKPOINTS = "checkpoints"
COMMITTED = "COMMITTED"
_NAME = re.compile(r"step-(\d{8})")


def list_checkpoints(run: Path) -> list[Path]:
    """Complete checkpoints of a run, the newest last."""
    found = (run / CHECKPOINTS).glob("step-*")
    return sorted(path for path in found if _NAME.fullmatch(path.name) and (path / COMMITTED).is_file())


def step_of(checkpoint: Path) -> int:
    """Of one of `list_checkpoints`."""
    return int(checkpoint.name.removeprefix("step-"))


def read_run(folder: Path) -> dict[str, Any]:
    """``run.json`` of a run.

    Raises:
        WeightsError: no run there.
    """
    expected, fix = f"a folder that `ex4d train` wrote at {folder}", "name the -o of `ex4d train`"
    try:
        run = json.loads((folder / RUN).read_text("utf-8"))
        return {"config": run["config"], **run}
    except FileNotFoundError:
        raise WeightsError(expected, f"no {RUN} there", fix) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(expected, f"no readable {RUN} ({error})", fix) from error


def run_config(run: Mapping[str, Any]) -> TrainConfig:
    """The settings in a ``run.json``."""
    return config_from_json(run["config"])


def check_same(
    run: Mapping[str, Any], config: TrainConfig, output: Path, *, dataset: str, weights: str | None = None
) -> None:
    """Raise an OutputError unless this is what the run in a folder trains.

    Args:
        run: its ``run.json``.
        config: what is to be gone on with.
        output: the folder.
        dataset: fingerprint.
        weights: digest of the weights' files; None = not known yet.
    """
    wrong = config.differing(run_config(run))
    if run.get("dataset", {}).get("fingerprint") != dataset:
        wrong.append("dataset")
    if weights is not None and run.get("weights_sha256", weights) != weights:
        wrong.append("weights or adapter")
    if wrong:
        raise OutputError(
            f"recipe, dataset and weights of the run in {output}",
            f"another {', '.join(wrong)}",
            "repeat the command that began the run, or choose another --output-dir",
        )


def check_output(output: Path, *, resume: bool) -> dict[str, Any] | None:
    """What `claimed` finds out, without claiming or making the folder."""
    check_place(output)
    if not output.exists():
        return None
    with locked(output):
        return _run_there(output, resume=resume)


@contextmanager
def claimed(output: Path, *, resume: bool) -> Generator[dict[str, Any] | None, None, None]:
    """Be the only run in a folder that is new, empty, or that of the run to be resumed.

    Yields ``run.json`` of that run, None where a new one begins. A new one that ends by an error before its first step
    is done leaves nothing behind.

    Raises:
        OutputError: another run is at work there, the folder holds something else, or it cannot be written.
        WeightsError: the run there cannot be read.
    """
    check_place(output)
    made = [folder for folder in (output, *output.parents) if not folder.exists()]
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(output, error) from error
    is_ours = False
    try:
        with locked(output):
            stored = _run_there(output, resume=resume)
            is_ours = stored is None
            try:
                yield stored
            except BaseException:
                if is_ours and not _has_begun(output):
                    _empty(output)
                raise
    except BaseException:
        if is_ours:
            _remove(made)
        raise


@contextmanager
def claimed_by(processes: "Processes", output: Path, *, resume: bool) -> Generator[dict[str, Any] | None, None, None]:
    """`claimed` by rank 0 for all processes of a run, which raise alike."""
    with ExitStack() as stack:
        stored: dict[str, Any] | None = None
        failed: Ex4dError | None = None
        if processes.rank == 0:
            try:
                stored = stack.enter_context(claimed(output, resume=resume))
            except Ex4dError as error:
                failed = error
        stored, failed = processes.gather((stored, failed))[0]
        if failed is not None:
            raise failed
        yield stored


def check_place(output: Path) -> None:
    """Raise an OutputError if a file is where a folder has to be."""
    for folder in (output, *output.parents):
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"a folder at {output}", f"the file {folder}", "choose another folder with -o")


def _run_there(output: Path, *, resume: bool) -> dict[str, Any] | None:
    """``run.json`` of the run to resume; None in an empty folder."""
    try:
        names = sorted(entry.name for entry in output.iterdir() if entry.name != LOCK)
    except OSError as error:
        raise output_error(output, error) from error
    if not names:
        return None
    if RUN not in names:
        got = f"{len(names)} entries that are no run, e.g. {names[0]!r}"
        raise OutputError(f"a new or empty folder {output}", got, "choose another --output-dir")
    if not resume:
        raise OutputError(f"a new or empty folder {output}", "a run", "add --resume to go on with it")
    return read_run(output)


def _has_begun(output: Path) -> bool:
    return bool(read_log(output) or list_checkpoints(output))


def _empty(output: Path) -> None:
    """Of what this start made; it was empty before."""
    for entry in output.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.name != LOCK:
            with contextlib.suppress(OSError):
                entry.unlink()


def _remove(made: list[Path]) -> None:
    """Folders that this start made and that are empty again, the innermost first."""
    with contextlib.suppress(OSError):
        for folder in made:
            folder.rmdir()
