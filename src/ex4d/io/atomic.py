"""Outputs that are either whole or absent: written to a temporary name, fsynced, renamed.

A killed process leaves at most a ``.<name>.<random>.tmp<suffix>`` file, never half a file under a final name.
"""

import contextlib
import errno
import json
import os
import re
import secrets
from collections.abc import Generator
from pathlib import Path
from typing import Any

from ex4d.errors import OutputError

_DISK_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG}
_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{8}\.tmp(\.[^.]*)?", re.DOTALL)
_NO_PERMISSION = {errno.EACCES, errno.EPERM, errno.EROFS}


def output_error(path: Path, error: OSError) -> OutputError:
    """The `OutputError` that says in words why `path` could not be written."""
    expected = f"to be able to write {path}"
    if error.errno in _DISK_FULL:
        return OutputError(expected, "the disk (or your quota) is full", "free some space, or write elsewhere")
    if error.errno in _NO_PERMISSION:
        return OutputError(expected, "no permission to write there", "choose an output folder that you may write to")
    if error.errno in (errno.ENOENT, errno.ENOTDIR) and not path.parent.is_dir():
        got = f"the folder {path.parent} does not exist"
        return OutputError(expected, got, "create it or choose another one")
    if error.errno in (errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY):
        kind = "file" if path.is_file() else "folder"
        return OutputError(expected, f"a {kind} of that name is in the way", "remove it or choose another name")
    return OutputError(expected, error.strerror or str(error), "choose another output folder")


def temporary_beside(final: Path) -> Path:
    """A name not yet taken, in the folder of `final` and with its suffix (encoders choose the container by it)."""
    return final.with_name(f".{final.stem[:80]}.{secrets.token_hex(4)}.tmp{final.suffix}")


def is_temporary(path: Path) -> bool:
    """Whether a name is one that `temporary_beside` makes: what a killed run may have left behind."""
    return _TEMPORARY.fullmatch(path.name) is not None


def remove_temporaries(folder: Path) -> list[Path]:
    """Remove what killed runs left in a folder and below it; returns what was removed.

    Only for a folder that no other process writes to.
    """
    left = [path for path in sorted(folder.rglob(".*.tmp*")) if is_temporary(path) and path.is_file()]
    for path in left:
        discard(path)
    return left


def publish(temporary: Path, final: Path) -> None:
    """Make a complete file appear under its final name: fsync it, rename it, fsync the folder.

    Raises:
        OutputError: if the disk is full, or the name cannot be written.
    """
    try:
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(final)
        _sync_folder(final.parent)
    except OSError as error:
        raise output_error(final, error) from error


def _sync_folder(folder: Path) -> None:
    """Flush the rename itself; Windows has no such call and needs none."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def atomic_path(final: Path) -> Generator[Path, None, None]:
    """Yield a temporary path; what the block wrote there becomes `final` when it ends without an error.

    Args:
        final: where the file shall appear; its folder must exist. An existing file is replaced.

    Raises:
        OutputError: if the disk is full, or the folder is missing or not writable. On this and every
            other exception the temporary file is removed and `final` is left as it was.
    """
    final = Path(final)
    temporary = temporary_beside(final)
    try:
        if final.is_dir():
            raise output_error(final, OSError(errno.EISDIR, os.strerror(errno.EISDIR)))
        try:
            yield temporary
        except OSError as error:
            if error.errno in _DISK_FULL or _concerns(error, temporary):
                raise output_error(final, error) from error
            raise
        publish(temporary, final)
    finally:
        discard(temporary)


def discard(temporary: Path) -> None:
    """Remove a temporary file if it is there; never hides the error that made it useless."""
    with contextlib.suppress(OSError):
        temporary.unlink(missing_ok=True)


def _concerns(error: OSError, path: Path) -> bool:
    """Whether an OSError names this file; a missing *input* inside the block is not an output error."""
    return error.filename is not None and os.fspath(error.filename) == str(path)


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """Write a small file whole or not at all (`OutputError` as in `atomic_path`)."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json_atomic(path: Path, obj: Any) -> None:
    """Write JSON whole or not at all: UTF-8, keys in the order given, two spaces, newline at the end.

    Args:
        path: where to.
        obj: dicts, lists, strings, finite numbers, booleans and None.

    Raises:
        OutputError: as in `atomic_path`.
        ValueError: NaN or infinity in `obj` (they are not JSON).
        TypeError: anything else that is not JSON.
    """
    text = json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes_atomic(path, (text + "\n").encode())
