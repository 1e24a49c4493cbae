"""Cameras for Blender: a script that builds an animated camera, and the same data as JSON to read back.

Blender's camera looks along -z with y up (OpenGL axes) in a world whose z is up; ours is turned so that
the scene stands upright: (x, y, z) becomes (x, z, -y). Its lens is in millimetres of a sensor as wide as
the image (`sensor_fit` HORIZONTAL); the principal point is a shift in image widths, y up; unequal focal
lengths are the scene's pixel aspect.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ex4d.core.arrays import Float64
from ex4d.core.camera import CameraPath
from ex4d.errors import CameraPathError
from ex4d.io.atomic import write_bytes_atomic, write_json_atomic
from ex4d.io.cameras.common import (
    MAX_CAMERAS,
    MAX_SIDE_PX,
    OPENGL,
    RawCameras,
    pinhole_matrix,
    require_no_skew,
    to_world_to_camera,
)
from ex4d.io.intrinsics import to_corner_origin
from ex4d.io.strict_json import get_array, get_float, get_int, get_list, get_object

FORMAT = "ex4d-blender"
SCHEMA_VERSION = 1
SENSOR_WIDTH_MM = 36.0
WORLD = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
"""Blender's world from ours."""

_SCRIPT = '''"""An animated camera made by ex4d: Blender > Scripting > open this file > Run."""

import json

import bpy
from mathutils import Matrix

DATA = json.loads(r"""
@DATA@
""")

scene = bpy.context.scene
scene.render.resolution_x = DATA["width"]
scene.render.resolution_y = DATA["height"]
scene.render.resolution_percentage = 100
scene.render.pixel_aspect_x = DATA["pixel_aspect_x"]
scene.render.pixel_aspect_y = DATA["pixel_aspect_y"]
scene.frame_start = DATA["frames"][0]["frame"]
scene.frame_end = DATA["frames"][-1]["frame"]

lens = bpy.data.cameras.new("ex4d")
lens.sensor_fit = "HORIZONTAL"
lens.sensor_width = DATA["sensor_width_mm"]
camera = bpy.data.objects.new("ex4d", lens)
scene.collection.objects.link(camera)
scene.camera = camera
camera.rotation_mode = "QUATERNION"

previous = None
for frame in DATA["frames"]:
    camera.matrix_world = Matrix(frame["matrix_world"])
    if previous is not None:
        camera.rotation_quaternion.make_compatible(previous)
    previous = camera.rotation_quaternion.copy()
    lens.lens, lens.shift_x, lens.shift_y = frame["lens_mm"], frame["shift_x"], frame["shift_y"]
    for owner, name in (
        (camera, "location"),
        (camera, "rotation_quaternion"),
        (lens, "lens"),
        (lens, "shift_x"),
        (lens, "shift_y"),
    ):
        owner.keyframe_insert(name, frame=frame["frame"])
'''


def blender_to_dict(path: CameraPath) -> dict[str, Any]:
    """The data of script and side file; frame numbers start at 1, as Blender's do.

    Raises:
        CameraPathError: skew, or a ratio fx/fy that changes on the way (Blender has one for the scene).
    """
    require_no_skew(path, "Blender")
    aspects = path.K[:, 0, 0] / path.K[:, 1, 1]
    if np.ptp(aspects) > 1e-9 * aspects[0]:
        raise CameraPathError("one ratio fx/fy for Blender", "a changing one", "export cameras.json or COLMAP instead")
    aspect = float(aspects[0])
    matrices = WORLD @ path.camera_to_world @ OPENGL
    frames = [{"frame": i + 1, "source_index": int(path.source_index[i])} | _lens(path, i) for i in range(len(path))]
    for frame, matrix in zip(frames, matrices, strict=True):
        frame["matrix_world"] = matrix.tolist()
    return {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "width": path.width,
        "height": path.height,
        "sensor_width_mm": SENSOR_WIDTH_MM,
        # Blender clamps both to >= 1; fy/fx = aspect_x/aspect_y.
        "pixel_aspect_x": max(1.0, 1 / aspect),
        "pixel_aspect_y": max(1.0, aspect),
        "frames": frames,
    }


def _lens(path: CameraPath, i: int) -> dict[str, Any]:
    K, width = path.K[i], path.width
    return {
        "lens_mm": float(K[0, 0]) * SENSOR_WIDTH_MM / width,
        "shift_x": (width / 2 - float(K[0, 2])) / width,
        "shift_y": (float(K[1, 2]) - path.height / 2) / width * float(K[0, 0] / K[1, 1]),
    }


def blender_from_dict(obj: dict[str, Any]) -> RawCameras:
    """Cameras of a side file.

    Raises:
        CameraPathError: a value is missing or wrong, named by its dotted path.
    """
    get_int(obj, "schema_version", "", low=SCHEMA_VERSION, high=SCHEMA_VERSION)
    height = get_int(obj, "height", "", low=1, high=MAX_SIDE_PX)
    width = get_int(obj, "width", "", low=1, high=MAX_SIDE_PX)
    sensor, aspect_x, aspect_y = (
        get_float(obj, k, "") for k in ("sensor_width_mm", "pixel_aspect_x", "pixel_aspect_y")
    )
    if min(sensor, aspect_x, aspect_y) <= 0:
        raise CameraPathError("a sensor_width_mm and pixel aspects > 0", "another value")
    items = get_list(obj, "frames", "", limit=MAX_CAMERAS)
    frames = [get_object(item, f"frames[{i}]") for i, item in enumerate(items)]
    intrinsics: list[Float64] = []
    for i, frame in enumerate(frames):
        lens, shift_x, shift_y = (get_float(frame, key, f"frames[{i}]") for key in ("lens_mm", "shift_x", "shift_y"))
        fx = lens / sensor * width
        fy = fx * aspect_x / aspect_y
        cx, cy = width / 2 - shift_x * width, height / 2 + shift_y * width * aspect_x / aspect_y
        intrinsics.append(to_corner_origin(pinhole_matrix(fx, fy, cx, cy), "blender"))
    matrices = np.stack([get_array(frame, "matrix_world", f"frames[{i}]", (4, 4)) for i, frame in enumerate(frames)])
    numbers = [get_int(frame, "source_index", f"frames[{i}]", low=0, high=2**31) for i, frame in enumerate(frames)]
    return RawCameras(
        K=np.stack(intrinsics),
        world_to_camera=to_world_to_camera(WORLD.T @ matrices @ OPENGL),
        source_index=np.array(numbers, dtype=np.int64),
        sizes=((height, width),) * len(frames),
    )


def write_blender_json(file: Path, path: CameraPath) -> None:
    """Write the side file that `read_cameras` reads back."""
    write_json_atomic(file, blender_to_dict(path))


def write_blender_script(file: Path, path: CameraPath) -> None:
    """Write a script that, run in Blender, makes the animated camera and sets the resolution."""
    data = json.dumps(blender_to_dict(path), indent=1, allow_nan=False)
    write_bytes_atomic(file, _SCRIPT.replace("@DATA@", data).encode())
