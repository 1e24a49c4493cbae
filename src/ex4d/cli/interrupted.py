"""What is said when a command that can be resumed is interrupted."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def resumable(output: Path, *, kept: str, overwrite: bool) -> Generator[None, None, None]:
    """Around a run: an interruption (Ctrl-C, or being told to end) says what is kept and how to go on.

    Args:
        output: the folder of the run.
        kept: what is kept there: ``stages`` or ``windows``.
        overwrite: whether --overwrite was typed, which would throw that away.
    """
    from ex4d.pipeline.workspace import WORK_FOLDER

    try:
        yield
    except KeyboardInterrupt as stop:
        if not (output / WORK_FOLDER).exists():
            raise
        instead = " instead of --overwrite" if overwrite else ""
        advice = f"finished {kept} are kept in {output}: go on with the same command and --resume{instead}"
        raise type(stop)(advice) from None
