"""Camera paths from a few keys in a JSON file.

::

    {"keyframes": [
        {"time": 0.5, "position": [0.4, -0.1, 0.2], "look_at": [0, 0, 3]},
        {"time": 1.0, "position": [0.8, 0, 0.6], "rotation_wxyz": [0.97, 0, -0.24, 0], "fov_x_deg": 40}
    ]}

A key: `time` in [0,1] of the output; `position` in scene units in the frame-0 camera (x right, y down,
z forward); `look_at` [x,y,z] or `rotation_wxyz` (camera-to-world; neither: as the source view looks);
`fov_x_deg` (absent: the source's); `ease` of the way to the next key: `linear`, `smoothstep`, `in` or `out`.
A path starts at the source view: it is put in at time 0 unless `start_at_source` is false.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ex4d.camera.config import PathRequest, linear_progress, smoothstep
from ex4d.camera.splines import catmull_rom, monotone_cubic, squad
from ex4d.core.arrays import Float64, check_array
from ex4d.core.camera import Camera, CameraPath
from ex4d.core.geometry import look_at
from ex4d.core.rotations import matrix_to_quaternion, quaternion_to_matrix
from ex4d.errors import CameraPathError
from ex4d.io.intrinsics import focal_from_fov_x
from ex4d.io.strict_json import (
    get_array,
    get_float,
    get_int,
    get_list,
    get_object,
    read_json_object,
    refuse_unknown_keys,
    shown,
)

Ease = Literal["linear", "smoothstep", "in", "out"]

EASES: dict[Ease, Callable[[Float64], Float64]] = {
    "linear": lambda u: u,
    "smoothstep": smoothstep,
    "in": lambda u: u * u,
    "out": lambda u: u * (2.0 - u),
}
"""How time runs between two keys; all go from 0 to 1."""

MAX_KEYFRAMES = 10_000
SCHEMA_VERSION = 1
_FILE_KEYS = ("schema_version", "start_at_source", "keyframes")
_KEY_KEYS = ("time", "position", "look_at", "rotation_wxyz", "fov_x_deg", "ease")
_IDENTITY = np.array([1.0, 0.0, 0.0, 0.0])
_SAME = 1e-9
"""Below this a key is taken to be the source view itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyframe:
    """One key.

    Attributes:
        time: 0 to 1 of the output.
        position: float64 [3], the eye in scene units, frame-0 camera axes.
        rotation_wxyz: float64 [4], unit, camera-to-world.
        fov_x_deg: horizontal field of view in (0, 180); None keeps the source's.
        ease: of the way to the next key.
    """

    time: float
    position: Float64
    rotation_wxyz: Float64
    fov_x_deg: float | None = None
    ease: Ease = "linear"

    def __post_init__(self) -> None:
        check_array("Keyframe.position", self.position, np.float64, (3,))
        check_array("Keyframe.rotation_wxyz", self.rotation_wxyz, np.float64, (4,))

    @property
    def is_source_view(self) -> bool:
        """True at the origin, unturned, with the source's field of view."""
        moved = max(float(np.abs(self.position).max()), float(np.abs(self.rotation_wxyz[1:]).max()))
        return moved <= _SAME and self.fov_x_deg is None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyframePath:
    """The keys of a file in order of time, and what was put in for the user.

    Attributes:
        keys: at least one, times strictly increasing.
        notices: sentences for people.
    """

    keys: tuple[Keyframe, ...]
    notices: tuple[str, ...] = ()


def read_keyframes(path: Path) -> KeyframePath:
    """Read and check a keyframe file.

    Raises:
        CameraPathError: unreadable, not JSON, or a value out of range (named by its dotted path).
    """
    obj = read_json_object(path)
    try:
        return parse_keyframes(obj)
    except CameraPathError as error:
        raise CameraPathError(error.expected, error.got, error.fix or f"correct {path}") from error


def parse_keyframes(obj: dict[str, Any]) -> KeyframePath:
    """The keys of a decoded keyframe file; puts in the source view at time 0 unless told otherwise.

    Raises:
        CameraPathError: a value is missing, unknown or out of range (named by its dotted path).
    """
    refuse_unknown_keys(obj, _FILE_KEYS, "")
    if "schema_version" in obj:
        get_int(obj, "schema_version", "", low=SCHEMA_VERSION, high=SCHEMA_VERSION)
    start_at_source = obj.get("start_at_source", True)
    if not isinstance(start_at_source, bool):
        raise CameraPathError("true or false at start_at_source", shown(start_at_source))
    items = get_list(obj, "keyframes", "", limit=MAX_KEYFRAMES)
    keys = [_parse_key(item, f"keyframes[{i}]") for i, item in enumerate(items)]
    for i in range(1, len(keys)):
        if keys[i].time <= keys[i - 1].time:
            raise CameraPathError(
                f"a time after {keys[i - 1].time:g} at keyframes[{i}].time",
                f"{keys[i].time:g}",
                "sort the keys by time",
            )
    return _with_start(keys, start_at_source)


def _with_start(keys: list[Keyframe], start_at_source: bool) -> KeyframePath:
    notices: list[str] = []
    first = keys[0]
    if start_at_source and first.time > 0:
        keys = [Keyframe(time=0.0, position=np.zeros(3), rotation_wxyz=_IDENTITY.copy()), *keys]
        notices.append("keyframes: the source view was put in as a key at time 0 (start_at_source)")
    elif start_at_source and not first.is_source_view:
        raise CameraPathError(
            "the source view (position 0 0 0, not turned, no fov_x_deg) at keyframes[0], whose time is 0",
            "another view",
            'give it a later time, or say "start_at_source": false',
        )
    elif first.time > 0:
        notices.append(f"keyframes: the first key is at time {first.time:g} and is held from 0 on")
    if keys[-1].time < 1:
        notices.append(f"keyframes: the last key is at time {keys[-1].time:g} and is held to the end")
    return KeyframePath(keys=tuple(keys), notices=tuple(notices))


def _parse_key(item: Any, where: str) -> Keyframe:
    obj = get_object(item, where)
    refuse_unknown_keys(obj, _KEY_KEYS, where)
    time = get_float(obj, "time", where)
    if not 0.0 <= time <= 1.0:
        raise CameraPathError(f"a time from 0 to 1 at {where}.time", f"{time:g}")
    ease = obj.get("ease", "linear")
    if not isinstance(ease, str) or ease not in EASES:
        raise CameraPathError(f"one of {', '.join(EASES)} at {where}.ease", shown(ease))
    fov = get_float(obj, "fov_x_deg", where) if obj.get("fov_x_deg") is not None else None
    if fov is not None and not 1.0 <= fov <= 170.0:
        raise CameraPathError(f"1 to 170 degrees at {where}.fov_x_deg", f"{fov:g}")
    position = get_array(obj, "position", where, (3,))
    rotation = _parse_rotation(obj, position, where)
    return Keyframe(time=time, position=position, rotation_wxyz=rotation, fov_x_deg=fov, ease=ease)


def _parse_rotation(obj: dict[str, Any], position: Float64, where: str) -> Float64:
    if "look_at" in obj and "rotation_wxyz" in obj:
        raise CameraPathError(f"look_at or rotation_wxyz at {where}", "both", "remove one")
    if "look_at" in obj:
        target = get_array(obj, "look_at", where, (3,))
        try:
            world_to_camera = look_at(position, target)
        except ValueError as error:
            raise CameraPathError(
                f"a target off the vertical line through the eye at {where}.look_at",
                f"{target.tolist()} from {position.tolist()}",
                "move the target, or give rotation_wxyz",
            ) from error
        return matrix_to_quaternion(world_to_camera[:3, :3].T)
    if "rotation_wxyz" not in obj:
        return _IDENTITY.copy()
    quaternion = get_array(obj, "rotation_wxyz", where, (4,))
    length = math.sqrt(float(np.dot(quaternion, quaternion)))
    if abs(length - 1.0) > 0.01:  # rounded to two digits is fine, another meaning of the numbers is not
        raise CameraPathError(f"a unit quaternion w x y z at {where}.rotation_wxyz", f"one of length {length:.3g}")
    return quaternion / length


def build_keyframe_path(keyframes: KeyframePath, request: PathRequest) -> CameraPath:
    """Cameras along the keys: Catmull-Rom positions, squad rotations, monotone fields of view.

    Args:
        keyframes: from `read_keyframes`.
        request: source view and frames; its pivot is not used.

    Returns:
        `CameraPath` of N cameras in the world of source frame 0. A changed field of view scales fx and
        fy alike and keeps the principal point.
    """
    keys = keyframes.keys
    times = np.array([key.time for key in keys])
    t = _eased(keys, times, linear_progress(request.num_frames))
    eyes = catmull_rom(times, np.stack([key.position for key in keys]), t)
    to_world = quaternion_to_matrix(squad(times, np.stack([key.rotation_wxyz for key in keys]), t))
    to_camera = np.swapaxes(to_world, -1, -2)
    matrices = np.repeat(np.eye(4)[None], len(t), axis=0)
    matrices[:, :3, :3] = to_camera
    matrices[:, :3, 3] = -np.einsum("nij,nj->ni", to_camera, eyes)
    return CameraPath(
        K=_intrinsics(keys, times, t, request),
        world_to_camera=matrices + 0.0,
        source_index=request.source_index.copy(),
        height=request.height,
        width=request.width,
    )


def _eased(keys: tuple[Keyframe, ...], times: Float64, t: Float64) -> Float64:
    """Times [N] with each segment's ease applied."""
    out = t.copy()
    for key, start, stop in zip(keys[:-1], times[:-1], times[1:], strict=True):
        inside = (t >= start) & (t <= stop)
        u = (t[inside] - start) / (stop - start)
        out[inside] = start + (stop - start) * EASES[key.ease](u)
    return out


def _intrinsics(keys: tuple[Keyframe, ...], times: Float64, t: Float64, request: PathRequest) -> Float64:
    """float64 [N,3,3]; exactly the source K where no key says otherwise."""
    intrinsics = np.repeat(request.K[None], len(t), axis=0)
    if all(key.fov_x_deg is None for key in keys):
        return intrinsics
    source = Camera(K=request.K, world_to_camera=np.eye(4), height=request.height, width=request.width)
    source_fov = source.fov_x_deg
    fovs = np.array([source_fov if key.fov_x_deg is None else key.fov_x_deg for key in keys])
    for i, fov in enumerate(monotone_cubic(times, fovs, t)):
        if fov != source_fov:
            focal = focal_from_fov_x(float(fov), float(request.K[0, 2]), request.width)
            intrinsics[i, :2, :2] *= focal / request.K[0, 0]
    return intrinsics
