"""Results of ViPE, Depth Anything 3 and MegaSaM, written as those programs write them, as depth and as cameras.

Every result shows the same wall from three cameras: read back, all of its pixels must lie on that wall again, which
they do only with the right K, axes, direction of the poses, world and frame order.
"""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ex4d.core.arrays import Float32, Float64
from ex4d.core.camera import CameraPath, invert_rigid
from ex4d.core.rotations import quaternion_to_matrix
from ex4d.errors import CameraPathError, DepthError, Ex4dError, InputError, MissingDependencyError
from ex4d.io.cameras.estimated import megasam_size
from ex4d.io.cameras.files import read_cameras
from ex4d.io.depth.files import open_depth
from ex4d.io.depth.raw import RawDepthClip

H, W, N = 20, 30, 3
WALL = np.array([0.1, -0.2, 1.0]), 4.0
"""Normal and offset of the wall in the world: normal · x = offset."""


def lens(height: int = H, width: int = W, focal: float = 30.0) -> Float64:
    return np.array([[focal, 0, width / 2], [0, focal * 1.1, height / 2], [0, 0, 1]])


def camera_to_world() -> Float64:
    """float64 [N,4,4]; the first is not the identity."""
    poses = np.tile(np.eye(4), (N, 1, 1))
    poses[:, :3, :3] = quaternion_to_matrix(np.array([[1, 0.05, 0.1 * i, -0.03] for i in range(1, N + 1)]))
    poses[:, :3, 3] = [[0.3 * i, -0.1 * i, 0.2] for i in range(1, N + 1)]
    return poses


def wall_depth(K: Float64, poses: Float64, height: int = H, width: int = W) -> Float32:
    """z-depth float32 [N,H,W] of the wall at the centres of the pixels."""
    y, x = np.mgrid[:height, :width] + 0.5
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(K).T
    normal, offset = WALL
    depth = [(offset - normal @ pose[:3, 3]) / (rays @ pose[:3, :3].T @ normal) for pose in poses]
    return np.array(depth, np.float32)


def distance_to_wall(clip: RawDepthClip) -> Float64:
    """Distance float64 [N,H,W] of every unprojected pixel to the wall; NaN where the depth is unknown."""
    assert clip.path is not None
    return wall_distance(clip.read(0, clip.num_frames).values, clip.path)


def wall_distance(depth: Float32, path: CameraPath) -> Float64:
    """The same for depth float32 [N,H,W] and the cameras of its frames."""
    np.testing.assert_array_equal(path.world_to_camera[0], np.eye(4))
    y, x = np.mgrid[: depth.shape[1], : depth.shape[2]] + 0.5
    normal, offset = WALL
    first = camera_to_world()[0]
    out = []
    for i, frame in enumerate(depth.astype(np.float64)):
        points = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(path.K[i]).T * frame[..., None]
        for pose in (path.camera_to_world[i], first):
            points = points @ pose[:3, :3].T + pose[:3, 3]
        out.append(np.where(frame > 0, np.abs(points @ normal - offset) / np.linalg.norm(normal), np.nan))
    return np.array(out)


def write_vipe(folder: Path, *, name: str = "clip", poses: Float64 | None = None, numbers: Any = None) -> Path:
    """As ``save_artifacts`` of nv-tlabs/vipe, vipe/utils/io.py; returns the archive of depth."""
    OpenEXR = pytest.importorskip("OpenEXR", reason="the extra `exr` is not installed")
    Imath = pytest.importorskip("Imath", reason="the extra `exr` is not installed")
    poses = camera_to_world() if poses is None else poses
    numbers = np.arange(N) if numbers is None else np.asarray(numbers)
    for sub in ("pose", "intrinsics", "depth", "rgb", "vipe"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    np.savez(folder / f"pose/{name}.npz", data=poses.astype(np.float32), inds=np.arange(len(poses)))
    K = lens()
    rows = np.tile(np.array([K[0, 0], K[1, 1], K[0, 2], K[1, 2]], np.float32), (len(poses), 1))
    np.savez(folder / f"intrinsics/{name}.npz", data=rows, inds=np.arange(len(poses)))
    lines = [f"{i}: PINHOLE\n" for i in range(len(poses))]
    (folder / f"intrinsics/{name}_camera.txt").write_text("".join(lines))
    depth = wall_depth(K, camera_to_world())
    with zipfile.ZipFile(folder / f"depth/{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number, frame in zip(numbers, depth[: len(numbers)], strict=True):
            copy = folder / "one.exr"
            header = OpenEXR.Header(W, H)
            header["channels"] = {"Z": Imath.Channel(Imath.PixelType(Imath.PixelType.HALF))}
            file = OpenEXR.OutputFile(str(copy), header)
            file.writePixels({"Z": frame.astype(np.float16).tobytes()})
            file.close()
            archive.write(copy, f"{number:05d}.exr")
            copy.unlink()
    return folder / f"depth/{name}.zip"


def write_da3(path: Path, **change: Any) -> Path:
    """As ``export_to_npz`` of ByteDance-Seed/Depth-Anything-3, src/depth_anything_3/utils/export/npz.py."""
    K, poses = lens(), camera_to_world()
    arrays: dict[str, Any] = {
        "image": np.zeros((N, H, W, 3), np.uint8),
        "depth": np.round(wall_depth(K, poses), 6),
        "conf": np.round(np.full((N, H, W), 3.217, np.float32), 2),
        "extrinsics": invert_rigid(poses)[:, :3].astype(np.float32),
        "intrinsics": np.tile(K, (N, 1, 1)).astype(np.float32),
    }
    arrays |= change
    np.savez_compressed(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def write_megasam(path: Path, *, cut: tuple[int, int] = (16, 24), **change: Any) -> Path:
    """As mega-sam/mega-sam writes ``*_sgd_cvd_hr.npz`` (cvd_opt/cvd_opt.py); pictures are cut as in test_demo.py."""
    K, poses = lens(), camera_to_world()
    depth = np.clip(np.float16(wall_depth(K, poses)[:, : cut[0], : cut[1]]), 1e-3, 1e2)
    arrays: dict[str, Any] = {
        "images": np.zeros((N, *cut, 3), np.uint8),
        "depths": depth,
        "intrinsic": K.astype(np.float32),
        "cam_c2w": poses.astype(np.float32),
    }
    np.savez(path, **(arrays | change))
    return path


@pytest.mark.parametrize("as_archive", [False, True])
def test_vipe_folder(tmp_path: Path, as_archive: bool) -> None:
    archive = write_vipe(tmp_path / "vipe_results")
    clip = open_depth(archive if as_archive else tmp_path / "vipe_results")
    assert (clip.kind, clip.scale, clip.num_frames) == ("depth", "metric", N)
    assert np.max(distance_to_wall(clip)) < 0.01  # half floats
    assert clip.K is not None
    np.testing.assert_allclose(clip.K, lens(), rtol=1e-6)
    part = clip.select(np.array([2]), np.array([0.0]))
    np.testing.assert_array_equal(part.read(0, 1).values, clip.read(2, 3).values)


def test_vipe_frames_go_by_number_and_bad_pixels_are_unknown(tmp_path: Path) -> None:
    OpenEXR = pytest.importorskip("OpenEXR", reason="the extra `exr` is not installed")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for number in (10, 9, 100):
            frame = np.full((4, 6), number, np.float16)
            frame[0, :2] = np.nan, np.inf
            OpenEXR.File({}, {"Z": frame}).write(str(tmp_path / "one.exr"))
            archive.write(tmp_path / "one.exr", f"{number:05d}.exr")
    clip = open_depth(tmp_path / "x.zip")
    values = clip.read(0, 3).values
    assert values[:, 1, 1].tolist() == [9, 10, 100]
    assert values[:, 0, :3].tolist() == [[0, 0, n] for n in (9, 10, 100)]
    assert clip.path is None
    assert any("cameras are not known" in notice for notice in clip.notices)


def test_vipe_folder_of_several_clips_asks_which(tmp_path: Path) -> None:
    write_vipe(tmp_path, name="dog")
    archive = write_vipe(tmp_path, name="cat")
    with pytest.raises(DepthError, match=r"2 clips: cat, dog.*cat\.zip"):
        open_depth(tmp_path)
    assert open_depth(archive).num_frames == N
    with pytest.raises(CameraPathError, match=r"2 clips: cat, dog.*cat\.npz"):
        read_cameras(tmp_path)
    assert len(read_cameras(tmp_path / "pose/dog.npz").path) == N


def test_vipe_cameras_that_do_not_fit_the_depth(tmp_path: Path) -> None:
    write_vipe(tmp_path / "fewer", poses=camera_to_world()[:2])
    with pytest.raises(DepthError, match="2 cameras and 3 depth frames"):
        open_depth(tmp_path / "fewer")
    write_vipe(tmp_path / "other", numbers=[0, 1, 5])
    with pytest.raises(DepthError, match="other frames"):
        open_depth(tmp_path / "other")
    write_vipe(tmp_path / "no_depth").unlink()
    with pytest.raises(DepthError, match="without depth"):
        open_depth(tmp_path / "no_depth")


@pytest.mark.parametrize("camera", ["PANORAMA", "MEI"])
def test_vipe_other_lenses_are_refused(tmp_path: Path, camera: str) -> None:
    write_vipe(tmp_path)
    (tmp_path / "intrinsics/clip_camera.txt").write_text("".join(f"{i}: {camera}\n" for i in range(N)))
    with pytest.raises(CameraPathError, match=camera):
        open_depth(tmp_path)
    (tmp_path / "intrinsics/clip_camera.txt").unlink()
    np.savez(tmp_path / "intrinsics/clip.npz", data=np.ones((N, 5), np.float32), inds=np.arange(N))
    with pytest.raises(CameraPathError, match="fx, fy, cx, cy"):
        open_depth(tmp_path)


@pytest.mark.parametrize("member", ["../../evil.exr", "/etc/passwd", "00000.exr.txt", "a.exr", ""])
def test_vipe_member_names_are_numbers_or_nothing(tmp_path: Path, member: str) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        if member:
            archive.writestr(member, b"data")
    with pytest.raises(DepthError, match="named by number"):
        open_depth(tmp_path / "x.zip")


def test_vipe_archives_that_are_damaged(tmp_path: Path) -> None:
    archive = write_vipe(tmp_path)
    data = archive.read_bytes()
    flipped = bytearray(data)
    flipped[400:420] = bytes(byte ^ 255 for byte in data[400:420])
    for bad in (b"no zip", data[: len(data) // 2], bytes(flipped), data[:60] + data[90:]):
        archive.write_bytes(bad)
        with pytest.raises(DepthError, match=r"clip\.zip"):
            open_depth(archive).read(0, N)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("00000.exr", b"no exr")
    with pytest.raises(DepthError, match=r"00000\.exr"):
        open_depth(archive)


def test_vipe_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ex4d.io.depth.vipe._MAX_MEMBER_BYTES", 1 << 16)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("00000.exr", bytes(1 << 20))
    with pytest.raises(DepthError, match="at most"):
        open_depth(tmp_path / "x.zip")


@pytest.mark.parametrize("rows", [3, 4])
def test_da3(tmp_path: Path, rows: int) -> None:
    extrinsics = invert_rigid(camera_to_world())[:, :rows].astype(np.float32)
    clip = open_depth(write_da3(tmp_path / "results.npz", extrinsics=extrinsics))
    assert (clip.kind, clip.scale) == ("depth", "relative")
    assert np.max(distance_to_wall(clip)) < 1e-4
    metric = open_depth(tmp_path / "results.npz", scale=2.0)
    assert metric.scale == "metric"
    assert metric.path is not None
    assert clip.path is not None
    np.testing.assert_allclose(metric.read(0, N).values, clip.read(0, N).values / 2, rtol=1e-6)
    np.testing.assert_allclose(metric.path.center, clip.path.center / 2)


def test_da3_confidence(tmp_path: Path) -> None:
    conf = np.full((N, H, W), 2.0, np.float32)
    conf[0, :5] = 1.04
    conf[1] = 1.01
    conf[1, :2] = 1.03
    clip = open_depth(write_da3(tmp_path / "r.npz", conf=conf))
    known = clip.read(0, N).values > 0
    assert known[0].sum() == (H - 5) * W
    assert known[1].sum() == 2 * W  # a frame without confidence keeps its best tenth
    assert known[2].all()
    assert any("1.05" in notice for notice in clip.notices)


def test_da3_exports_without_cameras(tmp_path: Path) -> None:
    folder = tmp_path / "out/exports/mini_npz"
    folder.mkdir(parents=True)
    write_da3(folder / "results.npz", image=None, extrinsics=None, intrinsics=None)
    clip = open_depth(tmp_path / "out")
    assert (clip.num_frames, clip.path, clip.K, clip.scale) == (N, None, None, "relative")


def test_da3_pictures_squeezed_to_whole_patches(tmp_path: Path) -> None:
    """1920x1080 becomes 504x280: each axis of K scales by itself."""
    K = np.tile(np.array([[400.0, 0, 252], [0, 390, 140], [0, 0, 1]]), (N, 1, 1))
    write_da3(tmp_path / "r.npz", depth=np.ones((N, 280, 504), np.float32), intrinsics=K)
    loaded = read_cameras(tmp_path / "r.npz", height=1080, width=1920)
    scaled = K[0] * np.array([[1920 / 504], [1080 / 280], [1]])
    np.testing.assert_allclose(loaded.path.K[0], scaled)
    with pytest.raises(CameraPathError, match="shape"):
        read_cameras(tmp_path / "r.npz", height=1080, width=1440)


def test_megasam_is_put_back_into_the_whole_picture(tmp_path: Path) -> None:
    clip = open_depth(write_megasam(tmp_path / "x_sgd_cvd_hr.npz"))
    assert (clip.kind, clip.scale, clip.height, clip.width) == ("depth", "relative", H, W)
    distance = distance_to_wall(clip)
    assert np.nanmax(distance) < 0.01
    assert np.isfinite(distance[:, :16, :24]).all()
    assert np.isnan(distance[:, 16:]).all()
    assert np.isnan(distance[:, :, 24:]).all()
    assert any("6 px on the right and 4 px below" in notice for notice in clip.notices)


@pytest.mark.parametrize("video", [(1080, 1920), (480, 640), (1280, 720), (720, 1280), (512, 512)])
def test_megasam_sizes(video: tuple[int, int]) -> None:
    """The sizes that image_stream in camera_tracking_scripts/test_demo.py makes of a video's."""
    share = np.sqrt((384 * 512) / (video[0] * video[1]))
    whole = int(video[0] * share), int(video[1] * share)
    K = np.array([[600, 0, video[1] / 2], [0, 600, video[0] / 2], [0, 0, 1]], np.float32)
    K[0] *= whole[1] / video[1]
    K[1] *= whole[0] / video[0]
    cut = whole[0] - whole[0] % 8, whole[1] - whole[1] % 8
    assert megasam_size(K.astype(np.float64), cut) == whole
    assert megasam_size(K.astype(np.float64), (cut[0] - 8, cut[1])) == (cut[0] - 8, cut[1])


def test_megasam_without_depth_in_places(tmp_path: Path) -> None:
    depth = np.full((N, 16, 24), 1.5, np.float32)
    depth[:, 0, :3] = 1e-6, 1e-3, np.float16(1e-3)
    clip = open_depth(write_megasam(tmp_path / "x_droid.npz", depths=depth))
    assert clip.read(0, 1).values[0, 0, :4].tolist() == [0, 0, 0, 1.5]


@pytest.mark.parametrize("change", [{"cam_c2w": camera_to_world()[:2]}, {"depths": np.ones((5, 16, 24), np.float16)}])
def test_megasam_cameras_that_do_not_fit(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(DepthError, match=r"cameras and \d depth frames"):
        open_depth(write_megasam(tmp_path / "x.npz", **change))


@pytest.mark.parametrize("kind", ["vipe", "da3", "megasam"])
def test_the_format_says_what_it_is(tmp_path: Path, kind: str) -> None:
    write = {"vipe": write_vipe, "da3": write_da3, "megasam": write_megasam}[kind]
    with pytest.raises(DepthError, match="--depth-kind"):
        open_depth(write(tmp_path / "r.npz"), kind="disparity")


@pytest.mark.parametrize("kind", ["vipe-folder", "vipe-pose", "vipe-intrinsics", "da3", "megasam"])
def test_as_source_cameras(tmp_path: Path, kind: str) -> None:
    if kind.startswith("vipe"):
        write_vipe(tmp_path)
        file = tmp_path if kind == "vipe-folder" else tmp_path / kind.removeprefix("vipe-") / "clip.npz"
    else:
        file = {"da3": write_da3, "megasam": write_megasam}[kind](tmp_path / "r.npz")
    loaded = read_cameras(file)
    assert (loaded.path.height, loaded.path.width) == (H, W)
    np.testing.assert_allclose(loaded.path.camera_to_world, camera_to_world(), atol=1e-6)
    np.testing.assert_allclose(loaded.path.K, np.tile(lens(), (N, 1, 1)), rtol=1e-6)
    larger = read_cameras(file, height=4 * H, width=4 * W, rebase=True).path
    np.testing.assert_allclose(larger.K[:, :2], 4 * loaded.path.K[:, :2])
    np.testing.assert_array_equal(larger.world_to_camera[0], np.eye(4))


def test_vipe_cameras_say_their_frames(tmp_path: Path) -> None:
    write_vipe(tmp_path)
    for sub in ("pose", "intrinsics"):
        with np.load(tmp_path / sub / "clip.npz") as arrays:
            data = arrays["data"]
        np.savez(tmp_path / sub / "clip.npz", data=data[:2], inds=np.array([0, 2]))
    assert read_cameras(tmp_path).path.source_index.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("sub", "arrays"),
    [
        ("pose", {"data": np.ones((N, 4, 4)), "inds": np.arange(N)}),
        ("pose", {"data": camera_to_world(), "inds": np.array([0, 2, 1])}),
        ("pose", {"data": camera_to_world(), "inds": np.arange(2)}),
        ("pose", {"data": camera_to_world(), "inds": np.array([0, 1, 3])}),
        ("pose", {"data": camera_to_world() * np.nan, "inds": np.arange(N)}),
        ("pose", {"data": camera_to_world()}),
        ("intrinsics", {"data": np.full((N, 4), np.nan), "inds": np.arange(N)}),
        ("intrinsics", {"data": np.zeros((N, 4)), "inds": np.arange(N)}),
    ],
)
def test_vipe_cameras_that_are_none(tmp_path: Path, sub: str, arrays: dict[str, Any]) -> None:
    write_vipe(tmp_path)
    np.savez(tmp_path / sub / "clip.npz", **arrays)
    with pytest.raises(CameraPathError):
        read_cameras(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"extrinsics": np.zeros((N, 3, 4))},
        {"extrinsics": np.zeros((N, 3, 3))},
        {"intrinsics": np.zeros((N, 3, 3))},
        {"intrinsics": np.full((N, 3, 3), np.nan)},
        {"conf": np.ones((N, H, W - 1))},
        {"depth": np.zeros((N, 0, W))},
    ],
)
def test_da3_arrays_that_do_not_fit(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(Ex4dError):
        open_depth(write_da3(tmp_path / "r.npz", **change))


def read_first(path: Path) -> None:
    open_depth(path).read(0, 1)


def test_mutated_results(tmp_path: Path) -> None:
    """An answer or one of our errors, never anything else."""
    write_vipe(tmp_path / "vipe")
    write_da3(tmp_path / "da3.npz")
    write_megasam(tmp_path / "megasam.npz")
    rng = np.random.default_rng(4)
    refused = 0
    for file in [*tmp_path.glob("*.npz"), *tmp_path.glob("vipe/*/clip*")]:
        data = file.read_bytes()
        target = tmp_path / "vipe" if file.parent.parent.name == "vipe" else file
        for _ in range(25):
            out = bytearray(data)
            for _ in range(int(rng.integers(1, 5))):
                at = int(rng.integers(0, len(out)))
                out[at : at + int(rng.integers(0, 9))] = rng.integers(0, 256, 4, dtype=np.uint8).tobytes()
            file.write_bytes(out[: int(rng.integers(1, len(out) + 1))] if rng.random() < 0.3 else out)
            for read in (read_first, read_cameras):
                try:
                    read(target)
                except Ex4dError:
                    refused += 1
        file.write_bytes(data)
    assert refused > 50


def test_exr_needs_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = write_vipe(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "OpenEXR", None)
    with pytest.raises(MissingDependencyError, match="exr"):
        open_depth(archive)


def test_other_npz_files_are_what_they_were(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", depth=np.ones((2, 4, 6), np.float32), K=np.diag([5.0, 5, 1]))
    clip = open_depth(tmp_path / "a.npz")
    assert (clip.scale, clip.path) == ("relative", None)
    stream = io.BytesIO()
    np.savez(stream, data=np.ones(3), inds=np.ones(3))
    (tmp_path / "b.npz").write_bytes(stream.getvalue())
    with pytest.raises(InputError, match="depth"):
        open_depth(tmp_path / "b.npz")
