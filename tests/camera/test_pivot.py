"""The pivot: each option on depths whose answer is known, and clear errors elsewhere."""

import numpy as np
import pytest

from ex4d.camera.pivot import nearest_depth, resolve_pivot
from ex4d.core.arrays import Bool, Float32
from ex4d.errors import CameraPathError


@pytest.fixture
def frame() -> tuple[Float32, Bool]:
    """30x60: background 9, a subject at 4 in the right half of the centre, one wrong near pixel at the edge."""
    depth = np.full((30, 60), 9.0, np.float32)
    depth[10:20, 30:40] = 4.0
    depth[0, 0] = 0.01
    valid = np.ones(depth.shape, bool)
    valid[25, 50] = False
    depth[25, 50] = 0
    return depth, valid


def test_auto_is_the_20th_percentile_of_the_central_third(frame: tuple[Float32, Bool]) -> None:
    depth, valid = frame
    assert resolve_pivot("auto", depth, valid) == 4.0
    ramp = np.tile(np.arange(1, 61, dtype=np.float32), (30, 1))
    expected = np.percentile(ramp[10:20, 20:40], 20)
    assert resolve_pivot("default", ramp, np.ones(ramp.shape, bool)) == pytest.approx(expected)


def test_near_ignores_a_wrong_pixel_and_nearest_does_not(frame: tuple[Float32, Bool]) -> None:
    assert resolve_pivot("near", *frame) == 4.0
    assert nearest_depth(*frame) == pytest.approx(0.01)


def test_invalid_pixels_do_not_count(frame: tuple[Float32, Bool]) -> None:
    depth, valid = frame
    valid = valid & (depth != np.float32(0.01))
    assert nearest_depth(depth, valid) == 4.0
    assert resolve_pivot("MEDIAN", depth, valid) == 9.0


@pytest.mark.parametrize(("option", "value"), [("35,15", 4.0), ("35.9,15.9", 4.0), ("0,29", 9.0), ("60,30", 9.0)])
def test_pixel(frame: tuple[Float32, Bool], option: str, value: float) -> None:
    assert resolve_pivot(option, *frame) == value


@pytest.mark.parametrize(("option", "value"), [("2.5", 2.5), ("1e-3", 0.001), (" 7 ", 7.0)])
def test_value(frame: tuple[Float32, Bool], option: str, value: float) -> None:
    assert resolve_pivot(option, *frame) == value


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("far", "--pivot auto, near, median"),
        ("", "--pivot auto"),
        ("0", "positive depth"),
        ("-2", "positive depth"),
        ("nan", "--pivot auto"),
        ("61,3", "60x30 working frame"),
        ("-1,3", "60x30 working frame"),
        ("1,2,3", "--pivot auto"),
        ("1,", "--pivot auto"),
        ("50.5,25.5", "the nearest known pixel is --pivot"),
    ],
)
def test_errors(frame: tuple[Float32, Bool], option: str, words: str) -> None:
    with pytest.raises(CameraPathError) as error:
        resolve_pivot(option, *frame)
    assert words in str(error.value)


def test_no_valid_depth(frame: tuple[Float32, Bool]) -> None:
    depth, valid = frame
    center = valid.copy()
    center[10:20, 20:40] = False
    with pytest.raises(CameraPathError, match=r"central third.*--pivot median"):
        resolve_pivot("auto", depth, center)
    for option in ("near", "median", "3,3"):
        with pytest.raises(CameraPathError, match="valid depth"):
            resolve_pivot(option, depth, np.zeros_like(valid))
    with pytest.raises(CameraPathError, match="valid depth"):
        nearest_depth(depth, np.zeros_like(valid))


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (3, 5)])
def test_tiny_frames(shape: tuple[int, int]) -> None:
    assert resolve_pivot("auto", np.full(shape, 2.0, np.float32), np.ones(shape, bool)) == 2.0
