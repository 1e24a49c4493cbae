"""K between conventions and sizes: a point seen by both must land on the same place of the picture."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ex4d.core.camera import Camera
from ex4d.io.intrinsics import PixelConvention, focal_from_fov_x, same_aspect, scale_intrinsics, to_corner_origin

K = np.array([[500.0, 0, 255.5], [0, 510.0, 191.5], [0, 0, 1]])


@pytest.mark.parametrize("convention", ["tum", "record3d", "opencv-calibrated"])
def test_centre_origin_gets_half_a_pixel(convention: PixelConvention) -> None:
    out = to_corner_origin(K, convention)
    assert out[0, 2] == 256.0
    assert out[1, 2] == 192.0
    assert (out[0, 0], out[1, 1]) == (500.0, 510.0)
    assert K[0, 2] == 255.5  # the input stays


@pytest.mark.parametrize("convention", ["ex4d", "colmap", "nerfstudio", "blender", "official", "7scenes"])
def test_corner_origin_is_kept(convention: PixelConvention) -> None:
    assert np.array_equal(to_corner_origin(np.stack([K, K]), convention), np.stack([K, K]))


def test_unknown_convention() -> None:
    with pytest.raises(ValueError, match="colmap"):
        to_corner_origin(K, "kinect")  # pyright: ignore[reportArgumentType]


def test_scaling_moves_pixels_with_the_image() -> None:
    point = np.array([0.3, -0.2, 1.0])
    before, after = K @ point, scale_intrinsics(K, from_size=(400, 512), to_size=(200, 1024)) @ point
    assert after[:2] == pytest.approx(before[:2] * [2.0, 0.5])


def test_aspect() -> None:
    assert same_aspect((1080, 1920), (540, 960))
    assert same_aspect((480, 854), (478, 848))
    assert not same_aspect((480, 640), (640, 480))
    assert not same_aspect((512, 512), (512, 576))


@given(fov=st.floats(1, 175), share=st.floats(0.05, 0.95), width=st.integers(2, 4000))
def test_focal_of_a_field_of_view(fov: float, share: float, width: int) -> None:
    cx = share * width
    focal = focal_from_fov_x(fov, cx, width)
    matrix = np.array([[focal, 0, cx], [0, focal, 1.0], [0, 0, 1]])
    camera = Camera(K=matrix, world_to_camera=np.eye(4), height=2, width=width)
    assert camera.fov_x_deg == pytest.approx(fov, abs=1e-9)
