"""nerfstudio's `transforms.json`, and the NeRF-synthetic files of Blender with the same matrices.

`transform_matrix` is camera-to-world with OpenGL camera axes; the world is left as it is. Pixels count
from the corner. https://docs.nerf.studio/quickstart/data_conventions.html
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from ex4d.core.arrays import Float64
from ex4d.core.camera import CameraPath
from ex4d.errors import CameraPathError
from ex4d.io.atomic import write_json_atomic
from ex4d.io.cameras.common import (
    MAX_CAMERAS,
    MAX_SIDE_PX,
    OPENGL,
    RawCameras,
    Size,
    frame_name,
    order_by_name,
    pinhole_matrix,
    require_no_skew,
    to_world_to_camera,
)
from ex4d.io.intrinsics import to_corner_origin
from ex4d.io.strict_json import get_array, get_float, get_int, get_list, get_object, shown

DISTORTION_KEYS = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
PINHOLE_MODELS = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE")
_MAX_SOURCE_INDEX = 2**31


def read_transforms(obj: dict[str, Any], size: Size | None) -> RawCameras:
    """Cameras of a decoded ``transforms.json``.

    Args:
        obj: the JSON object.
        size: (height, width) of the images, for files that give only `camera_angle_x`.

    Raises:
        CameraPathError: distortion, a missing or wrong value (named by its dotted path).
    """
    model = obj.get("camera_model", "PINHOLE")
    if model not in PINHOLE_MODELS:
        raise CameraPathError("a pinhole camera_model", shown(model), "undistort the images first")
    items = get_list(obj, "frames", "", limit=MAX_CAMERAS)
    frames = [get_object(item, f"frames[{i}]") for i, item in enumerate(items)]
    poses = np.stack([_pose(frame, f"frames[{i}]") for i, frame in enumerate(frames)])
    lenses = [_lens({**obj, **frame}, f"frames[{i}]", size) for i, frame in enumerate(frames)]
    order, source_index, notices = _order(frames)
    return RawCameras(
        K=np.stack([to_corner_origin(lenses[i][0], "nerfstudio") for i in order]),
        world_to_camera=to_world_to_camera(poses[order]),
        source_index=source_index,
        sizes=tuple(lenses[i][1] for i in order),
        notices=notices,
    )


def _pose(frame: dict[str, Any], where: str) -> Float64:
    """camera_to_world float64 [4,4], OpenCV axes; the file may leave out the last row."""
    value = frame.get("transform_matrix")
    num_rows = 3 if isinstance(value, list) and len(value) == 3 else 4
    matrix = np.eye(4)
    matrix[:num_rows] = get_array(frame, "transform_matrix", where, (num_rows, 4))
    return matrix @ OPENGL


def _lens(values: dict[str, Any], where: str, size: Size | None) -> tuple[Float64, Size]:
    """K and (height, width) of a frame; its own values stand before the file's."""
    for key in DISTORTION_KEYS:
        if get_float(values, key, where, 0.0) != 0:
            raise CameraPathError(f"{key} = 0 at {where}", shown(values[key]), "undistort the images first")
    if size is None or "w" in values or "h" in values:
        own = (
            get_int(values, "h", where, low=1, high=MAX_SIDE_PX),
            get_int(values, "w", where, low=1, high=MAX_SIDE_PX),
        )
    else:
        own = size
    cx = get_float(values, "cx", where, own[1] / 2)
    cy = get_float(values, "cy", where, own[0] / 2)
    if "fl_x" in values:
        if size is not None and own is size:
            raise CameraPathError(f"w and h beside fl_x at {where}", "no image size", "add w and h in pixels")
        fx = get_float(values, "fl_x", where)
        return pinhole_matrix(fx, get_float(values, "fl_y", where, fx), cx, cy), own
    fx = _focal(get_float(values, "camera_angle_x", where), own[1], f"{where}.camera_angle_x")
    has_y = "camera_angle_y" in values
    fy = _focal(get_float(values, "camera_angle_y", where), own[0], f"{where}.camera_angle_y") if has_y else fx
    return pinhole_matrix(fx, fy, cx, cy), own


def _focal(angle_rad: float, side: int, where: str) -> float:
    if not 1e-6 < angle_rad < math.pi - 1e-6:
        raise CameraPathError(f"an angle between 0 and pi (radians) at {where}", f"{angle_rad:g}")
    return side / 2 / math.tan(angle_rad / 2)


def _order(frames: list[dict[str, Any]]) -> tuple[list[int], Any, tuple[str, ...]]:
    """By file name where every frame has one; our own files also say the source frame."""
    names = [frame.get("file_path") for frame in frames]
    texts = [name for name in names if isinstance(name, str)]
    if len(texts) == len(frames):
        order, source_index, notices = order_by_name(texts)
    else:
        order, source_index, notices = list(range(len(frames))), np.arange(len(frames), dtype=np.int64), ()
    if all("source_index" in frame for frame in frames):
        found = [get_int(frames[i], "source_index", f"frames[{i}]", low=0, high=_MAX_SOURCE_INDEX) for i in order]
        source_index = np.array(found, dtype=np.int64)
    return order, source_index, notices


def write_transforms(file: Path, path: CameraPath) -> None:
    """Write ``transforms.json``: intrinsics once where all frames share them, else in every frame."""
    require_no_skew(path, "nerfstudio")
    poses = path.camera_to_world @ OPENGL
    shared = bool((path.K[0] == path.K).all())
    frames: list[dict[str, Any]] = []
    for i in range(len(path)):
        frames.append(
            {
                "file_path": f"images/{frame_name(i, int(path.source_index[i]))}",
                "source_index": int(path.source_index[i]),
                **({} if shared else _lens_values(path.K[i])),
                "transform_matrix": poses[i].tolist(),
            }
        )
    head: dict[str, Any] = {"camera_model": "OPENCV", "w": path.width, "h": path.height}
    write_json_atomic(file, {**head, **(_lens_values(path.K[0]) if shared else {}), "frames": frames})


def _lens_values(K: Float64) -> dict[str, float]:
    return {"fl_x": float(K[0, 0]), "fl_y": float(K[1, 1]), "cx": float(K[0, 2]), "cy": float(K[1, 2])}
