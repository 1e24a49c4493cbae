"""Depth files that are written here and read back by `open_depth`."""

import json
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ex4d.core.camera import CameraPath, pinhole, static_path
from ex4d.core.clip import iter_chunks
from ex4d.core.depth import DepthVideo
from ex4d.core.depth_codes import encode_depth
from ex4d.errors import DepthError, MissingDependencyError, OutputError
from ex4d.io.depth.files import open_depth
from ex4d.io.depth.video import read_z_min, write_z_min
from ex4d.io.depth.write import npz_depth, write_exr_depth
from ex4d.io.encode import LosslessWriter
from ex4d.scene.clip import scene_clip
from ex4d.scene.generate import make_scene

NUM, HEIGHT, WIDTH = 5, 24, 32


@pytest.fixture(scope="module")
def scene() -> tuple[DepthVideo, CameraPath]:
    """Depth with holes, and the moving cameras it belongs to, the first of them at the origin."""
    clip = scene_clip(make_scene(0), num_frames=NUM, fps=24.0, height=HEIGHT, width=WIDTH, camera_motion="dolly")
    chunk = clip.depth.read(0, NUM)
    valid = chunk.valid.copy()
    valid[:, 3:6, 7:12] = False
    video = DepthVideo(
        depth=np.where(valid, chunk.depth, np.float32(9)), valid=valid, timestamps_s=chunk.timestamps_s, scale="metric"
    )
    return video, clip.path


def write(
    path: Path, video: DepthVideo, cameras: CameraPath, spans: Sequence[tuple[int, int]] = ((0, 2), (2, NUM))
) -> None:
    with npz_depth(path, cameras=cameras, timestamps_s=video.timestamps_s, scale=video.scale) as append:
        for start, stop in spans:
            append(video.slice(start, stop))


def test_npz_reads_back_to_the_same_depth_and_cameras(scene: tuple[DepthVideo, CameraPath], tmp_path: Path) -> None:
    video, cameras = scene
    write(tmp_path / "depth.npz", video, cameras)
    read = open_depth(tmp_path / "depth.npz", timestamps_s=video.timestamps_s)
    assert read.kind == "depth"
    for frame in (4, 0, 2):  # not compressed: any order
        values = read.read(frame, frame + 1).values[0]
        assert np.array_equal(values, np.where(video.valid[frame], video.depth[frame], 0))
    assert read.path is not None
    assert np.array_equal(read.path.K, cameras.K)
    assert np.abs(read.path.world_to_camera - cameras.world_to_camera).max() < 1e-12
    with np.load(tmp_path / "depth.npz") as plain:
        assert sorted(plain) == ["K", "depth", "is_metric", "timestamps_s", "world_to_camera"]
        assert (plain["depth"].dtype, plain["depth"].shape) == (np.float32, (NUM, HEIGHT, WIDTH))
        assert np.array_equal(plain["timestamps_s"], video.timestamps_s)
        assert plain["is_metric"] == 1


def test_equal_depth_gives_equal_bytes(
    scene: tuple[DepthVideo, CameraPath], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.npz", *scene)
    monkeypatch.setattr("time.time", lambda: 2e9)
    write(tmp_path / "b.npz", *scene)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_long_clip_is_never_in_memory(tmp_path: Path) -> None:
    height, width, num = 128, 128, 400  # 26 MB
    cameras = static_path(
        K=pinhole(focal_px=100, height=height, width=width), num_frames=num, height=height, width=width
    )
    chunk = DepthVideo(
        depth=np.ones((8, height, width), np.float32),
        valid=np.ones((8, height, width), np.bool_),
        timestamps_s=np.arange(8.0),
        scale="relative",
    )
    tracemalloc.start()
    try:
        with npz_depth(
            tmp_path / "a.npz", cameras=cameras, timestamps_s=np.arange(num) / 24, scale="relative"
        ) as append:
            for _ in range(num // 8):
                append(chunk)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "a.npz").stat().st_size > 26e6
    assert peak < 4e6
    read = open_depth(tmp_path / "a.npz")
    assert sum(len(part) for _, part in iter_chunks(read)) == num


@pytest.mark.parametrize("spans", [((0, NUM - 1),), ((0, NUM), (0, 1))])
def test_another_number_of_frames_leaves_no_file(
    spans: Sequence[tuple[int, int]], scene: tuple[DepthVideo, CameraPath], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"expected .*{NUM}"):
        write(tmp_path / "a.npz", *scene, spans)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_FSIZE")
@pytest.mark.parametrize("kind", ["npz", "exr"])
def test_a_full_disk_is_said_and_leaves_no_file(kind: str, tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys; import numpy as np; from pathlib import Path\n"
        "from ex4d.core.camera import pinhole, static_path; from ex4d.core.depth import DepthVideo\n"
        "from ex4d.errors import OutputError; from ex4d.io.depth.write import npz_depth, write_exr_depth\n"
        "noise = np.random.default_rng(0).uniform(1, 2, (4, 64, 64)).astype(np.float32)\n"
        "video = DepthVideo(depth=noise, valid=noise > 0, timestamps_s=np.arange(4.0), scale='metric')\n"
        "cameras = static_path(K=pinhole(focal_px=60, height=64, width=64), num_frames=4, height=64, width=64)\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
        "path = Path(sys.argv[1])\n"
        "try:\n"
        "    if path.suffix == '.exr': write_exr_depth(path, noise[0])\n"
        "    else:\n"
        "        with npz_depth(path, cameras=cameras, timestamps_s=video.timestamps_s, scale='metric') as append:\n"
        "            append(video)\n"
        "except OutputError as error: print(error)"
    )
    words = [sys.executable, "-c", code, str(tmp_path / f"a.{kind}")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert f"to be able to write {tmp_path / f'a.{kind}'}" in done.stdout
    assert "free some space" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_exr_reads_back_bit_for_bit(scene: tuple[DepthVideo, CameraPath], tmp_path: Path) -> None:
    depth = np.where(scene[0].valid, scene[0].depth, np.float32(0))
    (tmp_path / "depth").mkdir()
    for number, one in enumerate(depth):
        write_exr_depth(tmp_path / "depth" / f"{number:06d}.exr", one)
    read = open_depth(tmp_path / "depth")
    assert np.array_equal(read.read(0, NUM).values, depth)
    write_exr_depth(tmp_path / "again.exr", depth[3])
    assert (tmp_path / "again.exr").read_bytes() == (tmp_path / "depth" / "000003.exr").read_bytes()


def test_exr_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    with pytest.raises(MissingDependencyError, match=r"ex4d\[exr\]"):
        write_exr_depth(tmp_path / "a.exr", np.ones((4, 4), np.float32))


def test_exr_into_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="to be able to write"):
        write_exr_depth(tmp_path / "none" / "a.exr", np.ones((4, 4), np.float32))


@pytest.fixture
def video(scene: tuple[DepthVideo, CameraPath], tmp_path: Path) -> Path:
    """depth.mkv, with nothing beside it."""
    chunk = scene[0]
    path = tmp_path / "depth.mkv"
    with LosslessWriter(path, "gray16", height=HEIGHT, width=WIDTH, fps=Fraction(24)) as writer:
        writer.write(encode_depth(chunk.depth, chunk.valid, 0.5), chunk.timestamps_s)
    return path


def test_depth_video_with_its_note(video: Path, scene: tuple[DepthVideo, CameraPath]) -> None:
    write_z_min(video, 0.5, "metric")
    read = open_depth(video)
    values, chunk = read.read(0, NUM).values, scene[0]
    assert read.kind == "depth"
    assert np.array_equal(values > 0, chunk.valid)
    error = np.abs(values / chunk.depth - 1)[chunk.valid]
    assert error.max() <= (chunk.depth[chunk.valid] / 0.5 / 131070).max() + 1e-6
    note = json.loads(video.with_suffix(".json").read_text())
    assert (note["z_min"], note["scale"]) == (0.5, "metric")


def test_prior_json_goes_before_the_note(video: Path) -> None:
    write_z_min(video, 0.5, "relative")
    (video.parent / "prior.json").write_text('{"z_min": {"depth": 0.25}}')
    assert read_z_min(video) == 0.25


def test_a_note_of_another_program_says_nothing(video: Path) -> None:
    video.with_suffix(".json").write_text('{"model": "x"}')
    assert read_z_min(video) is None
    with pytest.raises(DepthError, match="--depth-kind"):
        open_depth(video)


@pytest.mark.parametrize("content", ['{"z_min": "near"}', '{"z_min": 0}', '{"z_min": -1}', "{", "[]", '{"z_min": NaN}'])
def test_a_damaged_note_is_refused(content: str, video: Path) -> None:
    video.with_suffix(".json").write_text(content)
    with pytest.raises(DepthError, match=r"depth\.json"):
        read_z_min(video)


def test_members_are_plain_npy(scene: tuple[DepthVideo, CameraPath], tmp_path: Path) -> None:
    write(tmp_path / "a.npz", *scene)
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.testzip() is None
