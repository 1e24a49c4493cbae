"""`open_depth`: a depth file or folder of any supported format as one raw clip."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from ex4d.core.arrays import Float64
from ex4d.core.camera import CameraPath, invert_rigid, rebase
from ex4d.core.depth import DepthScale
from ex4d.errors import DepthError, InputError
from ex4d.io.depth.arrays import DEPTH_KEYS, DISPARITY_KEYS, ArrayFrames, list_npz, read_small_array
from ex4d.io.depth.colmap_dense import find_colmap_depth
from ex4d.io.depth.found import FoundDepth
from ex4d.io.depth.images import IMAGE_SUFFIXES, ImageFrames, list_depth_images
from ex4d.io.depth.npz_results import da3_export, find_npz_result
from ex4d.io.depth.raw import DepthFrames, DepthKind, RawDepthClip
from ex4d.io.depth.video import CODE_MAX, VIDEO_SUFFIXES, VideoFrames, read_z_min
from ex4d.io.depth.vipe import find_vipe_depth
from ex4d.io.rgbd.poses import build_path, nearest_rigid

KindOption = Literal["auto", "depth", "disparity"]
MILLIMETRES = 1000.0
NOMINAL_FPS = 30.0
_K_KEYS = ("K", "intrinsics", "intrinsic")
_TO_WORLD_KEYS = ("camera_to_world", "cam_c2w")
_FROM_WORLD_KEYS = ("world_to_camera",)


def open_depth(
    path: Path | str,
    *,
    kind: KindOption = "auto",
    scale: float | None = None,
    timestamps_s: Float64 | None = None,
) -> RawDepthClip:
    """Open given depth: .npz, .npy, a folder of 16-bit PNG/PGM or EXR, one such image, gray16 FFV1, or another
    program's result: a ViPE folder, an npz of Depth Anything 3 or MegaSaM, a COLMAP dense workspace.

    Nothing is loaded but headers; frames are read when asked for. An archive may also hold ``K`` (or
    ``intrinsics``; [3,3] or [T,3,3], corner origin, pixels of the depth maps) and ``world_to_camera`` or
    ``camera_to_world`` (``cam_c2w``) [T,4,4] in the unit of the depth, OpenCV axes. Results bring K and
    cameras along (see `vipe`, `npz_results`, `colmap_dense`).

    Args:
        path: the file or folder.
        kind: ``"auto"`` decides by the array's or file's name ("disp…"), else depth.
        scale: stored numbers per metre (1000: millimetres, 5000: TUM); the depth is then metric. Default:
            integers are millimetres, floating-point numbers are taken as they are, in an unknown unit; a result
            says its unit, and its cameras are divided too.
        timestamps_s: float64 [T] of the video beside it; default 30 fps.

    Raises:
        DepthError: missing, damaged, of an unknown format, or of an absurd size; several clips in one ViPE
            folder; another number of cameras than of depth frames.
        CameraPathError: a result whose cameras are not usable.
        MissingDependencyError: EXR without the package OpenEXR.
        MediaError: a video that cannot be decoded.
    """
    path = Path(path)
    if scale is not None and not 0 < scale < float("inf"):
        raise DepthError("a depth scale > 0 (stored numbers per metre)", f"{scale}")
    found = _find(path)
    chosen, kind_notice = _choose_kind(kind, found)
    unit, divisor, unit_notice = _choose_unit(chosen, scale, found)
    num = found.frames.num_frames
    times = found.timestamps_s if timestamps_s is None else timestamps_s
    return RawDepthClip(
        frames=found.frames,
        kind=chosen,
        scale=unit,
        timestamps_s=np.arange(num) / NOMINAL_FPS if times is None or len(times) != num else times,
        frame_index=np.arange(num, dtype=np.int64),
        divisor=divisor,
        inverse_unit=CODE_MAX * found.z_min if found.z_min is not None else 0.0,
        K=found.K,
        path=_path_in_unit(found, divisor),
        description=f"{chosen} from {found.name}",
        notices=(*found.notices, *kind_notice, *unit_notice),
        squeeze_px=found.squeeze_px,
    )


def _find(path: Path) -> FoundDepth:
    if path.is_dir():
        return _find_folder(path)
    if not path.is_file():
        raise DepthError(
            f"a depth file or folder at {path}", "nothing there", "check the name, or leave --depth out for auto"
        )
    suffix = path.suffix.lower()
    if suffix == ".npy":
        frames = ArrayFrames(path)
        return FoundDepth(frames=frames, name=path.name, is_integer=frames.dtype.kind != "f")
    if suffix == ".npz":
        return _find_npz(path)
    if (vipe := find_vipe_depth(path)) is not None:
        return vipe
    if suffix in IMAGE_SUFFIXES:
        frames = ImageFrames([path])
        return FoundDepth(frames=frames, name=path.name, is_integer=frames.is_integer)
    if suffix in VIDEO_SUFFIXES:
        frames = VideoFrames(path)
        times, z_min = frames.timestamps_s, read_z_min(path)
        return FoundDepth(frames=frames, name=path.name, is_integer=True, timestamps_s=times, z_min=z_min)
    raise DepthError(
        f"depth as .npz, .npy, {', '.join(IMAGE_SUFFIXES)} (a folder or one image), {', '.join(VIDEO_SUFFIXES)}, "
        "or a result of ViPE (folder or .zip) or COLMAP",
        f"{path.name}",
        "convert it to one of these",
    )


def _find_folder(path: Path) -> FoundDepth:
    result = find_vipe_depth(path) or find_colmap_depth(path)
    if result is not None:
        return result
    export = da3_export(path)
    if export is not None:
        return _find_npz(export)
    frames = ImageFrames(list_depth_images(path))
    return FoundDepth(frames=frames, name=path.name, is_integer=frames.is_integer)


def _find_npz(path: Path) -> FoundDepth:
    members = list_npz(path)
    result = find_npz_result(path, members)
    if result is not None:
        return result
    key = next((k for k in (*DEPTH_KEYS, *DISPARITY_KEYS, "arr_0") if k in members), None)
    if key is None:
        raise DepthError(
            f"an array named {', '.join((*DEPTH_KEYS, *DISPARITY_KEYS))} in {path.name}",
            ", ".join(sorted(members)[:10]) or "none",
            "save with numpy.savez(path, depth=...)",
        )
    frames = ArrayFrames(path, members[key])
    K, camera_path, notices = _read_cameras(path, members, frames)
    return FoundDepth(
        frames=frames,
        name=f"{path.name}[{key}]",
        is_integer=frames.dtype.kind != "f",
        hint="" if key == "arr_0" else key,
        scale=_stated_scale(path, members),
        K=K,
        path=camera_path,
        notices=notices,
    )


def _stated_scale(path: Path, members: dict[str, str]) -> DepthScale | None:
    """What `depth.write.npz_depth` notes under ``is_metric``; None in the archives of others."""
    if "is_metric" not in members:
        return None
    return "metric" if read_small_array(path, members["is_metric"]).any() else "relative"


def _read_cameras(
    path: Path, members: dict[str, str], frames: ArrayFrames
) -> tuple[Float64 | None, CameraPath | None, tuple[str, ...]]:
    """K of frame 0, and the path where poses (or a changing K) are in the archive too."""
    k_key = next((k for k in _K_KEYS if k in members), None)
    pose_key = next((k for k in (*_FROM_WORLD_KEYS, *_TO_WORLD_KEYS) if k in members), None)
    if k_key is None:
        lost = () if pose_key is None else (f"{path.name} holds {pose_key} but no K: its cameras are not used",)
        return None, None, lost
    num = frames.num_frames
    K = read_small_array(path, members[k_key])
    if K.shape not in ((3, 3), (num, 3, 3)):
        raise DepthError(f"K of shape [3,3] or [{num},3,3] in {path.name}[{k_key}]", str(list(K.shape)))
    K = np.broadcast_to(K, (num, 3, 3)).copy()
    if pose_key is None and (K[0] == K).all():
        _check_cameras(path, K, np.broadcast_to(np.eye(4), (num, 4, 4)).copy(), frames)
        return K[0], None, ()
    poses = np.broadcast_to(np.eye(4), (num, 4, 4)).copy()
    if pose_key is not None:
        poses = read_small_array(path, members[pose_key])
        if poses.shape != (num, 4, 4):
            raise DepthError(f"poses of shape [{num},4,4] in {path.name}[{pose_key}]", str(list(poses.shape)))
        poses = nearest_rigid(poses, f"{path.name}[{pose_key}]")
        poses = invert_rigid(poses) if pose_key in _TO_WORLD_KEYS else poses
    checked = _check_cameras(path, K, poses, frames)
    rebased = build_path(rebase(checked.world_to_camera), K, height=frames.height, width=frames.width)
    return K[0], rebased, ()


def _check_cameras(path: Path, K: Float64, world_to_camera: Float64, frames: DepthFrames) -> CameraPath:
    """Build the path; a bad number becomes an input error that names the file."""
    try:
        return build_path(world_to_camera, K, height=frames.height, width=frames.width)
    except ValueError as error:
        raise InputError(f"usable cameras in {path.name}", str(error), "remove or correct them") from error


def _path_in_unit(found: FoundDepth, divisor: float) -> CameraPath | None:
    """The cameras in the unit of the depth once that is divided; a plain npz has them in that unit already."""
    if found.path is None or found.scale is None or divisor == 1.0:
        return found.path
    matrices = found.path.world_to_camera.copy()
    matrices[:, :3, 3] /= divisor
    return replace(found.path, world_to_camera=matrices)


def _choose_kind(kind: KindOption, found: FoundDepth) -> tuple[DepthKind, tuple[str, ...]]:
    if found.z_min is not None:
        if kind == "disparity":
            raise DepthError(
                f"--depth-kind depth or auto for {found.name}", "disparity", "its prior.json says that it is depth"
            )
        return "depth", ()
    if found.kind is not None:
        if kind not in ("auto", found.kind):
            raise DepthError(f"--depth-kind {found.kind} or auto for {found.name}", kind)
        return found.kind, ()
    if kind != "auto":
        return kind, ()
    if isinstance(found.frames, VideoFrames):
        raise DepthError(
            f"prior.json beside {found.name}, or to be told what its codes are",
            "neither",
            "say --depth-kind disparity or --depth-kind depth",
        )
    guess: DepthKind = "disparity" if "disp" in (found.hint or found.name).lower() else "depth"
    if found.hint:
        return guess, ()
    return guess, (f"{found.name}: taken as {guess} by its name (--depth-kind says otherwise)",)


def _choose_unit(kind: DepthKind, scale: float | None, found: FoundDepth) -> tuple[DepthScale, float, tuple[str, ...]]:
    """(metric or relative, divisor, notices)."""
    if found.z_min is not None or kind == "disparity":
        given = scale is not None
        note = (f"{found.name}: --depth-scale has no meaning for this file and is not used",) if given else ()
        return "relative", 1.0, note
    if scale is not None:
        return "metric", scale, ()
    if found.scale is not None:
        return found.scale, 1.0, ()
    if found.is_integer:
        text = f"{found.name}: 16-bit depth taken as millimetres (--depth-scale 5000 for TUM, 1 for plain numbers)"
        return "metric", MILLIMETRES, (text,)
    return "relative", 1.0, ()
