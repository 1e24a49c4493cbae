"""The child process that decodes one untrusted file; see `protocol` for what goes over its pipes.

It is started by `client`, limits itself before it opens anything, and ends when its standard input does,
so that no worker outlives its parent, however that dies.
"""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ex4d.errors import Ex4dError, MediaError
from ex4d.io.decode.limits import DecodeLimits
from ex4d.io.decode.protocol import END, ERROR, FRAME, HEAD, HEADER, PROGRESS, TIME, TIMES, FrameHeader

_MAX_OPEN_FILES = 64
_MAX_TEXT = 2000
# One sign of life per this many frames that are decoded and not sent.
_PROGRESS_FRAMES = 16


class Worker:
    """Answers the parent's commands until its pipe closes."""

    def __init__(self, limits: DecodeLimits, output: BinaryIO) -> None:
        self.limits, self._output = limits, output
        self._clip: Any = None

    def serve(self, commands: BinaryIO) -> None:
        """Answer one JSON command a line."""
        for line in commands:
            try:
                self._answer(json.loads(line))
            except Ex4dError as error:
                self._send_error(error)
            except MemoryError:
                self._send_error(_memory_error(self.limits))
            except OSError as error:
                if isinstance(error, BrokenPipeError):
                    return
                self._send_error(MediaError("a readable file", error.strerror or str(error), "check the file"))

    def _answer(self, command: dict[str, Any]) -> None:
        name, path = command["op"], Path(command.get("path", ""))
        if name == "stream":
            self._stream(path, command["selection"])
        elif name == "index":
            self._index(path, command["layout"])
        elif name == "read":
            self._read(command["start"], command["stop"])
        elif name == "audio":
            self._audio(path, command)
        else:
            raise MediaError("a known command", repr(name))

    def _stream(self, path: Path, selection_fields: dict[str, Any]) -> None:
        from ex4d.io.decode.select import Selection
        from ex4d.io.decode.sniff import is_still, read_head

        if is_still(read_head(path)):
            from ex4d.io.decode.still import read_still

            header, pixels = read_still(path, self.limits)
            self._send(HEADER, header.to_json())
            self._send(FRAME, TIME.pack(0.0, 0.0), pixels)
            self._end(num_frames=1, notices=())
            return
        from ex4d.io.decode.stream import StreamJob

        job = StreamJob(path, self.limits, Selection(**selection_fields), on_progress=self._progress)
        with contextlib.closing(job):
            self._send(HEADER, job.header.to_json())
            count = self._send_frames(job.frames(), job.header)
            self._end(num_frames=count, notices=job.late_notices())

    def _index(self, path: Path, layout: str) -> None:
        from ex4d.io.decode.lossless import LosslessSource

        if self._clip is not None:
            self._clip.close()
            self._clip = None
        self._clip = LosslessSource(path, self.limits, layout, on_progress=self._progress)
        self._send(HEADER, self._clip.header.to_json())
        self._send(TIMES, self._clip.times.tobytes())
        self._end(num_frames=len(self._clip.times), notices=())

    def _read(self, start: int, stop: int) -> None:
        if self._clip is None:
            raise MediaError("an opened clip", "none")
        frames = ((time_s, time_s, frame) for time_s, frame in self._clip.frames(start, stop))
        count = self._send_frames(frames, self._clip.header)
        self._end(num_frames=count, notices=())

    def _audio(self, path: Path, command: dict[str, Any]) -> None:
        from ex4d.io.decode.audio import extract_audio

        notices = extract_audio(
            path, Path(command["out"]), start_s=command["start_s"], end_s=command["end_s"], on_progress=self._progress
        )
        self._end(num_frames=0, notices=notices)

    def _send_frames(self, frames: Iterator[tuple[float, float, Any]], header: FrameHeader) -> int:
        from ex4d.io.decode.stream import planes_of

        count = 0
        for time_s, file_s, frame in frames:
            if count >= self.limits.max_frames:
                raise MediaError(f"at most {self.limits.max_frames} frames", "more", "select a shorter part")
            self._send(FRAME, TIME.pack(time_s, file_s), *planes_of(frame, header))
            refresh_cpu_limit(self.limits)
            count += 1
        return count

    def _progress(self, num_decoded: int) -> None:
        if num_decoded % _PROGRESS_FRAMES == 0:
            refresh_cpu_limit(self.limits)
            self._send(PROGRESS)

    def _end(self, *, num_frames: int, notices: Any) -> None:
        self._send(END, json.dumps({"num_frames": num_frames, "notices": list(notices)}).encode())

    def _send_error(self, error: Ex4dError) -> None:
        parts = {"expected": error.expected, "got": error.got, "fix": error.fix}
        self._send(ERROR, json.dumps({name: text[:_MAX_TEXT] for name, text in parts.items()}).encode())

    def _send(self, kind: bytes, *parts: Any) -> None:
        views = [memoryview(part).cast("B") for part in parts]
        self._write(memoryview(HEAD.pack(kind, sum(len(view) for view in views))))
        for view in views:
            self._write(view)

    def _write(self, view: memoryview) -> None:
        # A raw pipe may take less than all of it.
        while len(view):
            view = view[self._output.write(view) :]


def _memory_error(limits: DecodeLimits) -> MediaError:
    got = f"one that needs more than the {limits.memory_gib:g} GiB a decoder may have"
    return MediaError("a video of ordinary size", got, "make a smaller copy first")


def apply_limits(limits: DecodeLimits) -> None:
    """Bound this process for good: address space, files, no core dump; processor time is renewed with progress."""
    if os.name != "posix":
        return  # Windows has no such call; the parent's clock and the pixel bounds hold there too
    import resource

    def lower(kind: int, value: int) -> None:
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # macOS refuses some of them; what it refuses, the parent's clock still bounds.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(kind, (value, value))

    lower(resource.RLIMIT_CORE, 0)
    lower(resource.RLIMIT_NOFILE, _MAX_OPEN_FILES)
    lower(resource.RLIMIT_AS, int(limits.memory_gib * 2**30))
    refresh_cpu_limit(limits)


def refresh_cpu_limit(limits: DecodeLimits) -> None:
    """Allow as much processor time again as a stall may last; the kernel ends a worker that overruns."""
    if os.name != "posix":
        return
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    allowed = int(usage.ru_utime + usage.ru_stime + limits.stall_timeout_s * limits.threads) + 1
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    allowed = allowed if hard == resource.RLIM_INFINITY else min(allowed, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (allowed, hard))


def _take_over_stdout() -> BinaryIO:
    """The pipe for our records; whatever a library prints goes nowhere instead of between them."""
    pipe = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return os.fdopen(pipe, "wb", buffering=0)


def main(limits_json: str) -> None:
    """Run the worker.

    Args:
        limits_json: the fields of `DecodeLimits`.
    """
    # Ctrl-C reaches the whole process group; how to end is the parent's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    output = _take_over_stdout()
    limits = DecodeLimits(**json.loads(limits_json))
    apply_limits(limits)
    with contextlib.suppress(BrokenPipeError):
        Worker(limits, output).serve(sys.stdin.buffer)
    # Skips the teardown of decoders that may be in any state; nothing is left to write.
    os._exit(0)
