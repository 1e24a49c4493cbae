"""`cameras.json`, the project's own file: what a prior folder holds."""

from pathlib import Path
from typing import Any

import numpy as np

from ex4d.core.camera import CameraPath
from ex4d.errors import CameraPathError
from ex4d.io.atomic import write_json_atomic
from ex4d.io.cameras.common import MAX_CAMERAS, MAX_SIDE_PX, RawCameras
from ex4d.io.strict_json import get_array, get_int, get_list, get_object, shown

SCHEMA_VERSION = 1
MAX_SOURCE_INDEX = 2**31


def cameras_to_dict(path: CameraPath) -> dict[str, Any]:
    """The content of ``cameras.json``: JSON types only, float64 digits kept."""
    frames = [
        {
            "source_index": int(path.source_index[i]),
            "K": path.K[i].tolist(),
            "world_to_camera": path.world_to_camera[i].tolist(),
        }
        for i in range(len(path))
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "convention": "opencv",
        "height": path.height,
        "width": path.width,
        "frames": frames,
    }


def cameras_from_dict(obj: dict[str, Any]) -> RawCameras:
    """Check the content of a ``cameras.json``.

    Raises:
        CameraPathError: a value is missing or wrong, named by its dotted path.
    """
    get_int(obj, "schema_version", "", low=SCHEMA_VERSION, high=SCHEMA_VERSION)
    if obj.get("convention") != "opencv":
        raise CameraPathError('"opencv" at convention', shown(obj.get("convention")), "convert the axes first")
    height = get_int(obj, "height", "", low=1, high=MAX_SIDE_PX)
    width = get_int(obj, "width", "", low=1, high=MAX_SIDE_PX)
    items = get_list(obj, "frames", "", limit=MAX_CAMERAS)
    frames = [get_object(item, f"frames[{i}]") for i, item in enumerate(items)]
    named = [(frame, f"frames[{i}]") for i, frame in enumerate(frames)]
    return RawCameras(
        K=np.stack([get_array(frame, "K", where, (3, 3)) for frame, where in named]),
        world_to_camera=np.stack([get_array(frame, "world_to_camera", where, (4, 4)) for frame, where in named]),
        source_index=np.array(
            [get_int(frame, "source_index", where, low=0, high=MAX_SOURCE_INDEX) for frame, where in named],
            dtype=np.int64,
        ),
        sizes=((height, width),) * len(frames),
    )


def write_cameras_json(file: Path, path: CameraPath) -> None:
    """Write ``cameras.json`` (`OutputError` where the disk refuses)."""
    write_json_atomic(file, cameras_to_dict(path))
