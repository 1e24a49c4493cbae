"""Small random frames, depths and cameras for tests."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from ex4d.core.arrays import Float64
from ex4d.core.camera import Camera, pinhole
from ex4d.core.geometry import look_at

_DTYPES = {"F32": "<f4", "F64": "<f8", "I32": "<i4", "I64": "<i8", "U8": "u1", "BOOL": "?"}


def source_camera(height: int, width: int, focal_px: float | None = None) -> Camera:
    """A camera at the world origin."""
    k = pinhole(focal_px=focal_px or 0.9 * max(height, width), height=height, width=width)
    return Camera(K=k, world_to_camera=np.eye(4), height=height, width=width)


def orbit_camera(source: Camera, yaw_deg: float, radius: float) -> Camera:
    """The source camera after an orbit to the right about (0, 0, radius)."""
    yaw = np.radians(yaw_deg)
    eye = np.array([radius * np.sin(yaw), 0.0, radius - radius * np.cos(yaw)])
    matrix = look_at(eye, np.array([0.0, 0.0, radius]))
    return Camera(K=source.K, world_to_camera=matrix, height=source.height, width=source.width)


def random_rgbd(seed: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A textured ramp with discs in front: frame uint8 [H,W,3], depth float32 [H,W], valid bool [H,W]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    depth = 1 / (0.15 + 0.5 * y)
    for _ in range(5):
        cy, cx, radius = rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.9), rng.uniform(0.08, 0.25)
        inside = (x - cx) ** 2 + (y - cy) ** 2 < radius**2
        depth[inside] = rng.uniform(1.0, 2.5)
    frame = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    valid = rng.uniform(size=(height, width)) > 0.05
    return frame, np.where(valid, depth, 0).astype(np.float32), valid


def load_safetensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a safetensors file as NumPy arrays."""
    with path.open("rb") as file:
        header: dict[str, Any] = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        data = file.read()
    return {
        name: np.frombuffer(data[slice(*entry["data_offsets"])], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in header.items()
        if name != "__metadata__"
    }


def rotation_error_deg(a: Float64, b: Float64) -> float:
    """Angle between two rotations float64 [3,3]."""
    return float(np.degrees(np.arccos(np.clip((np.trace(a.T @ b) - 1) / 2, -1, 1))))
