"""The output folder while a run is under way: staged files, finished stages, resume, one publishing step.

Everything is made in ``OUT/.ex4d-work`` and moved to its final name at the end, prior.json last. A killed
run leaves only that folder; `--resume` goes on with the stages it holds.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from ex4d.errors import CameraPathError, ConfigError, Ex4dError, InputError, OutputError
from ex4d.io.atomic import is_temporary, output_error, write_json_atomic

try:
    import fcntl
except ImportError:  # Windows: two runs in one folder are not kept apart
    fcntl = None

WORK_FOLDER = ".ex4d-work"
_REQUEST = "request.json"
_PUBLISH = "publish"
_LOCK = "lock"
_ADVICE = "use --resume to go on, --overwrite to start again, or another folder"
_RESTART = "use --overwrite to replace it, or another folder"


class Workspace:
    """Use `open_workspace`.

    Attributes:
        output: the user's folder.
        root: the work folder inside it.
        is_resumed: whether stages of an earlier run may be there.
    """

    def __init__(self, output: Path, *, made_folders: Sequence[Path], is_resumed: bool) -> None:
        self.output = output
        self.root = output / WORK_FOLDER
        self.is_resumed = is_resumed
        self._made_folders = made_folders
        self._published = False
        self._lock: IO[str] | None = None

    def staged(self, name: str) -> Path:
        """Where the file that will be published as ``OUT/name`` is made; its folder exists."""
        path = self.root / "files" / name
        self._make_folder(path.parent)
        return path

    def result(self, stage: str) -> dict[str, Any] | None:
        """What a finished stage recorded; None if it has to be done."""
        try:
            return json.loads((self.root / "stages" / f"{stage}.json").read_text("utf-8"))
        except (OSError, ValueError):
            return None

    def finish(self, stage: str, result: Mapping[str, Any]) -> None:
        """Record that all files of a stage are complete."""
        folder = self.root / "stages"
        self._make_folder(folder)
        write_json_atomic(folder / f"{stage}.json", dict(result))

    def publish(self, names: Sequence[str], *, outdated: Sequence[str] = ()) -> None:
        """Move staged files to their final names, in this order; what is already there from this run stays.

        The list is recorded first: a run killed between two moves is finished by `publish_pending`.

        Args:
            names: staged files.
            outdated: files of an earlier run that go before the first move.
        """
        self.finish(_PUBLISH, {"names": list(names), "outdated": list(outdated)})
        self.publish_pending()

    def publish_pending(self) -> bool:
        """Carry out the moves that were recorded; False if publishing has not begun."""
        plan = self.result(_PUBLISH)
        if plan is None:
            return False
        self._published = True
        files = self.root / "files"
        inside = self.output.resolve()
        for name in (*plan["outdated"], *plan["names"]):
            if not (self.output / name).resolve().is_relative_to(inside):
                raise OutputError(f"names inside {self.output}", repr(name), f"delete {self.root}")
        for name in plan["outdated"]:
            if name not in plan["names"] or (files / name).exists():  # else its successor is in place already
                with _reported(self.output / name):
                    (self.output / name).unlink(missing_ok=True)
        for name in plan["names"]:
            final = self.output / name
            if (files / name).exists():
                self._make_folder(final.parent)
                with _reported(final):
                    (files / name).replace(final)
        return True

    def share(self, name: str, other: str) -> None:
        """Stage the file `name` under a second name too: a hard link where the file system has them."""
        target = self.staged(other)
        target.unlink(missing_ok=True)
        try:
            os.link(self.root / "files" / name, target)
        except OSError:
            try:
                shutil.copyfile(self.root / "files" / name, target)
            except OSError as error:
                raise output_error(target, error) from error

    def lock(self) -> None:
        """Keep other runs out of this folder; a killed run's lock is gone with it."""
        self._lock = (self.root / _LOCK).open("w")
        try:
            if fcntl is not None:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.unlock()
            raise OutputError(
                f"no other run at work in {self.output}", "one is", "wait for it, or choose another folder"
            ) from error

    def unlock(self) -> None:
        """Let others in; safe to call twice."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def close(self) -> None:
        """The run is complete: remove the work folder, first what says that it can be resumed."""
        self.unlock()
        (self.root / _REQUEST).unlink(missing_ok=True)
        shutil.rmtree(self.root, ignore_errors=True)

    def abandon(self) -> None:
        """The input turned out to be unusable: leave nothing behind that was not there before."""
        self.unlock()
        if not self._published and not self.is_resumed:
            shutil.rmtree(self.root, ignore_errors=True)
            for folder in self._made_folders:
                try:
                    folder.rmdir()
                except OSError:
                    return  # something else was put there meanwhile: it stays

    def _make_folder(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise output_error(folder, error) from error


@contextlib.contextmanager
def _reported(path: Path) -> Generator[None, None, None]:
    """An OSError inside the block says in words why `path` could not be written."""
    try:
        yield
    except OSError as error:
        raise output_error(path, error) from error


def open_workspace(output: Path, request: Mapping[str, Any], *, resume: bool, overwrite: bool) -> Workspace:
    """Claim an output folder for a run.

    Args:
        output: the folder; made when missing.
        request: config and input hash; a run resumes only where these are equal.
        resume: go on with an interrupted run of the same request.
        overwrite: replace what an earlier run left.

    Raises:
        OutputError: not writable, not empty (without a flag), or the run to resume was another one.
    """
    if resume and overwrite:
        raise OutputError("one of --resume and --overwrite", "both", "drop one of them")
    try:
        made_folders = [folder for folder in (output, *output.parents) if not folder.exists()]
        for folder in (output, *output.parents):
            if folder.exists() and not folder.is_dir():
                raise OutputError(f"a folder at {output}", f"the file {folder}", "choose another folder with -o")
        output.mkdir(parents=True, exist_ok=True)
        content = sorted(entry.name for entry in output.iterdir())
    except OSError as error:
        raise output_error(output, error) from error
    root = output / WORK_FOLDER
    is_resumed = resume and _may_resume(root, request)
    # what is left of a run killed before it recorded its request holds nothing to keep
    if content and not (is_resumed or overwrite or (resume and content == [WORK_FOLDER])):
        what = "an unfinished run" if WORK_FOLDER in content else f"{len(content)} entries, e.g. {content[0]!r}"
        if resume:
            raise OutputError(f"an unfinished run of these settings and this input in {output}", what, _RESTART)
        raise OutputError(f"an empty or new folder at {output}", what, _ADVICE)
    workspace = Workspace(output, made_folders=made_folders, is_resumed=is_resumed)
    with _reported(root):
        root.mkdir(exist_ok=True)
        workspace.lock()
        if not is_resumed:
            _empty(root)
    _sweep(root)
    try:
        write_json_atomic(root / _REQUEST, dict(request))
    except OutputError:
        workspace.abandon()
        raise
    return workspace


def _empty(root: Path) -> None:
    """Remove all of an earlier run but the lock; an error is raised: old stages must not survive."""
    if root.is_symlink():
        raise OutputError(f"a folder at {root}", "a link", "remove it")
    for entry in root.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != _LOCK:
            entry.unlink()


def is_complete(
    output: Path,
    request: Mapping[str, Any],
    folders: Sequence[str],
    files: Sequence[str],
    *,
    record: str = "prior.json",
) -> bool:
    """Whether every folder of this very request is finished already.

    Args:
        output: the output folder.
        request: config and input.
        folders: sub-folders, one a camera (``""`` for the output itself).
        files: names that must be in each of them.
        record: the JSON in each of them that repeats the request.
    """
    if (output / WORK_FOLDER / _REQUEST).exists():
        return False
    for folder in folders:
        try:
            info = json.loads((output / folder / record).read_text("utf-8"))
        except (OSError, ValueError):
            return False
        if {key: info.get(key) for key in request} != dict(request):
            return False
        if not all((output / folder / name).is_file() for name in files):
            return False
    return True


def _may_resume(root: Path, request: Mapping[str, Any]) -> bool:
    """True if the work folder holds this request; False if there is none."""
    if not (root / _REQUEST).is_file():
        return False
    try:
        stored = json.loads((root / _REQUEST).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    if stored == json.loads(json.dumps(request)):
        return True
    differing = ", ".join(differences(stored, dict(request))) or "something"
    raise OutputError(
        "the same settings and input as the run to resume",
        f"another {differing}",
        "repeat the first command with --resume, or use --overwrite",
    )


def differences(a: Any, b: Any, prefix: str = "") -> list[str]:
    """Dotted names of what differs between two trees of JSON."""
    if isinstance(a, dict) and isinstance(b, dict):
        names: list[str] = []
        for key in sorted(set(a) | set(b)):
            names += differences(a.get(key), b.get(key), f"{prefix}.{key}" if prefix else str(key))
        return names
    return [] if a == json.loads(json.dumps(b)) else [prefix]


def _sweep(root: Path) -> None:
    """Remove half-written files of a killed run."""
    for path in root.rglob(".*"):
        if path.is_file() and is_temporary(path):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def carried_out(workspace: Workspace) -> Generator[None, None, None]:
    """Around the work itself: closes the workspace when it is done.

    An unusable input leaves nothing behind, nor does any failure before the first stage; otherwise finished stages are
    kept for --resume.
    """
    try:
        yield
    except (InputError, ConfigError, CameraPathError):
        workspace.abandon()
        raise
    except Ex4dError:
        if not any((workspace.root / "stages").glob("*.json")):
            workspace.abandon()
        raise
    finally:
        workspace.unlock()
    workspace.close()
