"""Inside the worker: one media file opened with every whitelist and bound that FFmpeg knows, and its frames.

Imports PyAV and nothing else, so that a worker starts in under a tenth of a second.
"""

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.logging
from av.container import InputContainer
from av.error import FFmpegError
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ex4d.errors import MediaError
from ex4d.io.decode.limits import ALLOWED_CODECS, ALLOWED_FORMATS, DecodeLimits
from ex4d.io.decode.sniff import describe_unreadable

_WHOLE_COPY = "get a whole copy of the file"


class MediaSource:
    """The best video stream of a file, decoded forward.

    Args:
        path: an existing file.
        limits: bounds.
        strict: report checksum errors too (only our own streams carry checksums of every slice).

    Raises:
        MediaError: not readable, not allowed, no video, or too large.
    """

    def __init__(self, path: Path, limits: DecodeLimits, *, strict: bool = False) -> None:
        self.path, self.limits = path, limits
        self.notices: list[str] = []
        self.num_decoded = 0
        self.container = _open(path, limits)
        self.stream = _video_stream(self.container, path)
        self._size: tuple[int, int] | None = None
        self._last_media_s = 0.0
        self._seeked = False
        self._num_complaints = 0
        codec = self.stream.codec_context
        check_pixels(path, codec.height, codec.width, limits)
        codec.thread_count = limits.threads
        codec.thread_type = "SLICE"
        codec.options = {"max_pixels": str(limits.max_pixels)}
        if strict:
            codec.options = {**codec.options, "err_detect": "crccheck+explode"}

    @property
    def rate(self) -> Fraction:
        """Average frames a second as the container says, 0 if it does not or the value is absurd."""
        rate = self.stream.average_rate or self.stream.guessed_rate
        return Fraction(rate.numerator, rate.denominator) if rate and 0 < rate <= 1000 else Fraction(0)

    def seek(self, time_s: float, origin_s: float) -> None:
        """Go to the key frame before `time_s` (seconds from the first frame, which is at `origin_s`)."""
        time_base = self.stream.time_base or Fraction(1, 1000)
        self._seeked = True
        self.container.seek(int((time_s + origin_s) / time_base), stream=self.stream, backward=True)

    def frames(self) -> Iterator[tuple[float, VideoFrame]]:
        """Yield (container time in s, frame) to the end of the file, times strictly increasing.

        Raises:
            MediaError: if the file is damaged or ends too early, changes its size, or has too many frames.
        """
        previous_s: float | None = None
        for frame in self._decode():
            self.check_frame(frame)
            time_s = frame.pts * frame.time_base if frame.pts is not None and frame.time_base else None
            if time_s is None or (previous_s is not None and time_s <= previous_s):
                interval_s = float(1 / self.rate) if self.rate else 1 / 30
                time_s = 0.0 if previous_s is None else previous_s + interval_s
                self.note("some frames have no usable timestamp: theirs were made up from the frame rate")
            previous_s = float(time_s)
            yield previous_s, frame
        if self.num_decoded == 0:
            raise MediaError("a video with readable frames", f"{self.path.name} without any", _WHOLE_COPY)
        self._check_whole()

    def note(self, notice: str) -> None:
        """Remember a notice once."""
        if notice not in self.notices:
            self.notices.append(notice)

    def decoder_complained(self) -> bool:
        """Whether FFmpeg logged an error since the last call: many decoders conceal damage and say so nowhere else."""
        before, self._num_complaints = self._num_complaints, av.logging.get_last_error()[0]
        return self._num_complaints > before

    def close(self) -> None:
        """Close the file."""
        self.container.close()

    def _decode(self) -> Iterator[VideoFrame]:
        packets = self.container.demux()
        while True:
            try:
                packet = next(packets)
            except (StopIteration, EOFError):
                return
            except (FFmpegError, ValueError) as error:
                raise self._damaged(error) from error
            if packet.pts is not None and packet.time_base:
                end = (packet.pts + (packet.duration or 0)) * packet.time_base
                self._last_media_s = max(self._last_media_s, float(end))
            if packet.stream is not self.stream:
                continue
            if packet.is_corrupt and self.num_decoded:
                raise self._damaged(None)
            try:
                for frame in packet.decode():
                    if isinstance(frame, VideoFrame):
                        yield frame
            except EOFError:
                return
            except (FFmpegError, ValueError) as error:
                # Streams cut out of a broadcast begin with packets that refer to frames before the cut.
                if self.num_decoded:
                    raise self._damaged(error) from error
                self.note("packets before the first readable frame were skipped")
            if self.decoder_complained() and self.num_decoded and not self._seeked:
                self.note("the decoder reported damage: some frames may look wrong")

    def check_frame(self, frame: VideoFrame) -> None:
        """Count a decoded frame; `MediaError` if it is corrupt, of another size than the first, or one too many."""
        size = frame.height, frame.width
        if self._size is None:
            check_pixels(self.path, *size, self.limits)
            self._size = size
        if size != self._size:
            was, now = f"{self._size[1]}x{self._size[0]}", f"{size[1]}x{size[0]}"
            raise MediaError(
                "one frame size in the whole video",
                f"{self.path.name} that changes from {was} to {now} at frame {self.num_decoded}",
                f"cut it there, or read the first part with --frames 0:{self.num_decoded}",
            )
        if frame.is_corrupt:
            raise self._damaged(None)
        self.num_decoded += 1
        if self.num_decoded > self.limits.max_frames:
            raise MediaError(
                f"at most {self.limits.max_frames} frames", f"more in {self.path.name}", "cut it into shorter files"
            )

    def _damaged(self, error: Exception | None) -> MediaError:
        why = f" ({plain_reason(error)})" if error is not None else ""
        if self.num_decoded == 0:
            return MediaError("a readable video", f"{self.path.name}, which is damaged{why}", _WHOLE_COPY)
        readable = f"--frames 0:{self.num_decoded}" if not self._seeked else "an earlier --end"
        where = "later on" if self._seeked else f"after {self.num_decoded} readable frames"
        return MediaError(
            "a whole video",
            f"{self.path.name}, which is damaged or cut off {where}{why}",
            f"{_WHOLE_COPY}, or keep the readable part with {readable}",
        )

    def _check_whole(self) -> None:
        """Containers that end in the middle often end without an error: compare with what their header promised."""
        family = self.container.format.name
        if family.startswith("mov"):
            end = max((entry.pos + entry.size for entry in self.stream.index_entries), default=0)
            if end > self.path.stat().st_size:
                raise self._damaged(None)
        if not family.startswith(("mov", "matroska", "avi")) or not self.container.duration:
            return
        start_s = max(0.0, (self.container.start_time or 0) / av.time_base)
        promised_s = self.container.duration / av.time_base
        interval_s = float(1 / self.rate) if self.rate else 0.1
        if self._last_media_s - start_s < promised_s - max(3 * interval_s, 0.02 * promised_s, 0.1):
            raise self._damaged(None)


def check_pixels(path: Path, height: int, width: int, limits: DecodeLimits) -> None:
    """Raise `MediaError` for a frame of more pixels than allowed."""
    if height * width > limits.max_pixels:
        raise MediaError(
            f"frames of at most {limits.max_pixels / 1e6:.0f} megapixels",
            f"{width}x{height} ({height * width / 1e6:.0f} megapixels) in {path.name}",
            "make a smaller copy first",
        )


def plain_reason(error: Exception) -> str:
    """FFmpeg's words for what went wrong, without Python's decoration."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__)[:200]


def display_orientation(frame: VideoFrame) -> tuple[tuple[int, int, int, int], float]:
    """(a, b, c, d) of `FrameHeader.orientation` nearest to the frame's display matrix, and what is left, degrees."""
    with contextlib.suppress(KeyError):
        side_data: Any = frame.side_data
        raw = memoryview(side_data[SideDataType.DISPLAYMATRIX]).cast("B").cast("i")
        a, b, c, d = raw[0], raw[1], raw[3], raw[4]
        if abs(a) + abs(d) == abs(b) + abs(c) == 0:
            return (1, 0, 0, 1), 0.0
        straight = abs(a) + abs(d) >= abs(b) + abs(c)
        kept, lost = ((a, d), (b, c)) if straight else ((b, c), (a, d))
        rest = max(map(abs, lost)) / max(1, min(map(abs, kept)))
        signs = [-1 if value < 0 else 1 for value in kept]
        return ((signs[0], 0, 0, signs[1]) if straight else (0, signs[0], signs[1], 0)), rest * 57.3
    return (1, 0, 0, 1), 0.0


def open_container(path: Path, options: dict[str, str]) -> InputContainer:
    """`av.open` for reading; tags that are no text do not matter (PyAV 19 has dropped the switch)."""
    extra: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
    # "file:" keeps a name such as "a:b.mp4" from being taken for a protocol.
    return av.open(f"file:{path}", "r", options=options, **extra)


def _open(path: Path, limits: DecodeLimits) -> InputContainer:
    options: dict[str, str] = {
        "protocol_whitelist": "file",
        "format_whitelist": ALLOWED_FORMATS,
        "codec_whitelist": ALLOWED_CODECS,
        "max_pixels": str(limits.max_pixels),
        "max_streams": "64",
    }
    av.logging.set_level(av.logging.ERROR)
    try:
        return open_container(path, options)
    except (FFmpegError, ValueError, OSError) as error:
        raise describe_unreadable(path, plain_reason(error)) from error


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
    streams: list[Any] = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        got = "only audio" if container.streams.audio else "no video stream"
        raise MediaError("a file with a video stream", f"{got} in {path.name}", "choose a video file")
    best: Any = container.streams.best("video")
    stream: Any = best if best in streams else streams[0]
    codec = stream.codec_context
    allowed = set(ALLOWED_CODECS.split(","))
    if codec is None or not {codec.name, codec.codec.name, codec.codec.canonical_name} & allowed:
        name = codec.codec.canonical_name if codec is not None else "of an unknown codec"
        raise MediaError(
            "a video codec that cameras, editors or the web use (H.264, HEVC, AV1, VP9, ProRes, FFV1, ...)",
            f"{name} in {path.name}",
            "convert it to H.264 first",
        )
    return stream
