"""Tiny media files for the tests, made with PyAV."""

import struct
import zlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

MILLISECOND = Fraction(1, 1000)


def gradient(num: int = 8, height: int = 48, width: int = 64) -> np.ndarray:
    """uint8 [T,H,W,3]: smooth, different in every frame, no symmetry."""
    t, y, x = np.mgrid[0:num, 0:height, 0:width].astype(np.float64)
    red, green, blue = 255 * x / width, 255 * y / height, 40 + 20 * t + 0 * x
    return np.clip(np.stack([red, green, blue], -1), 0, 255).astype(np.uint8)


def frame_of(planes: Sequence[np.ndarray], pix_fmt: str) -> av.VideoFrame:
    """A frame from its planes [h,w] of uint8 or uint16."""
    frame = av.VideoFrame(planes[0].shape[1], planes[0].shape[0], pix_fmt)
    for plane, values in zip(frame.planes, planes, strict=True):
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)  # type: ignore[call-overload]
        data = np.ascontiguousarray(values).view(np.uint8)
        rows[:, : data.shape[1]] = data
    return frame


def write_clip(
    path: Path,
    frames: Sequence[av.VideoFrame] | np.ndarray,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    times_ms: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    tags: dict[str, Any] | None = None,
    audio: str | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Write frames (or uint8 [T,H,W,3]) at 25 fps or at given times; `tags` are attributes of the codec context."""
    if isinstance(frames, np.ndarray):
        frames = [av.VideoFrame.from_ndarray(image, format="rgb24") for image in frames]
    times = list(times_ms) if times_ms is not None else [40 * index for index in range(len(frames))]
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream: Any = container.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, pix_fmt
        # AVI has no timestamps: it counts frames.
        tick = Fraction(1, 25) if path.suffix == ".avi" else MILLISECOND
        stream.codec_context.time_base = tick
        for name, value in (tags or {}).items():
            if name == "rotation":
                stream.set_display_rotation(value)
            else:
                setattr(stream.codec_context, name, value)
        sound = _add_tone(container, audio, times[-1] + 40) if audio else None
        for frame, time_ms in zip(frames, times, strict=True):
            frame.pts, frame.time_base = round(time_ms * MILLISECOND / tick), tick
            for name in ("colorspace", "color_range", "color_trc", "color_primaries"):
                setattr(frame, name, (tags or {}).get(name, 2 if name != "color_range" else 0))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            sound()
    return path


def _add_tone(container: Any, codec: str, length_ms: int) -> Any:
    stream = container.add_stream(codec, rate=48000)
    stream.layout = "mono"

    def write() -> None:
        count = 48 * length_ms
        wave = (0.3 * np.sin(np.arange(count) * 2 * np.pi * 440 / 48000)).astype(np.float32)
        packed = stream.codec_context.format.name if stream.codec_context.format else "fltp"
        data = wave if packed.startswith("flt") else (wave * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(
            data[None], format=packed if packed in ("flt", "fltp") else "s16", layout="mono"
        )
        frame.sample_rate, frame.pts = 48000, 0
        fifo = av.AudioFifo()
        fifo.write(frame)
        size = stream.codec_context.frame_size or 1024
        while (block := fifo.read(size, True)) is not None:
            container.mux(stream.encode(block))
        container.mux(stream.encode(None))

    return write


def write_audio_only(path: Path, codec: str = "aac") -> Path:
    """A second of sound without a picture."""
    with av.open(str(path), "w") as container:
        _add_tone(container, codec, 1000)()
    return path


def bomb_png(side: int = 16384) -> bytes:
    """A valid gray PNG of side x side zeros in a few dozen kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = b"\0" * (side // 8 + 1)
    body = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def patch_track_matrix(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Write (a, b, c, d) into the track header of an mp4: x' = a x + c y, y' = b x + d y (ISO 14496-12, 8.3.2)."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4
    assert data[at] == 0, "version 0 track header"
    a, b, c, d = (value * 65536 for value in matrix)
    data[at + 40 : at + 76] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path
