"""The parent's side of a decode worker: start it, ask it, believe nothing, never wait for ever."""

import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ex4d.core.arrays import Float64, UInt8
from ex4d.errors import InputError, MediaError
from ex4d.io.decode.limits import DecodeLimits
from ex4d.io.decode.protocol import (
    END,
    ERROR,
    FRAME,
    HEAD,
    HEADER,
    MAX_JSON_BYTES,
    PROGRESS,
    TIME,
    TIMES,
    FrameHeader,
)
from ex4d.io.exif import LONGEST_MM, SHORTEST_MM

# Runs in an isolated interpreter, which sees neither the current folder nor PYTHON* variables: a stranger's
# "av.py" beside the video is never imported. It gets the parent's own search path instead.
_BOOT = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from ex4d.io.decode.worker import main; main(sys.argv[2])"
)
_PASSED_ON = ("PATH", "SYSTEMROOT", "WINDIR", "TEMP", "TMP", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG")
_PIPE_BYTES = 1 << 20
_BROKEN_FIX = "the file is probably damaged: convert it, or report it if other players show it"


def check_file(path: Path) -> Path:
    """The absolute path of an existing, readable, ordinary file.

    Raises:
        InputError: missing, a folder, a device, or not readable.
    """
    path = Path(path)
    shown = clean_text(str(path))
    try:
        if path.is_dir():
            raise InputError("a file", f"the folder {shown}", "name one video or image file in it")
        if not path.exists():
            raise InputError("an existing file", f"{shown}, which does not exist", "check the spelling of the path")
        if not path.is_file():
            raise InputError("an ordinary file", f"{shown}, a device or pipe", "save it as a file first")
        with path.open("rb"):
            return path.resolve()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError("a readable file", f"{shown} ({reason})", "check the path and its permissions") from error


class DecodeWorker:
    """One child process. Not for use from several threads at once. Close it; leaving a ``with`` block does.

    Args:
        limits: bounds; the time between two signs of life is held here, the rest by the child itself.

    Attributes:
        focal_35mm: 35 mm equivalent in mm that the file of the last header names, or None.
    """

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits
        fields = json.dumps(dataclasses.asdict(limits))
        search_path = json.dumps([entry or str(Path.cwd()) for entry in sys.path])
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _BOOT, search_path, fields],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={name: value for name in _PASSED_ON if (value := os.environ.get(name)) is not None},
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._commands: Any = self._process.stdin
        self._records: Any = self._process.stdout
        _enlarge_pipe(self._records)
        self._watchdog = _Watchdog(self._process, limits.stall_timeout_s)
        self._answering = False
        self.focal_35mm: float | None = None

    def __enter__(self) -> "DecodeWorker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the child still runs."""
        return self._process.poll() is None

    def ask(self, **command: Any) -> None:
        """Send a command; the answer to the one before must have been read to its end."""
        if self._answering:
            raise RuntimeError("DecodeWorker.ask: the last answer was not read to its end")
        try:
            self._commands.write(json.dumps(command).encode() + b"\n")
        except OSError as error:
            raise self._died() from error
        self._answering = True

    def receive_header(self) -> FrameHeader:
        """The header that begins an answer.

        Raises:
            MediaError: what the worker found wrong with the file, or that it died or hung.
        """
        kind, length = self._next_record()
        data = self._receive_json(HEADER, kind, length)
        try:
            header = FrameHeader.from_json(data)
            focal_35mm = float(json.loads(data).get("focal_35mm", 0.0))
        except (ValueError, TypeError) as error:
            raise self._broken("a header that makes no sense") from error
        self.focal_35mm = focal_35mm if SHORTEST_MM <= focal_35mm <= LONGEST_MM else None
        if header.height * header.width > self._limits.max_pixels:
            raise self._broken("a frame size beyond the limit")
        return header

    def receive_times(self) -> Float64:
        """Timestamps float64 [N] in seconds, of a lossless clip."""
        kind, length = self._next_record()
        if kind != TIMES or length % 8 or not 0 < length <= 8 * self._limits.max_frames:
            raise self._broken("no timestamps")
        times = np.empty(length // 8, np.float64)
        self._receive_into(times.data.cast("B"))
        return times

    def receive_frames(self, header: FrameHeader) -> Iterator[tuple[float, float, UInt8]]:
        """Yield (seconds delivered, seconds in the file, uint8 [planes, H, stride] raw rows) until the answer ends.

        Returns (as the generator's value) the END record. Leaving the generator early makes the worker
        useless: close it.
        """
        shape = header.num_planes, header.height, header.stride
        while True:
            kind, length = self._next_record()
            if kind != FRAME:
                return self._parse_end(kind, length)
            if length != TIME.size + header.frame_bytes:
                raise self._broken("a frame of another size")
            stamp = bytearray(TIME.size)
            self._receive_into(memoryview(stamp))
            pixels = np.empty(shape, np.uint8)
            self._receive_into(pixels.data.cast("B"))
            time_s, file_s = TIME.unpack(stamp)
            if not (np.isfinite(time_s) and np.isfinite(file_s)):
                raise self._broken("a timestamp that is not finite")
            yield time_s, file_s, pixels

    def receive_end(self) -> dict[str, Any]:
        """The record that ends an answer: ``num_frames`` and ``notices``."""
        return self._parse_end(*self._next_record())

    def close(self) -> None:
        """End the child and wait for it; safe to call twice."""
        self._watchdog.stop()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._commands.close()
        self._records.close()

    def _parse_end(self, kind: bytes, length: int) -> dict[str, Any]:
        data = self._receive_json(END, kind, length)
        try:
            end = json.loads(data)
            notices = tuple(clean_text(str(notice)) for notice in end["notices"])
            result = {"num_frames": int(end["num_frames"]), "notices": notices}
        except (ValueError, KeyError, TypeError) as error:
            raise self._broken("an end that makes no sense") from error
        self._answering = False
        return result

    def _next_record(self) -> tuple[bytes, int]:
        """Kind and length of the next record that is no mere sign of life; raises what the worker reports."""
        head = bytearray(HEAD.size)
        while True:
            self._receive_into(memoryview(head))
            kind, length = HEAD.unpack(head)
            if kind == ERROR:
                raise self._reported(self._receive_json(ERROR, kind, length))
            if kind != PROGRESS or length:
                return kind, length

    def _receive_json(self, expected: bytes, kind: bytes, length: int) -> bytes:
        if kind != expected or length > MAX_JSON_BYTES:
            raise self._broken("an unexpected answer")
        data = bytearray(length)
        self._receive_into(memoryview(data))
        return bytes(data)

    def _receive_into(self, view: memoryview) -> None:
        self._watchdog.arm()
        try:
            while len(view):
                count = self._records.readinto(view)
                if not count:
                    raise self._died()
                view = view[count:]
        finally:
            self._watchdog.disarm()

    def _reported(self, data: bytes) -> MediaError:
        try:
            raw = json.loads(data)
            error = MediaError(*(clean_text(str(raw[name])) for name in ("expected", "got", "fix")))
        except (ValueError, KeyError, TypeError):
            return self._broken("an error that makes no sense")
        self._answering = False
        return error

    def _died(self) -> MediaError:
        code = self._process.wait()
        if self._watchdog.fired:
            seconds = self._limits.stall_timeout_s
            got = f"one whose decoder made no progress for {seconds:g} s"
            return MediaError("a video that decodes in reasonable time", got, _BROKEN_FIX)
        got = f"one that the decoder could not survive (exit status {code})"
        return MediaError("a readable video of ordinary size", got, _BROKEN_FIX)

    def _broken(self, what: str) -> MediaError:
        self.close()
        return MediaError("a sensible answer of the decoder", what, _BROKEN_FIX)


class _Watchdog:
    """Kills a process that leaves an armed wait unanswered for too long.

    A thread rather than ``select``: on Windows pipes cannot be selected, and killing the child ends the read.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", timeout_s: float) -> None:
        self._process, self._timeout_s = process, timeout_s
        self._wake = threading.Event()
        self._deadline: float | None = None
        self._stopped = False
        self.fired = False
        self._thread = threading.Thread(target=self._run, name="ex4d-decode-watchdog", daemon=True)
        self._thread.start()

    def arm(self) -> None:
        self._deadline = time.monotonic() + self._timeout_s

    def disarm(self) -> None:
        self._deadline = None

    def stop(self) -> None:
        self._stopped = True
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        # Arming only stores a number, so that it costs nothing per record; the thread looks now and then.
        while not self._wake.wait(min(0.5, self._timeout_s / 4)):
            deadline = self._deadline
            if deadline is not None and time.monotonic() > deadline:
                self.fired = True
                self._process.kill()
                return


def clean_text(text: str) -> str:
    """Text from an untrusted file, without anything that could steer a terminal."""
    return "".join(char if char.isprintable() else " " for char in text)[:2000]


def _enlarge_pipe(pipe: BinaryIO) -> None:
    """Let the worker run a frame ahead where the system can (Linux)."""
    if sys.platform != "linux":
        return
    import contextlib
    import fcntl

    with contextlib.suppress(OSError):  # the administrator may have set a lower bound
        fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
