"""`open_depth`: every format gives its numbers back, and every kind of damage is one clear error."""

import io
import sys
import tracemalloc
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from ex4d.errors import DepthError, InputError, MediaError, MissingDependencyError
from ex4d.io.depth.arrays import read_npy_header
from ex4d.io.depth.files import open_depth
from ex4d.io.depth.images import natural_key, read_depth_image
from ex4d.io.depth.raw import RawDepthClip

RNG = np.random.default_rng(3)
DEPTH = RNG.uniform(0.5, 4.0, (5, 12, 16)).astype(np.float32)


def read_all(clip: RawDepthClip) -> np.ndarray:
    return clip.read(0, clip.num_frames).values


def save(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
def test_npy_floats_of_any_width(tmp_path: Path, dtype: str) -> None:
    clip = open_depth(save(tmp_path / "d.npy", DEPTH.astype(dtype)))
    np.testing.assert_array_equal(read_all(clip), DEPTH.astype(dtype).astype(np.float32))
    assert (clip.kind, clip.scale, clip.num_frames) == ("depth", "relative", 5)


def test_integers_are_millimetres_and_it_is_said(tmp_path: Path) -> None:
    codes = (DEPTH * 1000).astype(np.uint16)
    path = save(tmp_path / "d.npy", codes)
    clip = open_depth(path)
    np.testing.assert_allclose(read_all(clip), codes / 1000, rtol=1e-6)
    assert clip.scale == "metric"
    assert any("millimetres" in notice for notice in clip.notices)
    tum = open_depth(path, scale=5000)
    np.testing.assert_allclose(read_all(tum), codes / 5000, rtol=1e-6)
    assert not any("millimetres" in notice for notice in tum.notices)


@pytest.mark.parametrize("shape", [(5, 1, 12, 16), (5, 12, 16, 1)])
def test_channel_axis_of_one(tmp_path: Path, shape: tuple[int, ...]) -> None:
    clip = open_depth(save(tmp_path / "d.npy", DEPTH.reshape(shape)))
    np.testing.assert_array_equal(read_all(clip), DEPTH)


def test_one_map_is_one_frame(tmp_path: Path) -> None:
    clip = open_depth(save(tmp_path / "d.npy", DEPTH[0]))
    assert (clip.num_frames, clip.height, clip.width) == (1, 12, 16)


@pytest.mark.parametrize("compress", [False, True])
def test_npz_reads_in_any_order(tmp_path: Path, compress: bool) -> None:
    path = tmp_path / "d.npz"
    (np.savez_compressed if compress else np.savez)(path, other=np.zeros(3), depths=DEPTH)
    clip = open_depth(path)
    for start, stop in [(3, 5), (0, 2), (1, 4)]:
        np.testing.assert_array_equal(clip.read(start, stop).values, DEPTH[start:stop])


@pytest.mark.parametrize(
    ("key", "name", "kind"),
    [
        ("depth", "x.npz", "depth"),
        ("disparities", "x.npz", "disparity"),
        ("arr_0", "clip_disp.npz", "disparity"),
        ("depth", "clip_disp.npz", "depth"),
        ("arr_0", "x.npz", "depth"),
    ],
)
def test_kind_from_names(tmp_path: Path, key: str, name: str, kind: str) -> None:
    arrays: dict[str, Any] = {key: DEPTH}
    np.savez(tmp_path / name, **arrays)
    assert open_depth(tmp_path / name).kind == kind
    assert open_depth(tmp_path / name, kind="disparity").kind == "disparity"


def test_cameras_in_an_archive_are_rebased(tmp_path: Path) -> None:
    K = np.array([[20.0, 0, 8], [0, 21, 6], [0, 0, 1]])
    poses = np.tile(np.eye(4), (5, 1, 1))
    poses[:, 0, 3] = np.arange(5) + 2.0
    np.savez(tmp_path / "d.npz", depth=DEPTH, intrinsic=K, cam_c2w=poses)
    clip = open_depth(tmp_path / "d.npz")
    assert clip.path is not None
    np.testing.assert_array_equal(clip.K, K)
    np.testing.assert_allclose(clip.path.center[:, 0], np.arange(5))
    chosen = clip.select(np.array([2, 4]), np.array([0.0, 0.1]))
    assert chosen.path is not None
    np.testing.assert_allclose(chosen.path.center[:, 0], [0, 2])
    np.testing.assert_array_equal(chosen.read(0, 2).values, DEPTH[[2, 4]])


@pytest.mark.parametrize(
    "extra",
    [
        {"K": np.eye(4)},
        {"K": np.full((3, 3), np.nan)},
        {"K": np.eye(3), "world_to_camera": np.zeros((5, 4, 4))},
        {"K": np.eye(3), "world_to_camera": np.tile(np.eye(4), (4, 1, 1))},
        {"K": np.eye(3) * [[-1], [1], [1]]},
    ],
)
def test_bad_cameras_in_an_archive(tmp_path: Path, extra: dict[str, Any]) -> None:
    np.savez(tmp_path / "d.npz", depth=DEPTH, **extra)
    with pytest.raises(InputError, match=r"d\.npz"):
        open_depth(tmp_path / "d.npz")


def test_png_folder_in_natural_order(tmp_path: Path) -> None:
    codes = RNG.integers(0, 65536, (12, 7, 9), dtype=np.uint16)
    for i, frame in enumerate(codes):
        Image.fromarray(frame).save(tmp_path / f"frame_{i}.png")
    clip = open_depth(tmp_path, scale=1)
    np.testing.assert_array_equal(read_all(clip), codes.astype(np.float32))
    assert natural_key("a9b") < natural_key("a10b")


def test_pgm_is_exact(tmp_path: Path) -> None:
    codes = RNG.integers(0, 5000, (7, 9), dtype=np.uint16)
    (tmp_path / "a.pgm").write_bytes(b"P5\n# made by a camera\n9 7\n5000\n" + codes.astype(">u2").tobytes())
    np.testing.assert_array_equal(read_depth_image(tmp_path / "a.pgm"), codes)


def test_exr_folder(tmp_path: Path) -> None:
    OpenEXR = pytest.importorskip("OpenEXR", reason="the extra `exr` is not installed")
    for i in range(2):
        OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION}, {"Z": DEPTH[i].copy()}).write(str(tmp_path / f"{i}.exr"))
    np.testing.assert_array_equal(read_all(open_depth(tmp_path)), DEPTH[:2])
    (tmp_path / "1.exr").write_bytes((tmp_path / "1.exr").read_bytes()[:200])
    with pytest.raises(DepthError, match=r"1\.exr"):
        read_all(open_depth(tmp_path))


def write_gray16(path: Path, codes: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(25))
        stream.height, stream.width = codes.shape[1:]
        stream.pix_fmt = "gray16le"
        for image in codes:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="gray16le")))
        container.mux(stream.encode())


def test_own_depth_video(tmp_path: Path) -> None:
    depth = np.where(RNG.uniform(size=(4, 16, 24)) > 0.1, RNG.uniform(2, 9, (4, 16, 24)), 0)
    codes = np.where(depth > 0, np.round(65535 * 2 / np.maximum(depth, 2)), 0).astype(np.uint16)
    path = tmp_path / "source_depth.mkv"
    write_gray16(path, codes)
    with pytest.raises(DepthError, match="--depth-kind"):
        open_depth(path)
    plain = open_depth(path, kind="disparity")
    np.testing.assert_array_equal(read_all(plain), codes)
    (tmp_path / "prior.json").write_text('{"z_min": {"source_depth": 2.0, "depth": 1.0}}')
    clip = open_depth(path)
    values = read_all(clip)
    np.testing.assert_array_equal(values > 0, depth > 0)
    np.testing.assert_allclose(values[depth > 0], depth[depth > 0], rtol=1e-4)
    np.testing.assert_allclose(clip.timestamps_s, np.arange(4) / 25)
    for text in ["{}", "[]", '{"z_min": -1}', "not json", '{"z_min": {"depth": 1}}']:
        (tmp_path / "prior.json").write_text(text)
        with pytest.raises(DepthError, match=r"prior\.json"):
            open_depth(path)


def npy_with_shape(shape: tuple[int, ...], payload: bytes) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return buffer.getvalue() + payload


def test_declared_size_is_checked_before_allocation(tmp_path: Path) -> None:
    bombs = {"tera.npy": (10**6, 8000, 8000), "wide.npy": (1, 10**6, 10**6), "negative.npy": (2, -3, 4)}
    for name, shape in bombs.items():
        (tmp_path / name).write_bytes(npy_with_shape(shape, b"\0" * 64))
        with pytest.raises(DepthError):
            open_depth(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("depth.npy", npy_with_shape((10**6, 8000, 8000), b"\0" * 1000))
    with pytest.raises(DepthError, match="truncated"):
        open_depth(tmp_path / "bomb.npz")


def test_a_header_bomb_is_not_inflated(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        length = 200 << 20
        with archive.open("depth.npy", "w", force_zip64=True) as member:
            member.write(b"\x93NUMPY\x02\x00" + length.to_bytes(4, "little"))
            for _ in range(20):
                member.write(b" " * (1 << 20))
    tracemalloc.start()
    with pytest.raises(DepthError, match="header"):
        open_depth(tmp_path / "bomb.npz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_streaming_keeps_memory_flat(tmp_path: Path) -> None:
    frames = np.ones((60, 120, 160), np.float32)
    np.savez_compressed(tmp_path / "d.npz", depth=frames)
    tracemalloc.start()
    clip = open_depth(tmp_path / "d.npz")
    for start in range(0, 60, 4):
        clip.read(start, start + 4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < frames.nbytes / 3


def test_damaged_arrays(tmp_path: Path) -> None:
    whole = save(tmp_path / "d.npy", DEPTH).read_bytes()
    for name, data in {
        "cut.npy": whole[:-10],
        "empty.npy": b"",
        "text.npy": b"hello",
        "text.npz": b"hello",
        "magic.npy": whole[:6],
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DepthError, match=name.replace(".", r"\.")):
            open_depth(tmp_path / name)
    np.savez_compressed(tmp_path / "z.npz", depth=DEPTH)
    data = bytearray((tmp_path / "z.npz").read_bytes())
    data[400:420] = bytes(20)
    (tmp_path / "z.npz").write_bytes(data)
    with pytest.raises(DepthError, match=r"z\.npz"):
        read_all(open_depth(tmp_path / "z.npz"))


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.array([{"a": 1}], object), "objects"),
        (np.zeros((2, 3, 4), bool), "dtype"),
        (np.zeros((2, 3, 4), np.complex64), "dtype"),
        (np.zeros((4, 3, 5, 5), np.float32), "shape"),
        (np.zeros(7, np.float32), "shape"),
        (np.zeros((0, 4, 4), np.float32), "at least one"),
        (np.asfortranarray(np.ones((2, 3, 4))), "C order"),
    ],
)
def test_arrays_that_are_not_depth(tmp_path: Path, array: np.ndarray, reason: str) -> None:
    np.save(tmp_path / "d.npy", array, allow_pickle=True)
    with pytest.raises(DepthError, match=reason):
        open_depth(tmp_path / "d.npy")


def test_an_archive_without_depth(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", image=DEPTH)
    with pytest.raises(DepthError, match="image"):
        open_depth(tmp_path / "d.npz")


def test_wrong_paths(tmp_path: Path) -> None:
    (tmp_path / "d.txt").write_text("1 2 3")
    (tmp_path / "empty").mkdir()
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "a.png").touch()
    (tmp_path / "mixed" / "a.exr").touch()
    for name in ["none.npz", "d.txt", "empty", "mixed"]:
        with pytest.raises(DepthError):
            open_depth(tmp_path / name)
    with pytest.raises(DepthError, match="scale"):
        open_depth(save(tmp_path / "d.npy", DEPTH), scale=0)


def test_damaged_images(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "gray8.png")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "rgb.png")
    Image.fromarray(RNG.integers(0, 65536, (64, 64), dtype=np.uint16)).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:3000])
    (tmp_path / "text.png").write_bytes(b"not a picture")
    (tmp_path / "text.pgm").write_bytes(b"P5 nothing")
    (tmp_path / "cut.pgm").write_bytes(b"P5 100 100 65535\n" + bytes(100))
    (tmp_path / "bomb.pgm").write_bytes(b"P5 99999999 99999999 65535\n")
    (tmp_path / "text.exr").write_bytes(b"not a picture")
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (60000).to_bytes(4, "big") * 2 + b"\x10\0\0\0\0"
    (tmp_path / "bomb.png").write_bytes(header + bytes(100))
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(DepthError, match=path.name.replace(".", r"\.")):
            read_depth_image(path)


def test_images_of_two_sizes(tmp_path: Path) -> None:
    for i, size in enumerate([(8, 8), (8, 9)]):
        Image.fromarray(np.ones(size, np.uint16)).save(tmp_path / f"{i}.png")
    with pytest.raises(DepthError, match="frame 1"):
        read_all(open_depth(tmp_path))


def test_a_video_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "d.mkv").write_bytes(b"nothing" * 100)
    with pytest.raises(MediaError):
        open_depth(tmp_path / "d.mkv", kind="disparity")


def test_header_versions(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="version"):
        read_npy_header(io.BytesIO(b"\x93NUMPY\x03\x00" + bytes(20)))


def test_exr_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    (tmp_path / "0.exr").write_bytes(b"any")
    with pytest.raises(MissingDependencyError, match=r"ex4d\[exr\]"):
        open_depth(tmp_path)
