"""Video for people: H.264 in mp4 that every player and browser shows, with the right colours and the source's sound."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from ex4d.core.arrays import Float64, UInt8
from ex4d.errors import ConfigError, MediaError
from ex4d.io.atomic import discard, temporary_beside
from ex4d.io.decode.client import DecodeWorker, check_file
from ex4d.io.decode.limits import DecodeLimits
from ex4d.io.encode import AtomicMuxer, FrameClock, check_frames

_BT709 = 1
_PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
# x264's output depends on the number of threads: it is fixed, whatever the machine has.
_THREADS = 4
# x264's macroblock tree reads memory it never wrote at some sizes (64x48, 426x240, ...; seen with MALLOC_PERTURB_):
# two runs would give different bytes.
_REPEATABLE = "mbtree=0"
_MIN_TICKS_PER_S = 90000
_EXACT = int(
    Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP | Interpolation.FULL_CHR_H_INT
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverySettings:
    """How a delivery file is coded.

    Attributes:
        crf: x264's constant rate factor, 0 (largest) to 51 (worst); 17 is visually lossless.
        preset: x264's preset; faster ones make larger files.
    """

    crf: int = 17
    preset: str = "medium"

    def __post_init__(self) -> None:
        if not 0 <= self.crf <= 51:
            raise ConfigError("delivery.crf of 0 to 51", str(self.crf), "17 is visually lossless")
        if self.preset not in _PRESETS:
            raise ConfigError(f"delivery.preset of {', '.join(_PRESETS)}", repr(self.preset), "choose one of them")


class DeliveryWriter:
    """H.264 yuv420p, BT.709 limited range and tagged so, ``+faststart``. Use as a context manager.

    Odd sizes grow by one repeated row or column (4:2:0 has no odd sizes), which is reported as a notice.
    Equal input gives equal bytes on one version of the encoder.

    Args:
        path: where the file shall appear when the block ends; its folder must exist.
        height: of the frames, px.
        width: of the frames, px.
        fps: average rate.
        audio_from: copy the sound of this file; None = silent.
        audio_start_s: time in that file which is time 0 of the output.
        settings: quality and effort; default `DeliverySettings`.

    Raises:
        OutputError: see `AtomicMuxer`.
        InputError: `audio_from` is not readable.
    """

    def __init__(
        self,
        path: Path,
        *,
        height: int,
        width: int,
        fps: Fraction,
        audio_from: Path | None = None,
        audio_start_s: float = 0.0,
        settings: DeliverySettings | None = None,
    ) -> None:
        self._height, self._width = height, width
        self._fps = Fraction(fps).limit_denominator(1001) if fps >= Fraction(1, 1000) else Fraction(30)
        settings = settings or DeliverySettings()
        quality = {"crf": str(settings.crf), "preset": settings.preset}
        self._options = {**quality, "flags": "+bitexact", "x264-params": _REPEATABLE}
        self._audio_from = check_file(audio_from) if audio_from is not None else None
        self._audio_start_s = audio_start_s
        self._muxer = AtomicMuxer(path, {"movflags": "+faststart", "fflags": "+bitexact"})
        # A multiple of the rate, so that constant rates are exact, and fine enough for variable ones.
        numerator = self._fps.numerator
        self._tick = Fraction(1, numerator * -(-_MIN_TICKS_PER_S // numerator))
        self._clock = FrameClock(self._tick)
        self._reformatter = VideoReformatter()
        self._notices: list[str] = []
        self._num_frames = 0
        self._audio: _AudioTrack | None = None

    @property
    def notices(self) -> tuple[str, ...]:
        """What was changed on the way."""
        return tuple(self._notices)

    def __enter__(self) -> "DeliveryWriter":
        self._muxer.open()
        try:
            self._add_video()
            self._add_audio()
        except BaseException:
            self._abort()
            raise
        if self._height % 2 or self._width % 2:
            even = f"{self._width + self._width % 2}x{self._height + self._height % 2}"
            self._notices.append(f"{self._width}x{self._height} was padded to {even}: H.264 4:2:0 has no odd sizes")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if kind is None:
                if self._num_frames == 0:
                    raise ValueError("DeliveryWriter: no frame was written")
                self._muxer.mux(self._stream.encode(None))
                if self._audio is not None:
                    end_s = (self._clock.last + self._frame_ticks) * float(self._tick)
                    self._muxer.mux(self._audio.until(end_s))
                self._muxer.publish()
        finally:
            self._abort()

    def write(self, frames: UInt8, timestamps_s: Float64) -> None:
        """Append frames.

        Args:
            frames: uint8 [T,H,W,3] sRGB.
            timestamps_s: float64 [T], >= 0, increasing over the whole file.
        """
        check_frames(frames, timestamps_s, np.uint8, (self._height, self._width, 3))
        for image, time_s in zip(frames, timestamps_s, strict=True):
            frame = self._frame(image)
            frame.pts, frame.time_base = self._clock.ticks(float(time_s)), self._tick
            frame.duration = self._frame_ticks
            self._muxer.mux(self._stream.encode(frame))
            if self._audio is not None:
                self._muxer.mux(self._audio.until(float(time_s)))
            self._num_frames += 1

    @property
    def _frame_ticks(self) -> int:
        return round(1 / self._fps / self._tick)

    def _add_video(self) -> None:
        stream = self._muxer.container.add_stream("libx264", rate=self._fps, options=self._options)
        stream.height, stream.width = self._height + self._height % 2, self._width + self._width % 2
        stream.pix_fmt = "yuv420p"
        codec = stream.codec_context
        codec.time_base = self._tick
        codec.thread_count = _THREADS
        codec.color_primaries = codec.color_trc = codec.colorspace = _BT709
        codec.color_range = int(ColorRange.MPEG)
        self._stream: Any = stream

    def _add_audio(self) -> None:
        if self._audio_from is None:
            return
        self._audio = _AudioTrack(self._audio_from, self._audio_start_s, beside=self._muxer.path)
        self._notices.extend(self._audio.notices)
        self._audio.add_to(self._muxer.container)

    def _frame(self, image: UInt8) -> VideoFrame:
        padded = np.pad(image, ((0, self._height % 2), (0, self._width % 2), (0, 0)), mode="edge")
        frame = self._reformatter.reformat(
            VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24"),
            format="yuv420p",
            dst_colorspace=int(Colorspace.ITU709),
            src_color_range=int(ColorRange.JPEG),
            dst_color_range=int(ColorRange.MPEG),
            interpolation=_EXACT,
            threads=1,
        )
        frame.color_primaries = frame.color_trc = frame.colorspace = _BT709
        frame.color_range = int(ColorRange.MPEG)
        return frame

    def _abort(self) -> None:
        if self._audio is not None:
            self._audio.close()
            self._audio = None
        self._muxer.abort()


class _AudioTrack:
    """The sound of an untrusted file: a worker rewrites it into a clean mp4 beside the output, which is copied from."""

    def __init__(self, source: Path, start_s: float, *, beside: Path) -> None:
        import av

        self._temporary = temporary_beside(beside.with_suffix(".m4a"))
        self.notices: tuple[str, ...] = ()
        self._container: Any = None
        self._pairs: dict[int, Any] = {}
        self._pending: Any = None
        try:
            with DecodeWorker(DecodeLimits()) as worker:
                worker.ask(op="audio", path=str(source), out=str(self._temporary), start_s=start_s, end_s=None)
                self.notices = worker.receive_end()["notices"]
            if self._temporary.exists():
                self._container = av.open(f"file:{self._temporary}", options={"format_whitelist": "mov"})
                self._packets = self._audio_packets()
        except (FFmpegError, OSError, MediaError) as error:
            self.close()
            reason = error.got if isinstance(error, MediaError) else str(error)
            self.notices = (f"the sound of {source.name} could not be copied: {reason}",)

    def add_to(self, output: Any) -> None:
        """Add a copied stream for each audio stream."""
        for stream in self._container.streams.audio if self._container is not None else ():
            self._pairs[stream.index] = output.add_stream_from_template(stream)

    def until(self, time_s: float) -> Iterator[Any]:
        """The packets that begin before `time_s`."""
        while self._container is not None:
            packet = self._pending if self._pending is not None else next(self._packets, None)
            self._pending = packet
            if packet is None or float(packet.pts * packet.time_base) >= time_s:
                return
            self._pending = None
            packet.stream = self._pairs[packet.stream.index]
            yield packet

    def close(self) -> None:
        """Close and remove the temporary file."""
        if self._container is not None:
            with contextlib.suppress(FFmpegError, OSError):
                self._container.close()
            self._container = None
        discard(self._temporary)

    def _audio_packets(self) -> Iterator[Any]:
        for packet in self._container.demux():
            if packet.pts is not None and packet.size:
                yield packet
