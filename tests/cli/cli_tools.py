"""A tiny clip with depth, and a command run in this process."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ex4d.cli.main import main
from ex4d.io.encode_delivery import DeliveryWriter
from ex4d.pipeline.workspace import WORK_FOLDER

HEIGHT, WIDTH, NUM_FRAMES = 32, 48, 4


@dataclass(frozen=True)
class Outcome:
    """What a command left on the terminal."""

    code: int
    out: str
    err: str


def ex4d(capsys: pytest.CaptureFixture[str], *words: str | Path) -> Outcome:
    """Run the command in this process."""
    capsys.readouterr()
    code = main([str(word) for word in words])
    seen = capsys.readouterr()
    return Outcome(code, seen.out, seen.err)


def write_clip(path: Path, num_frames: int = NUM_FRAMES) -> Path:
    """A bright square that moves over a gradient."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    frames = np.empty((num_frames, HEIGHT, WIDTH, 3), np.uint8)
    frames[:] = np.stack([4 * x, 6 * y, 100 + 0 * x], axis=2).astype(np.uint8)
    for i, frame in enumerate(frames):
        frame[10:20, 10 + 2 * i : 20 + 2 * i] = (250, 240, 60)
    with DeliveryWriter(path, height=HEIGHT, width=WIDTH, fps=Fraction(24)) as writer:
        writer.write(frames, np.arange(num_frames) / 24)
    return path


def depth_maps(num_frames: int = NUM_FRAMES) -> np.ndarray:
    """float32 [T,H,W]: the square of `write_clip` stands before a wall."""
    depth = np.full((num_frames, HEIGHT, WIDTH), 4.0, np.float32)
    for i, one in enumerate(depth):
        one[10:20, 10 + 2 * i : 20 + 2 * i] = 2.0
    return depth


def write_depth(path: Path, depth: np.ndarray | None = None) -> Path:
    """An npz with one array, `depth`."""
    np.savez(path, depth=depth_maps() if depth is None else depth)
    return path


def snapshot(folder: Path, *, skip: Sequence[str] = ()) -> dict[str, str]:
    """Name → SHA-256 of every file in a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in skip
    }


def assert_published(folder: Path) -> None:
    """A finished run leaves no work folder and no temporary file."""
    assert not (folder / WORK_FOLDER).exists()
    assert not list(folder.rglob(".*"))
