"""Official presets equal the release: the oracle's look-at matrices, the flower npz, and the zoom formulas."""

import os
from pathlib import Path

import numpy as np
import pytest

from ex4d.camera.build import build_path
from ex4d.camera.config import PathRequest
from ex4d.core.arrays import Float64
from ex4d.core.camera import pinhole
from ex4d.io.cameras.files import read_cameras
from helpers import load_safetensors

ORACLE = Path(os.environ.get("EX4D_GEOMETRY_ORACLE", Path(__file__).parents[1] / "data/geometry_oracle.safetensors"))
FLOWER_RADIUS = 2.7401087


def _request(radius: float, num_frames: int, overshoot: bool = False) -> PathRequest:
    return PathRequest(
        K=pinhole(focal_px=500.0, height=512, width=512),
        height=512,
        width=512,
        source_index=np.arange(num_frames),
        pivot_depth=9.0,  # must not matter: official presets turn about nearest + 0.15
        nearest_depth=radius - 0.15,
        official_overshoot=overshoot,
    )


@pytest.fixture(scope="module")
def oracle() -> dict[str, np.ndarray]:
    return load_safetensors(ORACLE)


def _opencv(look_at: np.ndarray) -> Float64:
    matrices = look_at.astype(np.float64)
    matrices[:, 0] *= -1
    return matrices


@pytest.mark.parametrize("cam", ["30", "60", "90", "-45", "180"])
@pytest.mark.parametrize("num_frames", [25, 49, 81])
def test_equals_the_oracle(oracle: dict[str, np.ndarray], cam: str, num_frames: int) -> None:
    radius = float(oracle["depth_min"][0])
    path = build_path(cam, _request(radius, num_frames, overshoot=num_frames != 49))
    want = _opencv(oracle[f"look_at_{cam}_{num_frames}"])
    assert np.abs(path.world_to_camera[:, :3, :3] - want[:, :3, :3]).max() <= 1e-5
    assert np.abs(path.world_to_camera[:, :3, 3] - want[:, :3, 3]).max() <= 1e-5 * radius


@pytest.mark.parametrize("cam", ["60", "180"])
@pytest.mark.parametrize("num_frames", [25, 81])
def test_no_overshoot_unless_asked(oracle: dict[str, np.ndarray], cam: str, num_frames: int) -> None:
    """Any frame count ends where 49 frames end, and passes through the same poses."""
    radius = float(oracle["depth_min"][0])
    path = build_path(cam, _request(radius, num_frames))
    reference = build_path(cam, _request(radius, 49))
    assert np.allclose(path.world_to_camera[-1], reference.world_to_camera[-1], atol=1e-12)
    assert np.allclose(path.world_to_camera[num_frames // 2], reference.world_to_camera[24], atol=1e-12)
    assert np.abs(path.world_to_camera - _opencv(oracle[f"look_at_{cam}_{num_frames}"])).max() > 0.01


def test_overshoot_leaves_49_frames_alone() -> None:
    plain, faulty = (build_path("60", _request(2.0, 49, overshoot=flag)) for flag in (False, True))
    assert np.array_equal(plain.world_to_camera, faulty.world_to_camera)


def test_180_equals_the_flower_file(shared: Path) -> None:
    """Both our own conversion of its axes and the npz reader give the preset's path."""
    file = shared / "clips/ex4d_reference/flower_camera_180.npz"
    with np.load(file, allow_pickle=False) as archive:
        want = np.diag([1.0, -1, -1, 1]) @ archive["extrinsics"].astype(np.float64)
    path = build_path("180", _request(FLOWER_RADIUS, 49))
    assert np.abs(path.world_to_camera - want).max() <= 1e-5
    loaded = read_cameras(file, height=512, width=512)
    assert loaded.notices == ()
    assert np.abs(loaded.path.world_to_camera - path.world_to_camera).max() <= 1e-5
    assert np.array_equal(loaded.path.K, path.K)


@pytest.mark.parametrize("num_frames", [2, 25, 49])
def test_zoom_formulas(num_frames: int) -> None:
    r = 2.5
    zoom_in = build_path("zoom_in", _request(r, num_frames))
    zoom_out = build_path("zoom_out", _request(r, num_frames))
    assert np.allclose(zoom_in.center[:, 2], np.linspace(0, r - 0.01, num_frames), atol=1e-12)
    assert np.allclose(zoom_out.center[:, 2], np.linspace(0, -r, num_frames), atol=1e-12)
    for path in (zoom_in, zoom_out):
        assert np.array_equal(path.world_to_camera[:, :3, :3], np.repeat(np.eye(3)[None], num_frames, axis=0))
        assert np.array_equal(path.center[:, :2], np.zeros((num_frames, 2)))


def test_a_chosen_pivot_moves_the_official_one() -> None:
    request = PathRequest(
        K=pinhole(focal_px=500.0, height=512, width=512),
        height=512,
        width=512,
        source_index=np.arange(5),
        pivot_depth=4.0,
        nearest_depth=1.0,
        pivot_given=True,
    )
    assert np.allclose(build_path("90", request).center[-1], [4.0, -0.8, 4.0])
