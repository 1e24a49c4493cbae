"""What people type: parsing, names for files, error messages, and paths that start elsewhere."""

import numpy as np
import pytest

from ex4d.camera.build import build_path, parse_spec, path_notices, relative_to
from ex4d.camera.config import PathRequest
from ex4d.core.camera import pinhole
from ex4d.core.geometry import look_at
from ex4d.errors import CameraPathError


def _request(num_frames: int = 5) -> PathRequest:
    return PathRequest(
        K=pinhole(focal_px=300, height=200, width=300),
        height=200,
        width=300,
        source_index=np.full(num_frames, 7),
        pivot_depth=2.0,
        nearest_depth=1.0,
    )


@pytest.mark.parametrize(
    ("spec", "name", "values", "slug"),
    [
        ("60", "N", (60.0,), "60"),
        ("-45", "N", (-45.0,), "-45"),
        ("+22.5", "N", (22.5,), "22.5"),
        (".5", "N", (0.5,), "0.5"),
        ("-0", "N", (0.0,), "0"),
        ("180", "180", (), "180"),
        ("180.0", "180", (), "180"),
        (" full ", "full", (), "full"),
        ("zoom_in", "zoom_in", (), "zoom_in"),
        ("orbit-left", "orbit-left", (30.0,), "orbit-left"),
        ("orbit-left:45", "orbit-left", (45.0,), "orbit-left_45"),
        ("arc:-20,10", "arc", (-20.0, 10.0), "arc_-20_10"),
        ("truck-right:0.125", "truck-right", (0.125,), "truck-right_0.125"),
        ("truck-right", "truck-right", (0.3,), "truck-right"),
        ("handheld", "handheld", (0.3,), "handheld"),
    ],
)
def test_parses(spec: str, name: str, values: tuple[float, ...], slug: str) -> None:
    parsed = parse_spec(spec)
    assert (parsed.preset.name, parsed.values, parsed.slug) == (name, values, slug)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("orbit-lef:30", "did you mean orbit-left"),
        ("Orbit-Left", "did you mean orbit-left"),
        ("orbit_right", "did you mean orbit-right"),
        ("zoom-in", "did you mean zoom_in"),
        ("orbit", "orbit-down"),
        ("banana", "figure-eight"),
        ("", "known: a number from -90 to 90"),
        ("N", "known:"),
        ("91", "from -90 to 90"),
        ("-180", "orbit-left:180"),
        ("1e1", "camera preset"),
        ("nan", "camera preset"),
        ("60:3", "camera preset"),
        ("full:3", "type --cam full"),
        ("180:3", "without a value"),
        ("orbit-left:", "DEG from 0 to 180"),
        ("orbit-left:x", "'x'"),
        ("orbit-left:nan", "0 to 180"),
        ("orbit-left:inf", "0 to 180"),
        ("orbit-left:-30", "0 to 180"),
        ("orbit-up:86", "0 to 85"),
        ("dolly-in:1", "0 to 0.99"),
        ("arc:30", "arc:YAW,ELEV (2 numbers)"),
        ("arc:30,95", "ELEV from -85 to 85"),
        ("arc:1,2,3", "2 numbers"),
    ],
)
def test_typing_errors_say_what_is_right(spec: str, words: str) -> None:
    with pytest.raises(CameraPathError) as error:
        parse_spec(spec)
    assert words in str(error.value)
    assert "ex4d run --help" in str(error.value) or "--cam" in str(error.value)


def test_a_frozen_moment_repeats_its_frame() -> None:
    assert build_path("full", _request()).source_index.tolist() == [7] * 5


def test_the_path_does_not_share_memory_with_its_request() -> None:
    request = _request()
    path = build_path("static", request)
    path.source_index[0] = 1
    path.K[0, 0, 0] = 1.0
    assert request.source_index[0] == 7
    assert request.K[0, 0] == 300


def test_one_frame_is_the_source_view_and_says_so() -> None:
    path = build_path("orbit-left:40", _request(1))
    assert np.array_equal(path.world_to_camera, np.eye(4)[None])
    assert "source view" in path_notices("orbit-left:40", _request(1))[0]
    assert path_notices("static", _request(1)) == ()
    assert path_notices("orbit-left:40", _request(2)) == ()


def test_relative_to_starts_at_another_camera() -> None:
    start = look_at(np.array([1.0, 0.5, -2.0]), np.array([0.0, 0, 4.0]))
    path = build_path("truck-right:1", _request())
    moved = relative_to(path, start)
    assert np.allclose(moved.world_to_camera[0], start)
    # 2 units along the start camera's own right axis.
    assert np.allclose(moved.center[-1], [1.0, 0.5, -2.0] + 2 * start[0, :3])
    shaken = np.stack([start, np.eye(4), start, start, np.eye(4)])
    assert np.allclose(relative_to(path, shaken).world_to_camera[1], path.world_to_camera[1])


@pytest.mark.parametrize("field", ["pivot_depth", "nearest_depth"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_request_names_its_bad_field(field: str, value: float) -> None:
    depths = {"pivot_depth": 1.0, "nearest_depth": 1.0} | {field: value}
    with pytest.raises(CameraPathError, match=f"PathRequest.{field}"):
        PathRequest(
            K=np.eye(3),
            height=4,
            width=4,
            source_index=np.arange(2),
            pivot_depth=depths["pivot_depth"],
            nearest_depth=depths["nearest_depth"],
        )


@pytest.mark.parametrize("num_frames", [0, 100_001])
def test_request_bounds_the_frames(num_frames: int) -> None:
    with pytest.raises(CameraPathError, match="--num-frames"):
        _request(num_frames)
