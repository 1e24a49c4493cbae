"""A process that does one request after the other, and may hang, crash or fill the memory without harm to its owner."""

import contextlib
import importlib
import json
import os
import pickle
import queue
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from ex4d.errors import Ex4dError

Handler = Callable[[Any], Any]

# -P: a stranger's module in the current folder is never imported. The child gets its owner's search path instead.
_BOOT = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from ex4d.jobs.child import serve; serve()"
_LENGTH = struct.Struct("<Q")
_LAST_WORDS = 300
# One thread each: as many children run as there are processors, and sums do not depend on how many threads made them.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_SET_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of Linux' prctl(2)."""

Cause = Literal["timeout", "crash", "memory"]


class ChildDied(Exception):
    """The child ended during a request; the next request starts another.

    Args:
        cause: ``"timeout"`` (it was ended by its owner), ``"memory"`` (more than it may have, or ended by the
            kernel, which is how a machine without memory looks), ``"crash"``.
        text: for people.
    """

    def __init__(self, cause: Cause, text: str) -> None:
        self.cause: Cause = cause
        self.text = text
        super().__init__(text)

    def __reduce__(self) -> tuple[type["ChildDied"], tuple[Cause, str]]:
        return type(self), (self.cause, self.text)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """What a child is.

    Attributes:
        handler: ``module:function``; called once in the child with `settings`, returns what answers requests.
        settings: picklable.
        timeout_s: longest time for one request, > 0.
        memory_gib: address space of the child, GiB; None: no limit (CUDA reserves more than there is).
    """

    handler: str
    settings: Any
    timeout_s: float
    memory_gib: float | None = None


class Child:
    """Owns one process at a time; it is started when it is first asked. Close it, or use it as a context manager.

    Linux ends the child when the *thread* that started it ends: ask from the thread that will close it.
    """

    def __init__(self, spec: ChildSpec) -> None:
        self._spec = spec
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: Any = None

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Of the running child; None between two."""
        return None if self._process is None else self._process.pid

    def ask(self, request: Any) -> Any:
        """What the handler makes of a request.

        Raises:
            ChildDied: it took too long, crashed, or needed too much memory.
            Exception: what the handler raised.
        """
        fired = threading.Event()
        process = self._process or self._start()
        timer = threading.Timer(self._spec.timeout_s, self._expire, (process, fired))
        timer.daemon = True
        timer.start()
        try:
            _send(process.stdin, request)
            kind, answer = _receive(process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError):
            raise self._buried(fired.is_set()) from None
        except BaseException:  # interrupted in the middle of an answer: the child is of no more use
            self.close()
            raise
        finally:
            timer.cancel()
        if kind == "error":
            if isinstance(answer, MemoryError):
                self.close()  # what it holds by now is not known
                raise ChildDied("memory", f"more than {self._spec.memory_gib or '?'} GiB was needed")
            raise answer
        return answer

    def close(self) -> None:
        """End the child and wait for it; safe to call twice."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(OSError):  # what was not sent has no reader any more
                stream.close()  # pyright: ignore[reportOptionalMemberAccess]
        self._process = None

    def _start(self) -> "subprocess.Popen[bytes]":
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _BOOT, json.dumps([entry or str(Path.cwd()) for entry in sys.path])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **dict.fromkeys(_ONE_THREAD, "1")},
        )
        with contextlib.suppress(OSError):  # it died already: the first answer says so
            _send(self._process.stdin, (os.getpid(), self._spec))
        return self._process

    @staticmethod
    def _expire(process: "subprocess.Popen[bytes]", fired: threading.Event) -> None:
        fired.set()
        process.kill()

    def _buried(self, expired: bool) -> ChildDied:
        assert self._process is not None
        code = self._process.wait()
        words = self._last_words()
        self.close()
        if expired:
            return ChildDied("timeout", f"no result within {self._spec.timeout_s:g} s")
        if code == -getattr(signal, "SIGKILL", 9):
            return ChildDied("memory", "the process was killed, probably because the machine ran out of memory")
        how = f"by signal {-code}" if code < 0 else f"with code {code}"
        return ChildDied("crash", f"the process ended {how}{f': {words}' if words else ''}")

    def _last_words(self) -> str:
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - 8192))
        lines = self._errors.read().decode("utf-8", "replace").split("\n")
        return next((line.strip()[:_LAST_WORDS] for line in reversed(lines) if line.strip()), "")


def _send(stream: Any, value: Any) -> None:
    data = pickle.dumps(value)
    stream.write(_LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def _receive(stream: Any) -> Any:
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    data = stream.read(_LENGTH.unpack(head)[0])
    if len(data) < _LENGTH.unpack(head)[0]:
        raise EOFError
    return pickle.loads(data)


def serve() -> None:
    """What the child runs: requests from standard input until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; how to end is the owner's decision
    requests, answers = sys.stdin.buffer, _take_over_stdout()
    try:
        owner, spec = _receive(requests)
    except EOFError:
        os._exit(1)
    _die_with(owner)
    _limit_memory(spec.memory_gib)
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests, waiting), daemon=True).start()
    handler: Handler | None = None
    while True:
        request = waiting.get()
        try:
            if handler is None:
                module, name = spec.handler.split(":")
                handler = getattr(importlib.import_module(module), name)(spec.settings)
                assert handler is not None
            answer = ("answer", handler(request))
        except Exception as error:  # noqa: BLE001 - the owner raises it again
            answer = ("error", _portable(error))
        _send(answers, answer)


def _portable(error: Exception) -> Exception:
    """Errors of ours and memory errors as they are; of others what can be said in words."""
    if isinstance(error, Ex4dError | MemoryError):
        return error
    import traceback

    traceback.print_exception(error)
    return RuntimeError(f"{type(error).__name__}: {error}")


def _listen(requests: BinaryIO, waiting: "queue.SimpleQueue[Any]") -> None:
    """Hands requests on; when the owner is gone, nobody wants the work in progress."""
    while True:
        try:
            waiting.put(_receive(requests))
        except (EOFError, OSError, pickle.UnpicklingError):
            os._exit(1)


def _take_over_stdout() -> BinaryIO:
    """The pipe for answers; whatever a library prints goes to stderr instead of between them."""
    pipe = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(pipe, "wb")


def _die_with(owner: int) -> None:
    """Linux: be killed when the owner's thread ends, even inside a call that never returns to Python."""
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != owner:  # it died before the call above
        os._exit(1)


def _limit_memory(gib: float | None) -> None:
    if gib is None or os.name != "posix":
        return
    import resource

    with contextlib.suppress(OSError, ValueError):  # macOS refuses it
        resource.setrlimit(resource.RLIMIT_AS, (int(gib * 2**30), resource.getrlimit(resource.RLIMIT_AS)[1]))
