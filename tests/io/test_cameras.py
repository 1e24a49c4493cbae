"""Camera files: what is written comes back, conventions of other programs, sizes, and errors."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ex4d.core.arrays import Float64
from ex4d.core.camera import CameraPath, invert_rigid, pinhole
from ex4d.core.geometry import project
from ex4d.core.rotations import quaternion_to_matrix
from ex4d.errors import CameraPathError, OutputError
from ex4d.io.cameras.files import CameraFileKind, kind_for, read_cameras, write_cameras

NAMES: dict[CameraFileKind, str] = {
    "json": "cameras.json",
    "npz": "path.npz",
    "colmap-text": "model",
    "colmap-binary": "model.d",
    "nerfstudio": "transforms.json",
    "blender-json": "blender.json",
}


def random_path(seed: int, num: int = 4, *, one_lens: bool = False) -> CameraPath:
    """Cameras of any orientation, off-centre principal points, and changing lenses."""
    rng = np.random.default_rng(seed)
    matrices = np.repeat(np.eye(4)[None], num, axis=0)
    matrices[:, :3, :3] = quaternion_to_matrix(rng.normal(size=(num, 4)))
    matrices[:, :3, 3] = rng.normal(scale=100, size=(num, 3))
    focal = np.full(num, 300.0) if one_lens else rng.uniform(100, 900, num)
    intrinsics = np.repeat(np.eye(3)[None], num, axis=0)
    intrinsics[:, 0, 0], intrinsics[:, 1, 1] = focal, focal * rng.uniform(0.7, 1.4)
    intrinsics[:, :2, 2] = (310, 170) if one_lens else rng.uniform(100, 400, (num, 2))
    source_index = rng.integers(0, 50, num) if seed % 2 else np.arange(num)
    return CameraPath(K=intrinsics, world_to_camera=matrices, source_index=source_index, height=360, width=640)


def assert_same(a: CameraPath, b: CameraPath, tolerance: float = 1e-6) -> None:
    assert np.abs(a.K - b.K).max() <= tolerance
    assert np.abs(a.world_to_camera - b.world_to_camera).max() <= tolerance
    assert a.source_index.tolist() == b.source_index.tolist()
    assert (a.height, a.width) == (b.height, b.width)


@pytest.mark.parametrize("kind", NAMES)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), num=st.integers(1, 12), one_lens=st.booleans())
def test_round_trip(kind: CameraFileKind, tmp_path: Path, seed: int, num: int, one_lens: bool) -> None:
    path = random_path(seed, num, one_lens=one_lens)
    file = tmp_path / NAMES[kind]
    write_cameras(file, path, kind=kind)
    loaded = read_cameras(file, height=360, width=640)
    assert_same(loaded.path, path)
    assert loaded.notices == ()
    assert_same(read_cameras(file).path, path)
    if kind in ("json", "npz"):
        assert np.array_equal(loaded.path.world_to_camera, path.world_to_camera)
        assert np.array_equal(loaded.path.K, path.K)


@pytest.mark.parametrize("name", ["ähm キ.json", "p.npz", "p.py", "transforms_train.json", "my_blender.json", "folder"])
def test_names_choose_the_kind_and_equal_cameras_give_equal_bytes(tmp_path: Path, name: str) -> None:
    def written(folder: Path) -> dict[str, bytes]:
        folder.mkdir()
        write_cameras(folder / name, random_path(2))
        return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}

    first, second = written(tmp_path / "1"), written(tmp_path / "2")
    assert first == second
    assert len(first) == (3 if name == "folder" else 1)
    if not name.endswith(".py"):
        assert_same(read_cameras(tmp_path / "1" / name).path, random_path(2))


def test_cameras_json_has_the_documented_shape(tmp_path: Path) -> None:
    write_cameras(tmp_path / "cameras.json", random_path(0, 2))
    obj = json.loads((tmp_path / "cameras.json").read_text(encoding="utf-8"))
    assert list(obj) == ["schema_version", "convention", "height", "width", "frames"]
    assert (obj["schema_version"], obj["convention"], obj["height"], obj["width"]) == (1, "opencv", 360, 640)
    assert list(obj["frames"][1]) == ["source_index", "K", "world_to_camera"]
    assert np.array(obj["frames"][1]["world_to_camera"]).shape == (4, 4)


def test_scaled_to_the_working_size_with_a_notice(tmp_path: Path) -> None:
    write_cameras(tmp_path / "c.json", random_path(1))
    loaded = read_cameras(tmp_path / "c.json", height=180, width=320)
    assert loaded.path.K[:, :2] == pytest.approx(random_path(1).K[:, :2] / 2)
    assert (loaded.path.height, loaded.path.width) == (180, 320)
    assert loaded.notices == ("camera intrinsics were scaled from 640x360 to 320x180",)
    with pytest.raises(CameraPathError, match="640x360"):
        read_cameras(tmp_path / "c.json", height=320, width=320)


def test_rebase_puts_the_first_camera_at_the_origin(tmp_path: Path) -> None:
    path = random_path(4)
    write_cameras(tmp_path / "c.json", path)
    moved = read_cameras(tmp_path / "c.json", rebase=True).path
    assert np.array_equal(moved.world_to_camera[0], np.eye(4))
    relative = path.world_to_camera[2] @ invert_rigid(path.world_to_camera[1])
    assert moved.world_to_camera[2] @ invert_rigid(moved.world_to_camera[1]) == pytest.approx(relative, abs=1e-9)


def _official(tmp_path: Path, **changes: Any) -> Path:
    flip = np.diag([1.0, -1, -1, 1])
    path = random_path(8, 3)
    matrices = path.world_to_camera @ invert_rigid(path.world_to_camera[0])
    arrays: dict[str, Any] = {
        "extrinsics": (flip @ matrices).astype(np.float32),
        "intrinsics": pinhole(focal_px=500, height=256, width=512).astype(np.float32),
    }
    arrays |= changes
    np.savez(tmp_path / "official.npz", **{key: value for key, value in arrays.items() if value is not None})
    return tmp_path / "official.npz"


def test_official_npz(tmp_path: Path) -> None:
    loaded = read_cameras(_official(tmp_path), height=256, width=512)
    want = random_path(8, 3)
    want_matrices = want.world_to_camera @ invert_rigid(want.world_to_camera[0])
    assert np.abs(loaded.path.world_to_camera - want_matrices).max() < 1e-4
    assert loaded.path.K[2].tolist() == [[500, 0, 256], [0, 500, 128], [0, 0, 1]]
    assert loaded.notices == ()


def test_npz_extrinsics_with_an_identity_start_are_opencv_and_say_so(tmp_path: Path) -> None:
    file = _official(tmp_path, extrinsics=np.repeat(np.eye(4)[None], 3, axis=0))
    loaded = read_cameras(file)
    assert np.array_equal(loaded.path.world_to_camera[2], np.eye(4))
    assert "OpenCV world-to-camera" in loaded.notices[0]


COLMAP_CAMERAS = """# comment
1 SIMPLE_PINHOLE 640 480 500 320 240
7 PINHOLE 640 480 500 510 321 239
"""
COLMAP_IMAGES = """# comment
2 1 0 0 0 0 0 0 7 img 10.png
320 240 -1 5.5 6.5 12
1 0.7071067811865476 0 0.7071067811865476 0 1 2 3 1 img 9.png

"""


def _colmap(folder: Path, cameras: str = COLMAP_CAMERAS, images: str = COLMAP_IMAGES) -> Path:
    (folder / "sparse/0").mkdir(parents=True, exist_ok=True)
    (folder / "sparse/0/cameras.txt").write_text(cameras, encoding="utf-8")
    (folder / "sparse/0/images.txt").write_text(images, encoding="utf-8")
    return folder


def test_colmap_text_as_colmap_writes_it(tmp_path: Path) -> None:
    loaded = read_cameras(_colmap(tmp_path))
    assert loaded.path.K[0].tolist() == [[500, 0, 320], [0, 500, 240], [0, 0, 1]]
    assert loaded.path.K[1].tolist() == [[500, 0, 321], [0, 510, 239], [0, 0, 1]]
    # img 9 before img 10; its rotation is +90 degrees about y, world-to-camera.
    assert loaded.path.world_to_camera[0] == pytest.approx(
        np.array([[0, 0, 1, 1], [0, 1, 0, 2], [-1, 0, 0, 3], [0, 0, 0, 1]])
    )
    assert loaded.notices == ("cameras were put in the order of their image names",)


@pytest.mark.parametrize(
    ("cameras", "images", "words"),
    [
        (COLMAP_CAMERAS.replace("SIMPLE_PINHOLE", "OPENCV"), COLMAP_IMAGES, "image_undistorter"),
        (COLMAP_CAMERAS.replace(" 239", ""), COLMAP_IMAGES, "4 finite numbers"),
        (COLMAP_CAMERAS.replace("510", "nan"), COLMAP_IMAGES, "finite"),
        (COLMAP_CAMERAS.replace("510", "-510"), COLMAP_IMAGES, "positive focal"),
        (COLMAP_CAMERAS.replace("640 480 500 510", "0 480 500 510"), COLMAP_IMAGES, "image sides"),
        (COLMAP_CAMERAS.replace("7 PINHOLE", "8 PINHOLE"), COLMAP_IMAGES, "no such camera"),
        (COLMAP_CAMERAS.replace("7 PINHOLE 640", "7 PINHOLE x"), COLMAP_IMAGES, "line 3"),
        (COLMAP_CAMERAS, COLMAP_IMAGES.replace("320 240 -1 5.5 6.5 12\n", ""), "a line of points"),
        (COLMAP_CAMERAS, COLMAP_IMAGES.replace("2 1 0 0 0", "2 2 0 0 0"), "unit quaternions"),
        (COLMAP_CAMERAS, COLMAP_IMAGES.replace("2 1 0 0 0", "2 nan 0 0 0"), "unit quaternions"),
        (COLMAP_CAMERAS, COLMAP_IMAGES.replace(" img 10.png", ""), "line 2"),
        (COLMAP_CAMERAS, "# nothing\n", "images"),
    ],
)
def test_colmap_text_errors(tmp_path: Path, cameras: str, images: str, words: str) -> None:
    with pytest.raises(CameraPathError) as error:
        read_cameras(_colmap(tmp_path, cameras, images))
    assert words in str(error.value)


def test_colmap_binary_cut_short_or_absurd(tmp_path: Path) -> None:
    write_cameras(tmp_path / "m", random_path(0), kind="colmap-binary")
    images = tmp_path / "m/images.bin"
    whole = images.read_bytes()
    for data in (whole[:-9], whole[:5], b"\xff" * 8 + whole[8:], whole[:-8] + b"\xff" * 8, whole[:80] + b"x" * 5000):
        images.write_bytes(data)
        with pytest.raises(CameraPathError, match=r"images\.bin"):
            read_cameras(tmp_path / "m")
    images.write_bytes(whole)
    cameras = tmp_path / "m/cameras.bin"
    radial = bytearray(cameras.read_bytes())
    radial[12] = 4
    cameras.write_bytes(radial)
    with pytest.raises(CameraPathError, match="'OPENCV'"):
        read_cameras(tmp_path / "m")


def _gl_pose(path: CameraPath, i: int) -> Float64:
    return path.camera_to_world[i] @ np.diag([1.0, -1, -1, 1])


def test_nerf_synthetic_needs_the_size_of_the_images(tmp_path: Path) -> None:
    path = random_path(0, 3)
    frames = [{"file_path": f"./train/r_{i}", "transform_matrix": _gl_pose(path, i).tolist()} for i in range(3)]
    file = tmp_path / "transforms_train.json"
    file.write_text(json.dumps({"camera_angle_x": 2 * np.arctan(0.5), "frames": frames}), encoding="utf-8")
    loaded = read_cameras(file, height=300, width=400)
    assert loaded.path.K[1] == pytest.approx(np.array([[400.0, 0, 200], [0, 400, 150], [0, 0, 1]]))
    assert loaded.path.world_to_camera == pytest.approx(path.world_to_camera)
    with pytest.raises(CameraPathError, match=r"frames\[0\]\.h"):
        read_cameras(file)


def test_nerfstudio_directions_and_lenses(tmp_path: Path) -> None:
    """A camera at (1, 2, 3) with identity rotation looks along -z with y up."""
    pose = np.eye(4)
    pose[:3, 3] = 1, 2, 3
    head = {"w": 64, "h": 48, "fl_x": 50, "cx": 30.5, "cy": 24}
    frame = {"file_path": "b", "transform_matrix": pose[:3].tolist(), "fl_y": 55}
    file = tmp_path / "transforms.json"
    file.write_text(json.dumps({**head, "frames": [frame]}), encoding="utf-8")
    path = read_cameras(file).path
    assert path.K[0].tolist() == [[50, 0, 30.5], [0, 55, 24], [0, 0, 1]]
    pixel, z = project(path[0], np.array([1.0, 3.0, 1.0]))
    assert z == pytest.approx(2.0)
    assert pixel == pytest.approx([30.5, 24 - 55 / 2])


@pytest.mark.parametrize(
    ("top", "frame", "words"),
    [
        ({"k1": 0.1}, {}, "undistort"),
        ({}, {"p2": 1e-3}, "frames[0]"),
        ({"camera_model": "OPENCV_FISHEYE"}, {}, "pinhole"),
        ({"fl_x": -5}, {}, "positive focal"),
        ({"w": 0}, {}, "frames[0].w"),
        ({}, {"transform_matrix": [[1, 0], [0, 1]]}, "frames[0].transform_matrix"),
        ({}, {"transform_matrix": np.zeros((4, 4)).tolist()}, "last row"),
        ({}, {"transform_matrix": np.zeros((3, 4)).tolist()}, "orthonormal"),
        ({}, {"transform_matrix": (2 * np.eye(4))[:3].tolist()}, "orthonormal"),
        ({}, {"transform_matrix": np.diag([-1.0, 1, 1, 1]).tolist()}, "reflection"),
        ({}, {"transform_matrix": "absent"}, "frames[0].transform_matrix"),
        ({"frames": []}, {}, "frames"),
        ({"frames": {}}, {}, "frames"),
    ],
)
def test_nerfstudio_errors(tmp_path: Path, top: dict[str, Any], frame: dict[str, Any], words: str) -> None:
    one = {"transform_matrix": np.eye(4).tolist(), **frame}
    one = {key: value for key, value in one.items() if not isinstance(value, str)}
    file = tmp_path / "transforms.json"
    file.write_text(json.dumps({"w": 64, "h": 48, "fl_x": 50, "frames": [one]} | top), encoding="utf-8")
    with pytest.raises(CameraPathError) as error:
        read_cameras(file)
    assert words in str(error.value)
    assert "transforms.json" in str(error.value)


def test_blender_numbers(tmp_path: Path) -> None:
    """The source camera stands upright in Blender: it looks along +y, its up is +z."""
    K = np.array([[320.0, 0, 300], [0, 320, 200], [0, 0, 1]])
    path = CameraPath(
        K=K[None], world_to_camera=np.eye(4)[None], source_index=np.zeros(1, np.int64), height=360, width=640
    )
    write_cameras(tmp_path / "blender.json", path)
    frame = json.loads((tmp_path / "blender.json").read_text(encoding="utf-8"))["frames"][0]
    matrix = np.array(frame["matrix_world"])
    assert (matrix[:3, :3] @ [0, 0, -1]).tolist() == [0, 1, 0]
    assert (matrix[:3, :3] @ [0, 1, 0]).tolist() == [0, 0, 1]
    assert frame["frame"] == 1
    assert frame["lens_mm"] == pytest.approx(18.0)  # 320 px of 640 on 36 mm
    assert frame["shift_x"] == pytest.approx(20 / 640)  # the axis left of the middle: the view is shifted right
    assert frame["shift_y"] == pytest.approx(20 / 640)  # the axis below the middle: the view is shifted up


def test_blender_script_compiles_and_holds_the_side_file(tmp_path: Path) -> None:
    path = random_path(6, 3)
    write_cameras(tmp_path / "camera.py", path)
    write_cameras(tmp_path / "blender.json", path)
    text = (tmp_path / "camera.py").read_text(encoding="utf-8")
    compile(text, "camera.py", "exec")
    data = json.loads(text.split('r"""')[1].split('"""')[0])
    assert data == json.loads((tmp_path / "blender.json").read_text(encoding="utf-8"))


def test_formats_refuse_what_they_cannot_hold(tmp_path: Path) -> None:
    path = random_path(0, 2)
    skewed = path.K.copy()
    skewed[:, 0, 1] = 3.0
    bent = CameraPath(
        K=skewed, world_to_camera=path.world_to_camera, source_index=path.source_index, height=360, width=640
    )
    for name in ("transforms.json", "blender.json", "model"):
        with pytest.raises(CameraPathError, match="skew"):
            write_cameras(tmp_path / name, bent)
    write_cameras(tmp_path / "c.npz", bent)
    assert_same(read_cameras(tmp_path / "c.npz").path, bent, 0.0)
    stretched = path.K.copy()
    stretched[1, 1, 1] *= 2
    zoomed = CameraPath(
        K=stretched, world_to_camera=path.world_to_camera, source_index=path.source_index, height=360, width=640
    )
    with pytest.raises(CameraPathError, match="fx/fy"):
        write_cameras(tmp_path / "camera.py", zoomed)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.npz", "model"]
    assert list((tmp_path / "model").iterdir()) == []


def _cameras_json(tmp_path: Path, change: Any) -> Path:
    write_cameras(tmp_path / "cameras.json", random_path(0, 2))
    obj = json.loads((tmp_path / "cameras.json").read_text(encoding="utf-8"))
    change(obj)
    (tmp_path / "cameras.json").write_text(json.dumps(obj), encoding="utf-8")
    return tmp_path / "cameras.json"


def _set_rotation(obj: dict[str, Any], matrix: Float64) -> None:
    obj["frames"][1]["world_to_camera"] = matrix.tolist()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda o: o.update(schema_version=2), "schema_version"),
        (lambda o: o.update(schema_version=True), "schema_version"),
        (lambda o: o.update(convention="opengl"), "convention"),
        (lambda o: o.update(width=640.5), "at width"),
        (lambda o: o.update(width=10**400), "at width"),
        (lambda o: o.pop("height"), "at height"),
        (lambda o: o.update(frames={}), "list at frames"),
        (lambda o: o["frames"].append(7), "frames[2]"),
        (lambda o: o["frames"][1].pop("K"), "frames[1].K"),
        (lambda o: o["frames"][1]["K"].pop(), "frames[1].K"),
        (lambda o: o["frames"][1]["K"][0].__setitem__(0, None), "frames[1].K[0][0]"),
        (lambda o: o["frames"][1]["K"][0].__setitem__(0, float("nan")), "finite numbers"),
        (lambda o: o["frames"][1]["K"][0].__setitem__(0, -1), "positive focal"),
        (lambda o: o["frames"][1]["K"].__setitem__(2, [0, 0, 2]), "last row"),
        (lambda o: o["frames"][1].update(source_index=-1), "frames[1].source_index"),
        (lambda o: _set_rotation(o, np.diag([1.0, 1, -1, 1])), "in camera 1"),
        (lambda o: _set_rotation(o, np.diag([1.0, 1, 0, 1])), "orthonormal"),
        (lambda o: _set_rotation(o, np.diag([1.0, 1, 1.01, 1])), "orthonormal"),
        (lambda o: _set_rotation(o, np.ones((4, 4))), "last row"),
        (lambda o: _set_rotation(o, np.full((4, 4), 1e308)), "last row"),
    ],
)
def test_cameras_json_errors(tmp_path: Path, change: Any, words: str) -> None:
    with pytest.raises(CameraPathError) as error:
        read_cameras(_cameras_json(tmp_path, change), height=360, width=640)
    assert words in str(error.value)
    assert "cameras.json" in str(error.value)


def test_rounded_rotations_are_made_exact_and_reported(tmp_path: Path) -> None:
    def round_off(obj: dict[str, Any]) -> None:
        for frame in obj["frames"]:
            frame["world_to_camera"] = np.round(np.array(frame["world_to_camera"]), 4).tolist()

    loaded = read_cameras(_cameras_json(tmp_path, round_off))
    assert "nearest exact rotations" in loaded.notices[0]
    rotation = loaded.path.world_to_camera[:, :3, :3]
    assert np.abs(rotation @ np.swapaxes(rotation, 1, 2) - np.eye(3)).max() < 1e-14


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"extrinsics": None}, "extrinsics, intrinsics"),
        ({"extrinsics": np.eye(4)}, "[N,4,4]"),
        ({"extrinsics": np.zeros((0, 4, 4))}, "1 to"),
        ({"extrinsics": np.full((3, 4, 4), np.nan)}, "NaN or infinity"),
        ({"extrinsics": np.array(["a"])}, "numbers in the array extrinsics"),
        ({"extrinsics": np.array([None, {}])}, "extrinsics"),
        ({"intrinsics": np.eye(4)}, "[N,3,3]"),
        ({"intrinsics": np.zeros((2, 3, 3))}, "one K or 3"),
        ({"intrinsics": np.full((3, 3), np.nan)}, "principal point"),
    ],
)
def test_npz_errors(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(CameraPathError) as error:
        read_cameras(_official(tmp_path, **changes))
    assert words in str(error.value)


def test_npz_bombs_and_lies_about_size(tmp_path: Path) -> None:
    file = tmp_path / "bomb.npz"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("intrinsics.npy", b"")
        archive.writestr("extrinsics.npy", b"\0" * (65 * 2**20))
    with pytest.raises(CameraPathError, match="at most 64 MiB"):
        read_cameras(file)
    header = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f8', 'fortran_order': False, 'shape': (999999999999, 4, 4), }"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("intrinsics.npy", b"")
        archive.writestr("extrinsics.npy", header.ljust(127) + b"\n")
    with pytest.raises(CameraPathError, match="another amount of data"):
        read_cameras(file)


def test_wrong_places(tmp_path: Path) -> None:
    for name, words in (("missing.json", "nothing there"), ("a.txt", "transforms.json"), ("empty", "COLMAP")):
        if name == "a.txt":
            (tmp_path / name).write_text("1 2 3", encoding="utf-8")
        if name == "empty":
            (tmp_path / name).mkdir()
        with pytest.raises(CameraPathError, match=words):
            read_cameras(tmp_path / name)
    (tmp_path / "k.json").write_text('{"keyframes": []}', encoding="utf-8")
    with pytest.raises(CameraPathError, match="keyframe"):
        read_cameras(tmp_path / "k.json")
    with pytest.raises(ValueError, match="neither"):
        read_cameras(tmp_path / "k.json", height=3)
    with pytest.raises(CameraPathError, match=r"\.json, \.npz"):
        kind_for(tmp_path / "x.csv")
    with pytest.raises(OutputError, match="a folder at"):
        write_cameras(tmp_path / "a.txt", random_path(0), kind="colmap-text")
    with pytest.raises(OutputError):
        write_cameras(tmp_path / "no/such/folder.json", random_path(0))
