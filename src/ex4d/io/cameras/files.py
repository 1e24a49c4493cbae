"""Camera files in and out: ours, npz, COLMAP, nerfstudio and Blender; in only: ViPE, Depth Anything 3, MegaSaM."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ex4d.core.camera import CameraPath
from ex4d.errors import CameraPathError, OutputError
from ex4d.io.atomic import output_error
from ex4d.io.cameras import blender, nerfstudio
from ex4d.io.cameras.colmap import find_colmap_model, read_colmap_text, write_colmap_text
from ex4d.io.cameras.colmap_binary import read_colmap_binary, write_colmap_binary
from ex4d.io.cameras.common import RawCameras, Size, finish, rebase_path
from ex4d.io.cameras.estimated import find_vipe_clip, read_estimated_npz, read_vipe_cameras
from ex4d.io.cameras.npz import read_cameras_npz, write_cameras_npz
from ex4d.io.cameras.own_json import cameras_from_dict, write_cameras_json
from ex4d.io.strict_json import read_json_object

CameraFileKind = Literal["json", "npz", "colmap-text", "colmap-binary", "nerfstudio", "blender-json", "blender-script"]

READABLE = "cameras.json, .npz, transforms.json, a Blender side file, a COLMAP model folder or a ViPE result folder"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedCameras:
    """What a camera file gave.

    Attributes:
        path: the cameras.
        notices: what was changed on the way (scaled intrinsics, order, rounded rotations), for people.
    """

    path: CameraPath
    notices: tuple[str, ...] = ()


def read_cameras(
    file: Path, *, height: int | None = None, width: int | None = None, rebase: bool = False
) -> LoadedCameras:
    """Read cameras of any known kind, chosen by suffix and content.

    Args:
        file: ``.json`` (ours, nerfstudio, NeRF-synthetic or the Blender side file), ``.npz`` (ours, the
            release's, Depth Anything 3's, MegaSaM's, or ViPE's ``pose/NAME.npz`` beside its ``intrinsics``),
            a folder with a COLMAP model, or a ViPE result folder of one clip.
        height: px of the frames the cameras are for; intrinsics of another size of the same aspect (1 %)
            are scaled, with a notice. None keeps the file's size.
        width: px; given with `height` or not at all.
        rebase: turn the world so that camera 0 is at its origin (as source cameras must be). Otherwise
            the file's world is kept, and only its camera axes become OpenCV's.

    `source_index` of the path says which frame each camera is, where the file numbers its frames (ViPE);
    otherwise it counts 0, 1, 2, ... Whether there is one for every frame is for the caller to check.

    Raises:
        CameraPathError: the file is missing, of no known kind, broken, or for images of another shape.
    """
    if (height is None) != (width is None):
        raise ValueError("read_cameras: give height and width, or neither")
    size = None if height is None or width is None else (height, width)
    with np.errstate(all="ignore"):  # absurd numbers become infinite here and are refused by `finish`
        raw = _read_raw(Path(file), size)
        try:
            path, notices = finish(raw, size)
            return LoadedCameras(path=rebase_path(path) if rebase else path, notices=notices)
        except CameraPathError as error:
            raise CameraPathError(error.expected, f"{error.got} in {file}", error.fix) from error


def _read_raw(file: Path, size: Size | None) -> RawCameras:
    if file.is_dir():
        raw = read_colmap_model(file)
        clip = None if raw is not None else find_vipe_clip(file)
        if clip is not None:
            return read_vipe_cameras(clip)
        if raw is None:
            raise CameraPathError(
                f"a COLMAP model (cameras and images, .bin or .txt) or ViPE's pose and intrinsics in {file}", "neither"
            )
        return raw
    if not file.is_file():
        raise CameraPathError(f"a camera file at {file}", "nothing there", "check the name")
    if file.suffix.lower() == ".npz":
        return read_estimated_npz(file) or read_cameras_npz(file)
    if file.suffix.lower() == ".json":
        return _from_json(read_json_object(file), file, size)
    raise CameraPathError(READABLE, f"{file.name!r}", "pass the COLMAP folder itself, or export one of these")


def read_colmap_model(folder: Path) -> RawCameras | None:
    """Cameras of the COLMAP model in a folder (or its ``sparse``), ordered by image name; None if there is none.

    Raises:
        CameraPathError: damaged, or a camera with distortion.
    """
    model = find_colmap_model(folder)
    if model is None:
        return None
    return (read_colmap_binary if model[1] == ".bin" else read_colmap_text)(model[0])


def _from_json(obj: dict[str, Any], file: Path, size: Size | None) -> RawCameras:
    try:
        if "keyframes" in obj:
            raise CameraPathError("a camera file", "a keyframe file", "pass it as keyframes")
        if obj.get("format") == blender.FORMAT:
            return blender.blender_from_dict(obj)
        if "convention" in obj:
            return cameras_from_dict(obj)
        if "camera_angle_x" in obj or "fl_x" in obj or _frames_have(obj, "transform_matrix"):
            return nerfstudio.read_transforms(obj, size)
        return cameras_from_dict(obj)
    except CameraPathError as error:
        raise CameraPathError(f"{error.expected} in {file}", error.got or "something else", error.fix) from error


def _frames_have(obj: dict[str, Any], key: str) -> bool:
    frames = obj.get("frames")
    return isinstance(frames, list) and bool(frames) and isinstance(frames[0], dict) and key in frames[0]


_WRITERS: dict[CameraFileKind, Callable[[Path, CameraPath], None]] = {
    "json": write_cameras_json,
    "npz": write_cameras_npz,
    "colmap-text": write_colmap_text,
    "colmap-binary": write_colmap_binary,
    "nerfstudio": nerfstudio.write_transforms,
    "blender-json": blender.write_blender_json,
    "blender-script": blender.write_blender_script,
}


def kind_for(file: Path) -> CameraFileKind:
    """The kind that a name stands for: ``.npz``, ``.py`` (Blender), ``transforms*.json``, ``*blender*.json``,
    other ``.json`` (ours), no suffix (a COLMAP text folder).

    Raises:
        CameraPathError: another suffix.
    """
    name = file.name.lower()
    if file.is_dir() or not file.suffix:
        return "colmap-text"
    if name.endswith(".json"):
        return "nerfstudio" if name.startswith("transforms") else "blender-json" if "blender" in name else "json"
    if name.endswith((".npz", ".py")):
        return "npz" if name.endswith(".npz") else "blender-script"
    raise CameraPathError("a camera file name ending in .json, .npz or .py, or a folder", f"{file.name!r}")


def write_cameras(file: Path, cameras: CameraPath, *, kind: CameraFileKind | None = None) -> None:
    """Write cameras in the kind given, or that the name stands for (see `kind_for`); files appear whole.

    Args:
        file: file, or folder for COLMAP (made when missing).
        cameras: what to write; the world is kept (Blender's is turned upright and back).
        kind: overrules the name.

    Raises:
        CameraPathError: the format cannot hold these cameras (skew; in Blender a changing fx/fy).
        OutputError: the file or folder cannot be written.
    """
    target = Path(file)
    chosen = kind or kind_for(target)
    if chosen not in _WRITERS:
        raise CameraPathError(f"one of {', '.join(_WRITERS)}", f"{chosen!r}")
    if chosen in ("colmap-text", "colmap-binary"):
        if target.exists() and not target.is_dir():
            raise OutputError(f"a folder at {target}", "a file", "choose another name")
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise output_error(target, error) from error
    _WRITERS[chosen](target, cameras)
