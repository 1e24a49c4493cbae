"""Lossless video out: FFV1 in Matroska, equal bytes for equal frames, whole or absent."""

import contextlib
import errno
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import cv2
import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame

from ex4d.core.arrays import Float64
from ex4d.errors import OutputError
from ex4d.io.atomic import discard, output_error, publish, temporary_beside
from ex4d.io.decode.protocol import LOSSLESS_LAYOUTS, LosslessFormat

# Measured on 512x512 and 1024x576: Rice coding decodes a third faster than range coding for 15 % more bytes
# (16-bit streams always use range coding); the small context model costs nothing; checksums cost 2 %.
# With "g" = 1 every frame is a key frame: otherwise the coder's statistics run on and no frame can be read alone.
# A fixed number of slices keeps the bytes independent of the number of threads.
_FFV1 = {"level": "3", "coder": "rice", "context": "0", "slices": "4", "slicecrc": "1", "g": "1", "flags": "+bitexact"}
_THREADS = 2


class AtomicMuxer:
    """An output container that appears under its final name when the ``with`` block ends without an error.

    Args:
        path: where the file shall appear; its folder must exist.
        options: container options.

    Raises:
        OutputError: folder missing or not writable, disk full (also from `write` and on leaving the block).
    """

    def __init__(self, path: Path, options: dict[str, str]) -> None:
        self.path = Path(path)
        self._temporary = temporary_beside(self.path)
        self._options = options
        self._container: Any = None

    @property
    def container(self) -> Any:
        """The open container."""
        if self._container is None:
            raise RuntimeError(f"{type(self).__name__}: write only inside the `with` block")
        return self._container

    def open(self) -> None:
        """Create the temporary file."""
        try:
            if self.path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "is a folder")
            with self._temporary.open("xb"):
                pass  # FFmpeg's own message for an unwritable folder does not say which
            self._container = av.open(f"file:{self._temporary}", "w", options=self._options)
        except (FFmpegError, OSError) as error:
            self.abort()
            raise _as_output_error(self.path, error) from error

    def mux(self, packets: Iterable[Any]) -> None:
        """Write encoded packets."""
        try:
            for packet in packets:
                self.container.mux_one(packet)
        except (FFmpegError, OSError) as error:
            raise _as_output_error(self.path, error) from error

    def publish(self) -> None:
        """Finish the file and give it its name."""
        try:
            self.container.close()
            self._container = None
            if self._temporary.stat().st_size == 0:
                raise OutputError(f"to write {self.path}", "an empty file", "check the disk")
        except (FFmpegError, OSError) as error:
            raise _as_output_error(self.path, error) from error
        publish(self._temporary, self.path)

    def abort(self) -> None:
        """Close and remove the temporary file; never raises."""
        if self._container is not None:
            # The file is thrown away: why it could not be finished is being raised already.
            with contextlib.suppress(FFmpegError, OSError, ValueError):
                self._container.close()
            self._container = None
        discard(self._temporary)


def _as_output_error(path: Path, error: Exception) -> OutputError:
    if isinstance(error, OSError):
        return output_error(path, error)
    return OutputError(f"to be able to write {path}", str(error), "choose another output folder")


class FrameClock:
    """Turns timestamps into strictly increasing ticks of a container.

    Args:
        tick: seconds, exact.
    """

    def __init__(self, tick: Fraction) -> None:
        self._tick = tick
        self.last = -1

    def ticks(self, time_s: float) -> int:
        """The nearest tick; ValueError if it does not come after the last one."""
        tick = round(time_s / float(self._tick))
        if tick <= self.last:
            raise ValueError(f"timestamps_s: expected increasing times >= 0, at least a tick apart, got {time_s!r}")
        self.last = tick
        return tick


def check_frames(frames: np.ndarray, timestamps_s: Float64, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    """ValueError unless frames are ``dtype`` [T, *shape] with one finite time each."""
    if frames.dtype != dtype or frames.shape[1:] != shape:
        want = f"{np.dtype(dtype)} [T,{','.join(map(str, shape))}]"
        raise ValueError(f"frames: expected {want}, got {frames.dtype} {list(frames.shape)}")
    if len(timestamps_s) != len(frames) or not np.isfinite(timestamps_s).all():
        raise ValueError(f"timestamps_s: expected {len(frames)} finite times, got {timestamps_s!r}")


class LosslessWriter:
    """FFV1 in ``.mkv``: the canonical intermediate. Use as a context manager; equal input gives equal bytes.

    Matroska counts milliseconds, so that times are rounded to 1 ms; `LosslessClip` restores k / fps exactly where
    the rate is constant. Keep other exact times beside the file.

    Args:
        path: where the file shall appear when the block ends; its folder must exist.
        pix_fmt: ``"rgb"`` (uint8 [T,H,W,3]), ``"gray"`` (uint8 [T,H,W]) or ``"gray16"`` (uint16 [T,H,W]).
        height: px.
        width: px.
        fps: average rate for the header; 0 if there is none.

    Raises:
        OutputError: see `AtomicMuxer`.
    """

    def __init__(self, path: Path, pix_fmt: LosslessFormat, *, height: int, width: int, fps: Fraction) -> None:
        self._pix_fmt: LosslessFormat = pix_fmt
        self._height, self._width = height, width
        self._fps = Fraction(fps) if fps > 0 else Fraction(30)
        self._muxer = AtomicMuxer(path, {"fflags": "+bitexact"})
        self._clock = FrameClock(Fraction(1, 1000))
        self._num_frames = 0

    def __enter__(self) -> "LosslessWriter":
        self._muxer.open()
        stream = self._muxer.container.add_stream("ffv1", rate=self._fps, options=dict(_FFV1))
        stream.height, stream.width, stream.pix_fmt = self._height, self._width, LOSSLESS_LAYOUTS[self._pix_fmt]
        codec = stream.codec_context
        codec.time_base = Fraction(1, 1000)
        codec.thread_count, codec.thread_type = _THREADS, "SLICE"
        codec.color_range = 2
        self._stream = stream
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if kind is None:
                if self._num_frames == 0:
                    raise ValueError("LosslessWriter: no frame was written")
                self._muxer.mux(self._stream.encode(None))
                self._muxer.publish()
        finally:
            self._muxer.abort()

    def write(self, frames: np.ndarray, timestamps_s: Float64) -> None:
        """Append frames.

        Args:
            frames: of the dtype and shape that belong to `pix_fmt`.
            timestamps_s: float64 [T], >= 0, increasing over the whole file.
        """
        shape = (self._height, self._width, 3) if self._pix_fmt == "rgb" else (self._height, self._width)
        check_frames(frames, timestamps_s, np.uint16 if self._pix_fmt == "gray16" else np.uint8, shape)
        for image, time_s in zip(frames, timestamps_s, strict=True):
            frame = self._frame(image)
            frame.pts, frame.time_base = self._clock.ticks(float(time_s)), Fraction(1, 1000)
            self._muxer.mux(self._stream.encode(frame))
            self._num_frames += 1

    def _frame(self, image: np.ndarray) -> VideoFrame:
        frame = VideoFrame(self._width, self._height, LOSSLESS_LAYOUTS[self._pix_fmt])
        plane = frame.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(self._height, plane.line_size)  # type: ignore[call-overload]
        if self._pix_fmt == "rgb":
            target = rows[:, : self._width * 4].reshape(self._height, self._width, 4)
            target[...] = cv2.cvtColor(image, cv2.COLOR_RGB2BGRA)
        else:
            target = rows[:, : self._width * image.itemsize]
            target[...] = np.ascontiguousarray(image.astype(image.dtype.newbyteorder("<"), copy=False)).view(np.uint8)
        frame.color_range = 2
        return frame
