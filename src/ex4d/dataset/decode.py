"""Videos out of shards: one sandboxed decoder that stays for many samples."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ex4d.core.arrays import Bool
from ex4d.core.video import Video
from ex4d.io.decode.client import DecodeWorker
from ex4d.io.decode.limits import DecodeLimits
from ex4d.io.video_frames import FrameConverter, display_size, raw_pixels


class MemberDecoder:
    """Decodes bytes of videos; its worker is started on first use and serves until something goes wrong.

    A process that was forked starts a worker of its own.
    """

    def __init__(self) -> None:
        self._worker: DecodeWorker | None = None
        self._owner = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"_worker": None, "_owner": 0}

    def video(self, data: bytes, suffix: str) -> Video:
        """All frames of a video file.

        Raises:
            MediaError: damaged.
        """
        frames: list[np.ndarray] = []
        times: list[float] = []
        with self._asked(data, suffix, op="stream", selection={}) as worker:
            header = worker.receive_header()
            height, width = display_size(header)
            convert = FrameConverter(header, height=height, width=width)
            for time_s, _, raw in worker.receive_frames(header):
                frames.append(convert(raw))
                times.append(time_s)
        return Video(frames=np.stack(frames), timestamps_s=np.array(times, np.float64))

    def mask(self, data: bytes, suffix: str) -> Bool:
        """bool [T,H,W]: where a gray video is white.

        Raises:
            MediaError: damaged, or no gray video.
        """
        with self._asked(data, suffix, op="stream", selection={}) as worker:
            header = worker.receive_header()
            frames = [raw_pixels(raw, header) > 127 for _, _, raw in worker.receive_frames(header)]
        return np.stack(frames)

    def close(self) -> None:
        """End the worker; safe to call twice."""
        if self._worker is not None and self._owner == os.getpid():
            self._worker.close()
        self._worker = None

    @contextmanager
    def _asked(self, data: bytes, suffix: str, **command: Any) -> Iterator[DecodeWorker]:
        """A worker that was asked about a file with these bytes; an error ends it."""
        if self._worker is None or self._owner != os.getpid():
            self._worker, self._owner = DecodeWorker(DecodeLimits()), os.getpid()
        with tempfile.TemporaryDirectory(prefix="ex4d-sample-") as folder:
            path = Path(folder) / f"member.{suffix}"
            path.write_bytes(data)
            try:
                self._worker.ask(path=str(path), **command)
                yield self._worker
            except BaseException:
                self.close()
                raise
