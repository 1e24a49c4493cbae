"""Mutated camera files: an `Ex4dError` or cameras, never another exception and never a long wait."""

import time
from pathlib import Path

import numpy as np
import pytest

from ex4d.core.camera import CameraPath
from ex4d.core.rotations import quaternion_to_matrix
from ex4d.errors import Ex4dError
from ex4d.io.cameras.files import CameraFileKind, read_cameras, write_cameras

KINDS: tuple[CameraFileKind, ...] = ("json", "npz", "colmap-text", "colmap-binary", "nerfstudio", "blender-json")
NAMES = {"json": "c.json", "npz": "c.npz", "nerfstudio": "transforms.json", "blender-json": "blender.json"}
MAX_SECONDS = 5.0
WORDS = (b"NaN", b"1e999", b"-1", b"null", b'"x"', b"[]", b"{}", b"9" * 5000, b"[" * 3000, b"\xff\xfe", b"true", b"")


def _mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """One to three of: cut, flip bytes, put a hostile word in, repeat or drop a stretch, huge little-endian count."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        start = int(rng.integers(0, len(out) + 1))
        stop = min(len(out), start + int(rng.integers(1, 40)))
        match int(rng.integers(0, 6)):
            case 0:
                del out[start:]
            case 1:
                for i in range(start, min(stop, start + 4)):
                    out[i] ^= 1 << int(rng.integers(0, 8))
            case 2:
                out[start:stop] = WORDS[int(rng.integers(0, len(WORDS)))]
            case 3:
                out[start:start] = out[start:stop] * int(rng.integers(1, 20))
            case 4:
                del out[start:stop]
            case _:
                out[start : start + 8] = b"\xff" * 7 + b"\x7f"
    return bytes(out)


def _fuzz(folder: Path, first_seed: int, count: int) -> tuple[int, int]:
    """(refused, accepted)."""
    rng = np.random.default_rng(5)
    matrices = np.repeat(np.eye(4)[None], 5, axis=0)
    matrices[:, :3, :3] = quaternion_to_matrix(rng.normal(size=(5, 4)))
    K = np.repeat(np.array([[50.0, 0, 32], [0, 50, 24], [0, 0, 1]])[None], 5, axis=0)
    path = CameraPath(K=K, world_to_camera=matrices, source_index=np.arange(5), height=48, width=64)
    accepted = 0
    for seed in range(first_seed, first_seed + count):
        rng = np.random.default_rng(seed)
        kind = KINDS[seed % len(KINDS)]
        target = folder / f"{seed}" / NAMES.get(kind, "model")
        target.parent.mkdir()
        write_cameras(target, path, kind=kind)
        files = sorted(f for f in (target.iterdir() if target.is_dir() else [target]) if "points" not in f.name)
        victim = files[int(rng.integers(0, len(files)))]
        victim.write_bytes(_mutate(victim.read_bytes(), rng))
        began = time.monotonic()
        try:
            read_cameras(target, height=48, width=64, rebase=bool(seed % 2))
            accepted += 1
        except Ex4dError as error:
            text = str(error)
            assert 10 < len(text) < 1200, f"seed {seed}: {text}"
            assert "\n" not in text, f"seed {seed}: {text}"
        assert time.monotonic() - began < MAX_SECONDS, f"seed {seed}"
    return count - accepted, accepted


def test_sixty_mutated_files(tmp_path: Path) -> None:
    refused, accepted = _fuzz(tmp_path, 0, 60)
    assert refused > 30  # the mutations do break things
    assert accepted > 0  # and not everything is refused out of hand


@pytest.mark.prove
def test_three_hundred_mutated_files(tmp_path: Path) -> None:
    refused, _ = _fuzz(tmp_path, 1000, 300)
    assert refused > 150
