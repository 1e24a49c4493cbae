"""What a person sees when something goes wrong: one line on stderr, and an exit code."""

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator
from types import FrameType
from typing import NoReturn

from ex4d.errors import Ex4dError

EXIT_FAULT = 1
EXIT_USER = 2
EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_TERMINATED = 128 + signal.SIGTERM
DEBUG_VARIABLE = "EX4D_DEBUG"


class Terminated(KeyboardInterrupt):
    """SIGTERM, treated like Ctrl-C: what is finished is kept."""


def guarded(job: Callable[[], int]) -> int:
    """Run a command; turn every failure into text and an exit code.

    Set ``EX4D_DEBUG=1`` to see tracebacks.
    """
    try:
        with _tolerant_streams(), _terminable():
            return job()
    except Ex4dError as error:
        _trace()
        return _say(f"error: {error}", EXIT_USER)
    except KeyboardInterrupt as error:
        advice = "".join(f"; {text}" for text in error.args)
        code = EXIT_TERMINATED if isinstance(error, Terminated) else EXIT_INTERRUPTED
        return _say(f"interrupted{advice}", code)
    except BrokenPipeError:
        # Nobody reads any more (`ex4d … | head`): keep the interpreter from complaining when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAULT
    except MemoryError:
        _trace()
        return _say("error: out of memory; to fix: a smaller --max-side, or close other programs", EXIT_USER)
    except Exception as error:  # noqa: BLE001 - the last line of defence
        _trace()
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        hint = f"this is a fault of ex4d: please report it with the command, `ex4d doctor` and {DEBUG_VARIABLE}=1 set"
        return _say(f"internal error: {what}; {hint}", EXIT_FAULT)


def one_line(text: str) -> str:
    """A message without line breaks and control characters, whatever names and decoders put into it."""
    return "".join(c if c.isprintable() else " " for c in text).strip()


def _say(text: str, code: int) -> int:
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.write(one_line(text) + "\n")
        sys.stderr.flush()
    return code


def _trace() -> None:
    if os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0"):
        traceback.print_exc()


@contextlib.contextmanager
def _tolerant_streams() -> Generator[None, None, None]:
    """A character that the terminal's encoding lacks is replaced, never a crash at the end of a long run."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
    yield
    sys.stdout.flush()


@contextlib.contextmanager
def _terminable() -> Generator[None, None, None]:
    """SIGTERM raises `Terminated` in the main thread while the block runs."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated
