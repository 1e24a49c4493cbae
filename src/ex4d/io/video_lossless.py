"""Our own FFV1 intermediates, read back frame for frame: `LosslessClip`, and `VideoClip` for colour ones."""

import threading
import weakref
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from ex4d.core.arrays import Float64
from ex4d.core.video import Video
from ex4d.errors import MediaError
from ex4d.io.decode.client import DecodeWorker, check_file
from ex4d.io.decode.limits import DecodeLimits
from ex4d.io.decode.protocol import LOSSLESS_LAYOUTS, LosslessFormat
from ex4d.io.video_frames import raw_pixels

# Matroska counts milliseconds: a time is off by half of one at most.
_TICK_S = 0.0005 + 1e-9


class LosslessClip:
    """Random access to a stream written by `LosslessWriter`, through a worker that lives as long as the clip.

    Close it, or use it as a context manager; a forgotten one is closed when it is collected.

    Args:
        path: an FFV1 ``.mkv``.
        pix_fmt: what must be inside.
        limits: bounds of the decoder: prior folders may come from strangers.
        timestamps_s: float64 [N], exact times kept elsewhere; default: the file's, which Matroska rounds to
            1 ms. Where all of them fit the constant rate in the header, k / fps is taken instead.

    Raises:
        InputError: no such file.
        MediaError: not such a stream, damaged, or of another number of frames than `timestamps_s`.
    """

    def __init__(
        self,
        path: Path,
        pix_fmt: LosslessFormat,
        *,
        limits: DecodeLimits | None = None,
        timestamps_s: Float64 | None = None,
    ) -> None:
        path = check_file(path)
        self._pix_fmt: LosslessFormat = pix_fmt
        self._lock = threading.Lock()
        self._worker = DecodeWorker(limits or DecodeLimits(threads=2))
        self._finalizer = weakref.finalize(self, self._worker.close)
        try:
            self._worker.ask(op="index", path=str(path), layout=LOSSLESS_LAYOUTS[pix_fmt])
            self._header = self._worker.receive_header()
            times = self._worker.receive_times()
            self._worker.receive_end()
            if self._header.layout != LOSSLESS_LAYOUTS[pix_fmt]:
                raise MediaError(f"{pix_fmt} frames", f"{self._header.layout} in {path.name}", "make the folder again")
            self.fps = Fraction(*self._header.fps)
            self._times = _exact_times(times, self.fps) if timestamps_s is None else timestamps_s
            if len(self._times) != len(times):
                raise MediaError(f"{len(self._times)} frames", f"{len(times)} in {path.name}", "make the folder again")
        except BaseException:
            self._finalizer()
            raise

    def __enter__(self) -> "LosslessClip":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    @property
    def num_frames(self) -> int:
        """Frames in the stream."""
        return len(self._times)

    @property
    def height(self) -> int:
        """px."""
        return self._header.height

    @property
    def width(self) -> int:
        """px."""
        return self._header.width

    @property
    def timestamps_s(self) -> Float64:
        """float64 [num_frames], increasing."""
        return self._times

    def read(self, start: int, stop: int) -> np.ndarray:
        """Frames ``start:stop``; forward reads are cheapest, any other costs one seek. May be called from any thread.

        Returns:
            uint8 [T,H,W,3] RGB, uint8 [T,H,W] or uint16 [T,H,W].

        Raises:
            MediaError: the stream is damaged there.
            ValueError: a range outside the clip.
        """
        if not 0 <= start < stop <= self.num_frames:
            raise ValueError(f"LosslessClip.read: expected 0 <= start < stop <= {self.num_frames}, got {start}:{stop}")
        shape = (stop - start, self.height, self.width)
        out = np.empty((*shape, 3) if self._pix_fmt == "rgb" else shape, _dtype(self._pix_fmt))
        with self._lock:  # one worker, one answer at a time, whichever threads ask
            count = self._read_into(out, start, stop)
        if count != len(out):
            self.close()
            raise MediaError(f"{len(out)} frames", f"{count} from the decoder", "make the folder again")
        return out

    def _read_into(self, out: np.ndarray, start: int, stop: int) -> int:
        """Fill `out` with frames ``start:stop``; returns how many came."""
        self._worker.ask(op="read", start=int(start), stop=int(stop))
        count = 0
        for _, _, raw in self._worker.receive_frames(self._header):
            if count == len(out):
                break
            pixels = raw_pixels(raw, self._header)
            if self._pix_fmt == "rgb":
                cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB, dst=out[count])
            else:
                out[count] = pixels
            count += 1
        return count

    def close(self) -> None:
        """End the worker; safe to call twice."""
        self._finalizer()


class VideoClip:
    """A colour intermediate as a `Clip[Video]`. Arguments, errors and life time as `LosslessClip`."""

    def __init__(self, path: Path, *, limits: DecodeLimits | None = None, timestamps_s: Float64 | None = None) -> None:
        self._clip = LosslessClip(path, "rgb", limits=limits, timestamps_s=timestamps_s)

    def __enter__(self) -> "VideoClip":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    @property
    def num_frames(self) -> int:
        """Frames in the clip."""
        return self._clip.num_frames

    @property
    def height(self) -> int:
        """px."""
        return self._clip.height

    @property
    def width(self) -> int:
        """px."""
        return self._clip.width

    @property
    def fps(self) -> Fraction:
        """Average rate in the header; 0 if unknown."""
        return self._clip.fps

    @property
    def timestamps_s(self) -> Float64:
        """float64 [num_frames], increasing."""
        return self._clip.timestamps_s

    def read(self, start: int, stop: int) -> Video:
        """The chunk of frames ``start:stop``."""
        return Video(frames=self._clip.read(start, stop), timestamps_s=self.timestamps_s[start:stop])

    def close(self) -> None:
        """End the worker; safe to call twice."""
        self._clip.close()


def _dtype(pix_fmt: LosslessFormat) -> type[np.generic]:
    return np.uint16 if pix_fmt == "gray16" else np.uint8


def _exact_times(times: Float64, fps: Fraction) -> Float64:
    """k / fps where that is what the rounded times say, else the times themselves."""
    if fps <= 0:
        return times
    constant = times[0] + np.arange(len(times)) * fps.denominator / fps.numerator
    return constant if np.abs(constant - times).max() <= _TICK_S else times
