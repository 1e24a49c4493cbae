"""Tiny clips with texture that moves, and what a prepared folder holds."""

import hashlib
from fractions import Fraction
from pathlib import Path

import numpy as np

from ex4d.io.encode_delivery import DeliveryWriter
from ex4d.prepare.config import BucketConfig, GateConfig, PrepareConfig, SampleConfig

HEIGHT, WIDTH, FPS = 48, 64, 8
BUCKET = "5x48x64"


def picture(seed: int, height: int = 2 * HEIGHT, width: int = 4 * WIDTH) -> np.ndarray:
    """uint8 [H,W,3]: smooth texture in colours of its own, without symmetry."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    base = rng.uniform(60, 190, 3)
    out = np.broadcast_to(base, (height, width, 3)).copy()
    for _ in range(24):
        wave = np.sin(x * rng.uniform(-0.5, 0.5) + y * rng.uniform(-0.5, 0.5) + rng.uniform(0, 6))
        out += wave[..., None] * rng.uniform(-16, 16, 3)
    return np.clip(out, 0, 255).astype(np.uint8)


def pan(seed: int, count: int, step_px: float = 2.0) -> np.ndarray:
    """uint8 [T,48,64,3]: a window that moves over a picture, whole pixels a frame."""
    wide = picture(seed)
    starts = [round(step_px * k) for k in range(count)]
    return np.stack([wide[20 : 20 + HEIGHT, 10 + x : 10 + x + WIDTH] for x in starts])


def write_clip(path: Path, frames: np.ndarray) -> Path:
    """H.264 at 8 frames a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with DeliveryWriter(path, height=frames.shape[1], width=frames.shape[2], fps=Fraction(FPS)) as writer:
        writer.write(frames, np.arange(len(frames)) / FPS)
    return path


def small_config(**sample: object) -> PrepareConfig:
    """Three clips a shard, five frames a sample, depth without a look at the picture."""
    return PrepareConfig(
        items_per_shard=3,
        buckets=BucketConfig(buckets=(BUCKET,)),
        gates=GateConfig(),
        sample=SampleConfig(**{"depth": "layout", "num_masks": 2, **sample}),  # pyright: ignore[reportArgumentType]
    )


def tree(folder: Path) -> dict[str, str]:
    """Name → SHA-256 of every file but timings.json."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "timings.json"
    }
