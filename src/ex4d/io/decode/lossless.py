"""Inside the worker: one of our own FFV1 intermediates, every frame of which can be read alone."""

import array
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame

from ex4d.errors import MediaError
from ex4d.io.decode.header import media_header
from ex4d.io.decode.limits import DecodeLimits
from ex4d.io.decode.media import MediaSource, plain_reason
from ex4d.io.decode.protocol import FrameHeader

_REMAKE = "make the folder again: the stream was cut off, damaged, or not written by ex4d"
# Decoding this many frames to throw them away is cheaper than a seek.
_MAX_SKIPPED = 2


class LosslessSource:
    """Random access to an FFV1 stream.

    Args:
        path: an existing file; it may come from a stranger.
        limits: bounds.
        layout: the pixel format that must be inside.
        on_progress: told the number of packets indexed so far, for each of them.

    Raises:
        MediaError: anything but a readable FFV1 stream of that layout.
    """

    def __init__(self, path: Path, limits: DecodeLimits, layout: str, *, on_progress: Callable[[int], None]) -> None:
        self._path = path
        self._source = MediaSource(path, limits, strict=True)
        codec = self._source.stream.codec_context.codec.canonical_name
        if codec != "ffv1":
            raise MediaError("an FFV1 stream", f"{codec} in {path.name}", _REMAKE)
        self._pts: list[int] = []
        # Ours are all key frames; a stranger's FFV1 may not be, and is then decoded from the key frame before.
        self._key_before: list[int] = []
        self._index(limits, on_progress)
        time_base = self._source.stream.time_base
        assert time_base is not None
        self.times = array.array("d", [float(pts * time_base) for pts in self._pts])
        self._source.decoder_complained()  # what was said while opening does not count
        self._rewind(0)
        first = self._next()
        if first.format.name != layout:
            raise MediaError(f"{layout} frames", f"{first.format.name} in {path.name}", _REMAKE)
        header = media_header(self._source, first)
        plain = {"orientation": (1, 0, 0, 1), "sample_aspect": 1.0, "transfer": "sdr", "primaries": "bt709"}
        self.header: FrameHeader = dataclasses.replace(
            header, layout=layout, stride=first.planes[0].line_size, num_planes=1, full_range=True, **plain
        )
        self._rewind(0)

    def frames(self, start: int, stop: int) -> Iterator[tuple[float, VideoFrame]]:
        """Yield (time in s, frame) of frames ``start:stop``."""
        if not 0 <= start <= stop <= len(self._pts):
            raise MediaError(f"frames within 0:{len(self._pts)}", f"{start}:{stop} of {self._path.name}")
        if not 0 <= start - self._position <= _MAX_SKIPPED:
            self._rewind(start)
        while self._position < stop:
            index = self._position
            frame = self._next()
            if index >= start:
                yield self.times[index], frame

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def _index(self, limits: DecodeLimits, on_progress: Callable[[int], None]) -> None:
        """Note the times (in the stream's ticks) and key frames, by reading but not decoding."""
        pts = self._pts
        for packet in self._packets():
            if packet.pts is None or (pts and packet.pts <= pts[-1]):
                raise MediaError("increasing timestamps", f"others at frame {len(pts)} of {self._path.name}", _REMAKE)
            self._key_before.append(len(pts) if packet.is_keyframe or not pts else self._key_before[-1])
            pts.append(packet.pts)
            on_progress(len(pts))
            if len(pts) > limits.max_frames:
                raise MediaError(f"at most {limits.max_frames} frames", f"more in {self._path.name}", _REMAKE)
        if not pts:
            raise MediaError("at least one frame", f"none in {self._path.name}", _REMAKE)

    def _packets(self) -> Iterator[Packet]:
        try:
            for packet in self._source.container.demux(self._source.stream):
                if packet.size:  # the last, empty one only flushes decoders
                    yield packet
        except (FFmpegError, ValueError) as error:
            raise self._damaged(0, plain_reason(error)) from error

    def _rewind(self, index: int) -> None:
        """Go to frame `index`, or to the key frame that its decoding has to begin at."""
        self._position = self._key_before[index]
        try:
            self._source.container.seek(self._pts[self._position], stream=self._source.stream, backward=True)
        except (FFmpegError, ValueError) as error:
            raise self._damaged(index, plain_reason(error)) from error
        self._stream_packets = self._packets()

    def _next(self) -> VideoFrame:
        """Decode the frame at the current position; a seek may have landed a little before it."""
        index = self._position
        for packet in self._stream_packets:
            if packet.pts is None or packet.pts < self._pts[index]:
                continue
            if packet.pts != self._pts[index]:
                break
            try:
                frames = packet.decode()
            except (FFmpegError, ValueError) as error:
                raise self._damaged(index, plain_reason(error)) from error
            if self._source.decoder_complained():
                raise self._damaged(index, "a checksum does not match")
            if len(frames) != 1:
                break
            frame = frames[0]
            assert isinstance(frame, VideoFrame)
            self._source.check_frame(frame)
            self._position += 1
            return frame
        raise self._damaged(index, "the frame is not where the index says")

    def _damaged(self, index: int, reason: str) -> MediaError:
        return MediaError("a whole stream", f"{self._path.name}, damaged at frame {index} ({reason})", _REMAKE)
