"""Mutated depth files and recordings: an answer or one of our errors, never anything else."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ex4d.errors import Ex4dError
from ex4d.io.depth.files import open_depth
from ex4d.io.rgbd.folder import open_rgbd

DEPTH = np.random.default_rng(0).uniform(1, 4, (3, 8, 10)).astype(np.float32)
ROUNDS = 60


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip, cut, repeat or overwrite a few bytes."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(0, max(len(out), 1)))
        match int(rng.integers(0, 4)):
            case 0 if out:
                out[at] ^= int(rng.integers(1, 256))
            case 1:
                del out[at:]
            case 2:
                out[at:at] = out[at : at + 16]
            case _:
                out[at : at + 4] = rng.integers(0, 256, 4, dtype=np.uint8).tobytes()
    return bytes(out)


def write_npz(path: Path) -> None:
    np.savez(path, depth=DEPTH, K=np.eye(3), camera_to_world=np.tile(np.eye(4), (3, 1, 1)))


def write_npz_small(path: Path) -> None:
    np.savez_compressed(path, disparity=DEPTH)


def write_npy(path: Path) -> None:
    np.save(path, DEPTH)


def write_png(path: Path) -> None:
    Image.fromarray((DEPTH[0] * 1000).astype(np.uint16)).save(path)


def write_pgm(path: Path) -> None:
    path.write_bytes(b"P5\n10 8\n65535\n" + (DEPTH[0] * 1000).astype(">u2").tobytes())


def write_exr(path: Path) -> None:
    OpenEXR = pytest.importorskip("OpenEXR", reason="the extra `exr` is not installed")
    OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION}, {"Z": DEPTH[0].copy()}).write(str(path))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.npz", write_npz),
        ("b.npz", write_npz_small),
        ("a.npy", write_npy),
        ("a.png", write_png),
        ("a.pgm", write_pgm),
        ("a.exr", write_exr),
    ],
)
def test_mutated_depth_files(tmp_path: Path, name: str, write: Callable[[Path], None]) -> None:
    path = tmp_path / name
    write(path)
    data = path.read_bytes()
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(ROUNDS):
        path.write_bytes(mutate(data, rng))
        try:
            clip = open_depth(path)
            clip.read(0, clip.num_frames)
        except Ex4dError:
            refused += 1
    assert refused > 0


def write_recording(folder: Path) -> list[Path]:
    """A Record3D export, a 7-Scenes folder and a TUM sequence; returns their text files."""
    for i in range(3):
        for name in (f"r3d/rgbd/{i}.png", f"seven/f-{i}.color.png", f"tum/rgb/{i}.png"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((8, 10, 3), np.uint8)).save(folder / name)
        for name in (f"r3d/depth/{i}.png", f"seven/f-{i}.depth.png", f"tum/depth/{i}.png"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_png(folder / name)
        np.savetxt(folder / f"seven/f-{i}.pose.txt", np.eye(4))
    content = {"K": [9, 0, 0, 0, 9, 0, 5, 4, 1], "poses": [[0, 0, 0, 1, 0, 0, i] for i in range(3)], "fps": 30}
    (folder / "r3d/metadata.json").write_text(json.dumps(content))
    for name in ("rgb", "depth"):
        (folder / f"tum/{name}.txt").write_text("".join(f"{i / 30:.4f} {name}/{i}.png\n" for i in range(3)))
    (folder / "tum/groundtruth.txt").write_text("".join(f"{i / 30:.4f} {i} 0 0 0 0 0 1\n" for i in range(3)))
    np.savetxt(folder / "seven/camera-intrinsics.txt", np.diag([9.0, 9, 1]))
    return [folder / "r3d/metadata.json", *sorted(folder.glob("tum/*.txt")), *sorted(folder.glob("seven/*.txt"))]


def test_mutated_recordings(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    refused = 0
    for text in write_recording(tmp_path):
        data = text.read_bytes()
        for _ in range(ROUNDS // 2):
            text.write_bytes(mutate(data, rng))
            try:
                rgbd = open_rgbd(text.parent)
                rgbd.depth.read(0, rgbd.depth.num_frames)
                rgbd.video.read(0, rgbd.video.num_frames)
            except Ex4dError:
                refused += 1
        text.write_bytes(data)
        open_rgbd(text.parent)
    assert refused > 50
