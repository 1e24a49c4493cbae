"""Keyframe files: poses at the keys, where paths start, and errors that name the place."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ex4d.camera.config import PathRequest
from ex4d.camera.keyframes import build_keyframe_path, parse_keyframes, read_keyframes
from ex4d.core.camera import CameraPath, pinhole
from ex4d.core.geometry import project
from ex4d.errors import CameraPathError


def _request(num_frames: int = 21) -> PathRequest:
    return PathRequest(
        K=pinhole(focal_px=300, height=200, width=320),
        height=200,
        width=320,
        source_index=np.arange(num_frames),
        pivot_depth=2.0,
        nearest_depth=1.0,
    )


def _path(keys: list[dict[str, Any]], num_frames: int = 21, **top: Any) -> CameraPath:
    return build_keyframe_path(parse_keyframes({"keyframes": keys, **top}), _request(num_frames))


SWING = [
    {"time": 0.5, "position": [0.4, -0.1, 0.2], "look_at": [0, 0, 3]},
    {"time": 1.0, "position": [0.8, 0, 0.6], "rotation_wxyz": [0.96, 0, -0.28, 0], "fov_x_deg": 40},
]


def test_starts_at_the_source_view_and_meets_its_keys(tmp_path: Path) -> None:
    file = tmp_path / "schlüssel.json"
    file.write_text(json.dumps({"keyframes": SWING}), encoding="utf-8")
    keyframes = read_keyframes(file)
    assert "source view was put in" in keyframes.notices[0]
    path = build_keyframe_path(keyframes, _request())
    assert np.array_equal(path.world_to_camera[0], np.eye(4))
    assert np.array_equal(path.K[0], _request().K)
    assert path.center[10] == pytest.approx([0.4, -0.1, 0.2])
    assert project(path[10], np.array([0, 0, 3.0]))[0] == pytest.approx([160, 100])
    assert path.center[20] == pytest.approx([0.8, 0, 0.6])
    # rotation_wxyz is camera-to-world: 2 acos(0.96) about -y turns the view to the left.
    angle = 2 * np.arccos(0.96)
    assert path.camera_to_world[20, :3, 2] == pytest.approx([-np.sin(angle), 0, np.cos(angle)])
    assert path.fov_x_deg[20] == pytest.approx(40)
    assert path.K[20, 1, 1] == pytest.approx(path.K[20, 0, 0])


def test_fields_of_view_run_smoothly_and_off_centre_principal_points_count() -> None:
    keys = [{"time": 1, "position": [0, 0, 0], "fov_x_deg": 100}]
    keyframes = parse_keyframes({"keyframes": keys})
    intrinsics = np.array([[300.0, 0, 100], [0, 310.0, 90], [0, 0, 1]])
    request = PathRequest(
        K=intrinsics, height=200, width=320, source_index=np.arange(9), pivot_depth=1.0, nearest_depth=1.0
    )
    path = build_keyframe_path(keyframes, request)
    assert path.fov_x_deg[-1] == pytest.approx(100)
    assert (np.diff(path.fov_x_deg) > 0).all()
    assert np.array_equal(path.K[0], intrinsics)
    assert path.K[:, 0, 0] / path.K[:, 1, 1] == pytest.approx(np.full(9, 300 / 310))


def test_start_at_source_false_starts_at_the_first_key() -> None:
    path = _path(SWING, start_at_source=False)
    assert path.center[0] == pytest.approx([0.4, -0.1, 0.2])
    notices = parse_keyframes({"keyframes": SWING, "start_at_source": False}).notices
    assert notices == ("keyframes: the first key is at time 0.5 and is held from 0 on",)


def test_a_first_key_that_is_the_source_view_needs_no_notice() -> None:
    keys = [{"time": 0, "position": [0, 0, 0], "look_at": [0, 0, 5]}, {"time": 1, "position": [1, 0, 0]}]
    assert parse_keyframes({"keyframes": keys}).notices == ()
    assert _path(keys).center[10] == pytest.approx([0.5, 0, 0])


def test_an_early_last_key_is_held_and_said() -> None:
    keys = [{"time": 0.5, "position": [1, 0, 0]}]
    assert "held to the end" in parse_keyframes({"keyframes": keys}).notices[-1]
    assert _path(keys).center[10:] == pytest.approx(np.tile([1.0, 0, 0], (11, 1)))


def test_one_frame_is_the_start() -> None:
    assert np.array_equal(_path(SWING, num_frames=1).world_to_camera[0], np.eye(4))


@pytest.mark.parametrize(
    ("ease", "middle"), [("linear", 0.25), ("smoothstep", 0.15625), ("in", 0.0625), ("out", 0.4375)]
)
def test_eases(ease: str, middle: float) -> None:
    keys = [{"time": 0, "position": [0, 0, 0], "ease": ease}, {"time": 1, "position": [1, 0, 0]}]
    path = _path(keys)
    assert path.center[5, 0] == pytest.approx(middle)
    assert path.center[-1, 0] == pytest.approx(1)


def _broken(index: int, **changes: Any) -> dict[str, Any]:
    keys = [{"time": 0.2, "position": [0, 0, 0]}, {"time": 0.6, "position": [1, 0, 0]}]
    keys[index] |= changes
    return {"keyframes": [{k: v for k, v in key.items() if v != "absent"} for key in keys]}


@pytest.mark.parametrize(
    ("obj", "words"),
    [
        ({}, "keyframes"),
        ({"keyframes": []}, "keyframes"),
        ({"keyframes": [3]}, "keyframes[0]"),
        ({"keyframes": [{}], "keyframe": 1}, "did you mean 'keyframes'"),
        ({**_broken(0), "start_at_source": 1}, "start_at_source"),
        ({**_broken(0), "schema_version": 2}, "schema_version"),
        (_broken(1, time="absent"), "keyframes[1].time"),
        (_broken(1, time=1.5), "keyframes[1].time"),
        (_broken(1, time=True), "keyframes[1].time"),
        (_broken(1, time=0.2), "after 0.2 at keyframes[1].time"),
        (_broken(1, position="absent"), "keyframes[1].position"),
        (_broken(1, position=[1, 2]), "keyframes[1].position"),
        (_broken(1, position=[1, 2, "x"]), "keyframes[1].position[2]"),
        (_broken(1, position=[1, 2, 10**400]), "keyframes[1].position[2]"),
        (_broken(1, look_at=[1, 0, 0]), "keyframes[1].look_at"),
        (_broken(1, look_at=[1, 5, 0]), "keyframes[1].look_at"),
        (_broken(1, look_at=[0, 0, 1], rotation_wxyz=[1, 0, 0, 0]), "both"),
        (_broken(1, rotation_wxyz=[1, 1, 0, 0]), "unit quaternion"),
        (_broken(1, rotation_wxyz=[0, 0, 0, 0]), "keyframes[1].rotation_wxyz"),
        (_broken(1, fov_x_deg=180), "keyframes[1].fov_x_deg"),
        (_broken(1, fov_x_deg="wide"), "keyframes[1].fov_x_deg"),
        (_broken(1, ease="bounce"), "keyframes[1].ease"),
        (_broken(1, ease=["in"]), "keyframes[1].ease"),
        (_broken(1, fov=30), "did you mean 'fov_x_deg'"),
        (_broken(0, time=0, position=[1, 0, 0]), '"start_at_source": false'),
    ],
)
def test_errors_name_the_place(obj: dict[str, Any], words: str) -> None:
    with pytest.raises(CameraPathError) as error:
        parse_keyframes(obj)
    assert words in str(error.value)


@pytest.mark.parametrize(
    "text", ["", "[1]", '{"keyframes": [{"time": NaN}]}', "{" * 100_000, "\xff", '{"a": 1' + "0" * 9999]
)
def test_broken_files(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(CameraPathError) as error:
        read_keyframes(file)
    assert "keys.json" in str(error.value)
    with pytest.raises(CameraPathError):
        read_keyframes(tmp_path / "missing.json")
