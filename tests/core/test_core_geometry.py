"""Projection, rotation and 16-bit depth codes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ex4d.core.camera import Camera, pinhole
from ex4d.core.depth_codes import decode_depth, encode_depth
from ex4d.core.geometry import look_at, pixel_centers, project, rotation_about, unproject
from ex4d.core.seeding import make_rng

_FINITE = st.floats(-20, 20)


@given(x=_FINITE, y=_FINITE, z=_FINITE, u=st.floats(0, 64), v=st.floats(0, 48), depth=st.floats(0.01, 1e4))
def test_project_inverts_unproject(x: float, y: float, z: float, u: float, v: float, depth: float) -> None:
    eye = np.array([x, y, z])
    camera = Camera(
        K=pinhole(focal_px=50, height=48, width=64),
        world_to_camera=look_at(eye, eye + np.array((0.3, -0.2, 1.0))),
        height=48,
        width=64,
    )
    pixel, back = project(camera, unproject(camera, np.array([u, v]), np.array(depth)))
    assert np.abs(pixel - [u, v]).max() < 1e-6
    assert back == pytest.approx(depth, rel=1e-9)


def test_pixel_centres_are_at_one_half() -> None:
    centers = pixel_centers(2, 3)
    assert centers.shape == (2, 3, 2)
    assert centers[1, 2].tolist() == [2.5, 1.5]


def test_look_at_is_opencv() -> None:
    """The target is straight ahead (+z), what is up in the world (−y) is up in the image (−y)."""
    matrix = look_at(np.array([1.0, 2.0, 3.0]), np.array([4.0, 2.0, 3.0]))
    ahead = matrix @ [4, 2, 3, 1]
    above = matrix @ [4, 1, 3, 1]
    assert ahead[:3] == pytest.approx([0, 0, 3])
    assert above[1] < 0
    assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1)
    with pytest.raises(ValueError, match="at the target"):
        look_at(np.zeros(3), np.zeros(3))
    with pytest.raises(ValueError, match="parallel to up"):
        look_at(np.zeros(3), np.array([0.0, 5.0, 0.0]))


def test_rotations_are_right_handed() -> None:
    assert rotation_about("y", np.pi / 2) @ [0, 0, 1] == pytest.approx([1, 0, 0])
    assert rotation_about("x", np.pi / 2) @ [0, 1, 0] == pytest.approx([0, 0, 1])
    assert rotation_about("z", np.pi / 2) @ [1, 0, 0] == pytest.approx([0, 1, 0])
    with pytest.raises(ValueError, match="axis"):
        rotation_about("w", 1.0)


@given(z_min=st.floats(0.01, 100), ratio=st.floats(1.0, 2000.0))
def test_depth_codes_keep_half_a_step_of_disparity(z_min: float, ratio: float) -> None:
    depth = np.array([z_min * ratio], np.float32)
    back, valid = decode_depth(encode_depth(depth, np.array([True]), z_min), z_min)
    assert valid.all()
    assert abs(back[0] / depth[0] - 1) <= ratio / 131070 * 1.01 + 1e-6


def test_depth_codes_mark_invalid_and_never_lose_the_sky() -> None:
    depth = np.array([1.0, 1e9, 0.0, 0.5], np.float32)
    codes = encode_depth(depth, np.array([True, True, False, True]), 1.0)
    assert codes.tolist() == [65535, 1, 0, 65535]
    assert decode_depth(codes, 1.0)[1].tolist() == [True, True, False, True]


def test_seeds_depend_on_the_purpose() -> None:
    assert make_rng(1, "a").integers(1 << 30) == make_rng(1, "a").integers(1 << 30)
    assert make_rng(1, "a").integers(1 << 30) != make_rng(1, "b").integers(1 << 30)
    assert make_rng(1, "a").integers(1 << 30) != make_rng(2, "a").integers(1 << 30)
