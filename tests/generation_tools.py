"""Tiny views, priors and settings for tests of generation; nothing here needs weights or a GPU."""

import os
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: spinning threads steal other workers' cores

from ex4d.core.arrays import Float64, UInt8
from ex4d.depth.result import DepthConfig
from ex4d.io.encode_delivery import DeliveryWriter
from ex4d.model.config import GenerateConfig
from ex4d.pipeline.config import CameraConfig, RunConfig
from ex4d.pipeline.run import run

NUM, HEIGHT, WIDTH = 12, 32, 48
"""Of the clips: two windows of 9 frames that share 5."""


def tiny_config(**changes: Any) -> GenerateConfig:
    """The miniature at its smallest."""
    values: dict[str, Any] = {"weights": "tiny", "size": "32x32", "steps": 1, "window_frames": 9, "overlap_frames": 5}
    return GenerateConfig(**{**values, **changes})


def picture_frames(num_frames: int = NUM, height: int = HEIGHT, width: int = WIDTH) -> UInt8:
    """A bright square that moves over a gradient, uint8 [T,H,W,3]."""
    y, x = np.mgrid[0:height, 0:width]
    gradient = np.stack([255 * x / width, 255 * y / height, 100 + 0 * x], axis=2).astype(np.uint8)
    frames = np.repeat(gradient[None], num_frames, axis=0)
    for i, frame in enumerate(frames):
        frame[8:16, 4 + 2 * (i % 12) : 12 + 2 * (i % 12)] = (250, 240, 60)
    return frames


def write_video(path: Path, frames: UInt8, *, fps: Fraction = Fraction(24), sound: bool = False) -> Path:
    """An H.264 file, with a tone if asked."""
    tone = _write_tone(path.with_suffix(".m4a"), len(frames) / float(fps)) if sound else None
    height, width = frames.shape[1:3]
    with DeliveryWriter(path, height=height, width=width, fps=fps, audio_from=tone) as writer:
        writer.write(frames, np.arange(len(frames)) / float(fps))
    return path


def _write_tone(path: Path, seconds: float) -> Path:
    wave = (9000 * np.sin(np.arange(int(44100 * seconds)) / 15)).astype(np.int16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        for start in range(0, len(wave), 1024):
            frame = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], format="s16", layout="mono")
            frame.sample_rate, frame.pts = 44100, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def make_prior(folder: Path, num_frames: int = NUM, *, fps: Fraction = Fraction(24), sound: bool = False) -> Path:
    """A prior folder ``prior`` of a clip ``clip.mp4`` beside it."""
    clip = write_video(folder / "clip.mp4", picture_frames(num_frames), fps=fps, sound=sound)
    depth = np.full((num_frames, HEIGHT, WIDTH), 4.0, np.float32)
    for i, one in enumerate(depth):
        one[8:16, 4 + 2 * (i % 12) : 12 + 2 * (i % 12)] = 2.0
    np.savez(folder / "depth.npz", depth=depth)
    config = RunConfig(
        input=str(clip),
        depth=DepthConfig(depth=str(folder / "depth.npz")),
        camera=CameraConfig(cam=("orbit-right:20",)),
        generator="none",
    )
    run(config, folder / "prior")
    return folder / "prior"


class ArrayView:
    """A target view in memory: the right third is never observed."""

    def __init__(self, num_frames: int = NUM, height: int = HEIGHT, width: int = WIDTH) -> None:
        self.num_frames, self.height, self.width = num_frames, height, width
        self.timestamps_s: Float64 = np.arange(num_frames) / 24
        self._mask = np.full((num_frames, height, width), 255, np.uint8)
        self._mask[:, :, 2 * width // 3 :] = 0
        self._rgb = picture_frames(num_frames, height, width) * (self._mask[..., None] > 0)

    def read(self, start: int, stop: int) -> tuple[UInt8, UInt8]:
        return self._rgb[start:stop].copy(), self._mask[start:stop].copy()


@dataclass
class Heard:
    """A reporter that remembers; raises `stop` at the given count of `advance` of a stage."""

    stop: BaseException | None = None
    stop_in: tuple[str, int] = ("generate", 2)
    notes: list[str] = field(default_factory=list)
    stages: list[tuple[str, int | None, str]] = field(default_factory=list)
    done: dict[str, int] = field(default_factory=dict)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def begin(self, stage: str, total: int | None, unit: str = "frames") -> None:
        self.stages.append((stage, total, unit))

    def advance(self, count: int = 1) -> None:
        stage = self.stages[-1][0]
        self.done[stage] = self.done.get(stage, 0) + count
        if self.stop is not None and (stage, self.done[stage]) == self.stop_in:
            raise self.stop

    def end(self) -> None: ...


def contents(folder: Path) -> dict[str, bytes]:
    """Name → bytes of every file but timings.json."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "timings.json"
    }
