"""A folder that one run at a time may write to, where no `workspace` is kept."""

import contextlib
from collections.abc import Generator
from pathlib import Path

from ex4d.errors import OutputError
from ex4d.io.atomic import output_error

try:
    import fcntl
except ImportError:  # Windows: two runs in one folder are not kept apart
    fcntl = None

LOCK = ".ex4d-lock"
"""Name of the file in the folder while a run is at work; one that a killed run left locks nothing."""


@contextlib.contextmanager
def locked(folder: Path) -> Generator[None, None, None]:
    """Keep other runs out of a folder that exists.

    Raises:
        OutputError: another run is at work there, or it cannot be written.
    """
    if fcntl is None:
        yield
        return
    path = folder / LOCK
    try:
        file = path.open("w")
    except OSError as error:
        raise output_error(path, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            fix = "wait for it, or choose another folder"
            raise OutputError(f"no other run at work in {folder}", "one is", fix) from error
        except OSError:  # a file system without locks
            pass
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()
