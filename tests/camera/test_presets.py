"""Every preset: starts at the source view, stays rigid, goes where its name says, and is listed."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ex4d.camera.build import build_path
from ex4d.camera.config import PathRequest, linear_progress, smoothstep
from ex4d.camera.presets import DEGREES, PRESETS, presets_help
from ex4d.core.camera import CameraPath
from ex4d.core.geometry import project

NAMES = ["60" if name == DEGREES else name for name in PRESETS]
SNAPSHOT = Path(__file__).parents[1] / "data/camera_presets.txt"


def _request(num_frames: int = 11, pivot: float = 3.0, seed: int = 0) -> PathRequest:
    return PathRequest(
        K=np.array([[400.0, 0, 310], [0, 420.0, 250], [0, 0, 1]]),
        height=480,
        width=640,
        source_index=np.arange(num_frames),
        pivot_depth=pivot,
        nearest_depth=1.2,
        seed=seed,
    )


def _path(spec: str, **kwargs: int) -> CameraPath:
    return build_path(spec, _request(**kwargs))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None)
@given(num_frames=st.integers(1, 40), pivot=st.floats(0.01, 1e4), seed=st.integers(0, 2**32))
def test_starts_at_the_source_view(name: str, num_frames: int, pivot: float, seed: int) -> None:
    request = _request(num_frames=num_frames, pivot=pivot, seed=seed)
    path = build_path(name, request)
    assert np.array_equal(path.world_to_camera[0], np.eye(4))
    assert not np.signbit(path.world_to_camera[0]).any()
    assert np.array_equal(path.K[0], request.K)
    assert np.array_equal(path.source_index, request.source_index)
    assert len(path) == num_frames


@pytest.mark.parametrize("name", [n for n in PRESETS if PRESETS[n].values and n != DEGREES])
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_allowed_value_gives_rigid_cameras(name: str, data: st.DataObject) -> None:
    values = [data.draw(st.floats(value.low, value.high)) for value in PRESETS[name].values]
    path = _path(f"{name}:{','.join(map(repr, values))}")
    rotation = path.world_to_camera[:, :3, :3]
    assert np.abs(rotation @ np.swapaxes(rotation, 1, 2) - np.eye(3)).max() < 1e-12
    assert np.linalg.det(rotation) == pytest.approx(np.ones(len(path)))


@pytest.mark.parametrize("name", [n for n in NAMES if n in PRESETS and PRESETS[n].closed])
def test_closed_paths_return(name: str) -> None:
    path = _path(name, num_frames=30)
    assert np.abs(path.world_to_camera[-1] - np.eye(4)).max() <= 1e-12
    if not PRESETS[name].official:
        assert np.array_equal(path.world_to_camera[-1], np.eye(4))
    if name != "static":
        assert np.abs(path.world_to_camera[10] - np.eye(4)).max() > 0.05


@pytest.mark.parametrize("name", [n for n in PRESETS if not PRESETS[n].closed and n != DEGREES])
def test_open_paths_end_elsewhere(name: str) -> None:
    path = _path(name)
    assert np.abs(path.world_to_camera[-1] - np.eye(4)).max() > 0.001


@settings(max_examples=30, deadline=None)
@given(yaw=st.floats(-180, 180), elevation=st.floats(-85, 85), pivot=st.floats(0.1, 1e3))
def test_orbits_keep_their_radius_and_centre_the_pivot(yaw: float, elevation: float, pivot: float) -> None:
    path = build_path(f"arc:{yaw!r},{elevation!r}", _request(pivot=pivot))
    target = np.array([0, 0, pivot])
    assert np.linalg.norm(path.center - target, axis=1) == pytest.approx(np.full(len(path), pivot), rel=1e-9)
    for i in range(len(path)):
        pixel, z = project(path[i], target)
        assert pixel == pytest.approx([310, 250], abs=1e-6)
        assert z == pytest.approx(pivot)


RIGHT, DOWN, FORWARD = np.eye(3)


@pytest.mark.parametrize(
    ("spec", "direction"),
    [
        ("60", RIGHT),
        ("-60", -RIGHT),
        ("orbit-right", RIGHT),
        ("orbit-left", -RIGHT),
        ("orbit-up", -DOWN),
        ("orbit-down", DOWN),
        ("arc:20,0", RIGHT),
        ("arc:0,20", -DOWN),
        ("dolly-in", FORWARD),
        ("dolly-out", -FORWARD),
        ("dolly-zoom", FORWARD),
        ("dolly-zoom:-0.5", -FORWARD),
        ("truck-right", RIGHT),
        ("truck-left", -RIGHT),
        ("pedestal-up", -DOWN),
        ("pedestal-down", DOWN),
        ("crane-up", -DOWN),
        ("crane-down", DOWN),
    ],
)
def test_cameras_move_where_the_name_says(spec: str, direction: np.ndarray) -> None:
    centers = _path(spec).center
    along = centers @ direction
    assert (np.diff(along) > 0).all()
    assert along[-1] > 0.2


@pytest.mark.parametrize(
    ("spec", "axis", "direction"),
    [
        ("pan-right", FORWARD, RIGHT),
        ("pan-left", FORWARD, -RIGHT),
        ("tilt-up", FORWARD, -DOWN),
        ("tilt-down", FORWARD, DOWN),
        ("roll-cw", RIGHT, DOWN),
        ("roll-ccw", RIGHT, -DOWN),
    ],
)
def test_cameras_turn_where_the_name_says(spec: str, axis: np.ndarray, direction: np.ndarray) -> None:
    """The camera's forward (or right) axis moves that way by sin 30°, and the eye stays."""
    path = _path(spec)
    assert np.abs(path.center).max() == 0
    turned = path.camera_to_world[:, :3, :3] @ axis
    assert turned[-1] @ direction == pytest.approx(0.5)
    assert turned[-1] @ axis == pytest.approx(np.cos(np.radians(30)))


def test_roll_cw_turns_the_image_counter_clockwise() -> None:
    pixel, _ = project(_path("roll-cw")[-1], np.array([1.0, 0.0, 3.0]))
    assert pixel[1] < 250  # a point right of the centre rises


@pytest.mark.parametrize(
    ("spec", "end"),
    [
        ("orbit-left:90", [-3, 0, 3]),
        ("orbit-up:60", [0, -3 * np.sin(np.pi / 3), 1.5]),
        ("arc", [3 * 0.5 * np.cos(np.pi / 6), -1.5, 3 - 3 * np.cos(np.pi / 6) ** 2]),
        ("dolly-in", [0, 0, 0.9]),
        ("dolly-out:1", [0, 0, -3]),
        ("truck-left:0.5", [-1.5, 0, 0]),
        ("pedestal-down:2", [0, 6, 0]),
    ],
)
def test_ends_at_the_formula(spec: str, end: list[float]) -> None:
    assert _path(spec).center[-1] == pytest.approx(np.array(end), abs=1e-12)


def test_full_swings_to_ninety_degrees_both_ways_without_a_rise() -> None:
    centers = _path("full", num_frames=201).center
    s = smoothstep(linear_progress(201))
    yaw = np.pi / 2 * np.sin(2 * np.pi * s)
    assert centers[:-1] == pytest.approx(
        np.stack([3 * np.sin(yaw), 0 * yaw, 3 - 3 * np.cos(yaw)], axis=1)[:-1], abs=1e-9
    )
    assert centers[:, 0].max() == pytest.approx(3, abs=1e-3)
    assert centers[:, 0].min() == pytest.approx(-3, abs=1e-3)


def test_fixed_rotation_moves_do_not_turn() -> None:
    for name in ("dolly-in", "dolly-zoom", "truck-left", "pedestal-up"):
        assert np.array_equal(_path(name).world_to_camera[:, :3, :3], np.repeat(np.eye(3)[None], 11, axis=0))


def test_crane_looks_at_the_pivot() -> None:
    path = _path("crane-up:1")
    for i in range(len(path)):
        assert project(path[i], np.array([0, 0, 3.0]))[0] == pytest.approx([310, 250])


@pytest.mark.parametrize("spec", ["dolly-zoom:0.5", "dolly-zoom:-2"])
def test_dolly_zoom_keeps_the_size_of_the_subject(spec: str) -> None:
    path = _path(spec)
    edge = np.array([[-0.5, 0.3, 3.0], [0.5, -0.3, 3.0]])
    first = project(path[0], edge)[0]
    for i in range(len(path)):
        assert project(path[i], edge)[0] == pytest.approx(first)
    assert np.ptp(path.K[:, 0, 0]) > 100
    assert (path.K[:, :2, 2] == path.K[0, :2, 2]).all()


def test_spiral_and_eight_have_the_promised_extent() -> None:
    spiral = np.linalg.norm(_path("spiral:0.4", num_frames=301).center[:, :2], axis=1)
    assert spiral.max() == pytest.approx(1.2, rel=1e-3)
    eight = _path("figure-eight:0.4", num_frames=301).center
    assert np.abs(eight[:, 0]).max() == pytest.approx(1.2, rel=1e-3)
    assert np.abs(eight[:, 1]).max() == pytest.approx(0.6, rel=1e-3)
    assert eight[40, 0] > 0 > eight[40, 1]  # first to the right and up


def test_ours_start_and_stop_at_rest_and_official_ones_do_not() -> None:
    ours = np.linalg.norm(np.diff(_path("orbit-left", num_frames=101).center, axis=0), axis=1)
    assert ours[0] < 0.1 * ours[50] > ours[-1]
    official = np.linalg.norm(np.diff(_path("zoom_out", num_frames=101).center, axis=0), axis=1)
    assert official == pytest.approx(np.full(100, official[0]))


def test_handheld_is_seeded_smooth_and_bounded() -> None:
    path = _path("handheld:1", num_frames=400)
    assert np.array_equal(path.world_to_camera, _path("handheld:1", num_frames=400).world_to_camera)
    assert not np.array_equal(path.world_to_camera, _path("handheld:1", num_frames=400, seed=1).world_to_camera)
    assert np.array_equal(path.world_to_camera[:50], _path("handheld:1", num_frames=50).world_to_camera)
    centers = path.center
    assert 0.02 < np.sqrt((centers[50:] ** 2).mean()) / 3.0 < 0.1  # 0.05 p by design
    speed, jerk = np.diff(centers, axis=0), np.diff(centers, n=3, axis=0)
    assert np.abs(jerk).max() < 0.5 * np.abs(speed).max()  # white noise would give about 3
    weak = _path("handheld:0.1", num_frames=400).center
    assert weak == pytest.approx(0.1 * centers, abs=1e-12)


def test_handheld_stays_in_its_band() -> None:
    x = _path("handheld:1", num_frames=3000).center[60:, 0]
    power = np.abs(np.fft.rfft((x - x.mean()) * np.hanning(len(x)))) ** 2
    hz = np.fft.rfftfreq(len(x), 1 / 30)
    assert power[(hz > 0.2) & (hz < 3.2)].sum() > 0.999 * power.sum()


def test_table_snapshot() -> None:
    """`ex4d run --help` and the docs print this; `tests/data/camera_presets.txt` is what people have seen."""
    assert presets_help() + "\n" == SNAPSHOT.read_text(encoding="utf-8")
