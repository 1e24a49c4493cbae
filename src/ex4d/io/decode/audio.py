"""Inside the worker: the sound of a file rewritten as a clean mp4 that the parent can copy from."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError

from ex4d.io.decode.limits import ALLOWED_AUDIO_CODECS, ALLOWED_CODECS, ALLOWED_FORMATS
from ex4d.io.decode.media import open_container, plain_reason
from ex4d.io.decode.sniff import describe_unreadable

# What players accept inside an mp4.
_COPIED = {"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"}
_AAC_BITS_PER_S = 192_000


def extract_audio(
    path: Path, out: Path, *, start_s: float, end_s: float | None, on_progress: Callable[[int], None]
) -> list[str]:
    """Write the audio streams of `path` to `out` (mp4), time `start_s` becoming 0; nothing if there are none.

    Args:
        path: an existing file.
        out: where to; made by the worker itself.
        start_s: first time kept, seconds from the first video frame.
        end_s: end of the times kept; None = all.
        on_progress: told the number of packets written so far.

    Returns:
        notices.

    Raises:
        MediaError: the file is not readable.
    """
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": ALLOWED_FORMATS,
        "codec_whitelist": f"{ALLOWED_CODECS},{ALLOWED_AUDIO_CODECS}",
    }
    try:
        with open_container(path, options) as source:
            if not source.streams.audio:
                return []
            return _rewrite(source, out, start_s, end_s, on_progress)
    except (FFmpegError, ValueError) as error:
        raise describe_unreadable(path, plain_reason(error)) from error


def _rewrite(
    source: Any, out: Path, start_s: float, end_s: float | None, on_progress: Callable[[int], None]
) -> list[str]:
    notices: list[str] = []
    origin_s = start_s + _video_start_s(source)
    with av.open(f"file:{out}", "w", format="mp4", options={"fflags": "+bitexact"}) as sink:
        tracks = {stream.index: track for stream in source.streams.audio if (track := _track(stream, sink, notices))}
        count = 0
        for packet in _packets(source, tracks, notices):
            time_s = float(packet.pts * packet.time_base) - origin_s
            if (time_s < -1e-9 and start_s > 0) or (end_s is not None and time_s >= end_s - start_s):
                continue
            tracks[packet.stream.index].take(packet, origin_s)
            count += 1
            on_progress(count)
        for track in tracks.values():
            track.finish()
    if not count:
        out.unlink()
    return notices


def _video_start_s(source: Any) -> float:
    """Time of the first video frame, which is time 0 for us."""
    for stream in source.streams.video:
        if stream.start_time is not None:
            return float(stream.start_time * stream.time_base)
    return 0.0


def _packets(source: Any, tracks: dict[int, Any], notices: list[str]) -> Iterator[Any]:
    try:
        for packet in source.demux([stream for stream in source.streams.audio if stream.index in tracks]):
            if packet.pts is not None and packet.size:
                yield packet
    except (FFmpegError, ValueError) as error:
        notices.append(f"the sound is damaged and ends early ({plain_reason(error)})")


def _track(stream: Any, sink: Any, notices: list[str]) -> Any:
    codec = stream.codec_context
    name = codec.codec.canonical_name if codec is not None else "unknown"
    if name in _COPIED:
        return _Copy(stream, sink)
    if codec is None or name not in ALLOWED_AUDIO_CODECS.split(","):
        notices.append(f"a sound track of the codec {name!r} was left out")
        return None
    notices.append(f"the sound was converted from {name} to AAC: an mp4 cannot hold it as it is")
    return _Transcode(stream, sink)


class _Copy:
    """Packets as they are, moved in time."""

    def __init__(self, stream: Any, sink: Any) -> None:
        self._sink, self._stream = sink, sink.add_stream_from_template(stream)

    def take(self, packet: Any, origin_s: float) -> None:
        shift = round(origin_s / float(packet.time_base))
        packet.pts -= shift
        packet.dts = packet.pts if packet.dts is None else packet.dts - shift
        packet.stream = self._stream
        self._sink.mux_one(packet)

    def finish(self) -> None:
        """Nothing is held back."""


class _Transcode:
    """Decoded and encoded again as AAC."""

    def __init__(self, stream: Any, sink: Any) -> None:
        rate = stream.codec_context.sample_rate
        self._sink, self._stream = sink, sink.add_stream("aac", rate=rate)
        self._stream.bit_rate = _AAC_BITS_PER_S
        self._stream.layout = "stereo" if stream.codec_context.channels > 1 else "mono"
        self._resampler = av.AudioResampler(format="fltp", layout=self._stream.layout, rate=rate)
        self._fifo = av.AudioFifo()
        self._rate = rate
        self._start: int | None = None
        self._written = 0

    def take(self, packet: Any, origin_s: float) -> None:
        if self._start is None:
            self._start = round((float(packet.pts * packet.time_base) - origin_s) * self._rate)
        for frame in packet.decode():
            self._push(frame)

    def finish(self) -> None:
        self._push(None)
        self._drain(partial=True)
        self._sink.mux(self._stream.encode(None))

    def _push(self, frame: Any) -> None:
        for out in self._resampler.resample(frame):
            out.pts = None
            self._fifo.write(out)
        self._drain(partial=False)

    def _drain(self, *, partial: bool) -> None:
        size = self._stream.codec_context.frame_size or 1024
        while (block := self._fifo.read(size, partial)) is not None:
            block.pts = (self._start or 0) + self._written
            block.time_base = Fraction(1, self._rate)
            self._written += block.samples
            self._sink.mux(self._stream.encode(block))
