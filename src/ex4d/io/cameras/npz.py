"""Cameras in npz: our arrays, and the `extrinsics` + `intrinsics` that the EX-4D release saves.

The release's matrices are world-to-camera with all rows negated but the first column's sign kept:
OpenGL-style axes, so that frame 0 is diag(1, -1, -1, 1), beside an OpenCV K with c = (W/2, H/2).
"""

import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ex4d.core.arrays import Float64
from ex4d.core.camera import CameraPath
from ex4d.errors import CameraPathError
from ex4d.io.atomic import atomic_path
from ex4d.io.cameras.common import MAX_CAMERAS, OPENGL, RawCameras, Size
from ex4d.io.intrinsics import to_corner_origin

OUR_KEYS = ("K", "world_to_camera", "source_index", "height", "width")
OFFICIAL_KEYS = ("extrinsics", "intrinsics")
MAX_MEMBER_BYTES = 64 * 2**20


def read_cameras_npz(file: Path) -> RawCameras:
    """Cameras of an npz, ours or the release's.

    Raises:
        CameraPathError: not an npz, neither set of keys, arrays of another shape or kind.
    """
    keys = _list_members(file)
    if set(OUR_KEYS) <= keys:
        return _ours({key: _read_member(file, key) for key in OUR_KEYS})
    if set(OFFICIAL_KEYS) <= keys:
        return _official({key: _read_member(file, key) for key in OFFICIAL_KEYS})
    raise CameraPathError(
        f"the arrays {', '.join(OUR_KEYS)} or {', '.join(OFFICIAL_KEYS)} in {file}",
        ", ".join(sorted(keys)[:8]) or "none",
    )


def _list_members(file: Path) -> set[str]:
    try:
        with zipfile.ZipFile(file) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
        raise CameraPathError(f"an npz file at {file}", str(error)[:200], "export the cameras again") from error


def _read_member(file: Path, key: str) -> NDArray[Any]:
    """One array; parsed here, so that no declared size is believed and nothing is unpickled."""
    try:
        with zipfile.ZipFile(file) as archive:
            info = archive.getinfo(f"{key}.npy")
            if info.file_size > MAX_MEMBER_BYTES:
                raise CameraPathError(f"an array of at most {MAX_MEMBER_BYTES // 2**20} MiB at {key}", "a larger one")
            data = archive.read(info)
        stream = io.BytesIO(data)
        version = np.lib.format.read_magic(stream)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = read_header(stream)
        if dtype.kind not in "fiu":
            raise CameraPathError(f"numbers in the array {key}", f"{dtype}")
        count = 1
        for length in shape:
            count *= length
        if count * dtype.itemsize != len(data) - stream.tell():
            raise CameraPathError(f"{shape} numbers in the array {key}", "another amount of data", "export again")
        array = np.frombuffer(data, dtype, offset=stream.tell(), count=count)
        return array.reshape(shape, order="F" if fortran else "C")
    except (
        OSError,
        zipfile.BadZipFile,
        zlib.error,
        ValueError,
        KeyError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        SyntaxError,
        RecursionError,
        MemoryError,
        TypeError,
        struct.error,
    ) as error:
        got = " ".join(str(error).split())[:200] or type(error).__name__
        raise CameraPathError(f"a readable array {key} in {file}", got, "export the cameras again") from error


def _matrices(arrays: dict[str, NDArray[Any]], key: str, side: int) -> Float64:
    array = arrays[key]
    fits = array.ndim == 3 and array.shape[1:] == (side, side) and 1 <= len(array) <= MAX_CAMERAS
    if not fits:
        raise CameraPathError(f"1 to {MAX_CAMERAS} matrices [N,{side},{side}] in {key}", f"shape {list(array.shape)}")
    return array.astype(np.float64)


def _ours(arrays: dict[str, NDArray[Any]]) -> RawCameras:
    world_to_camera = _matrices(arrays, "world_to_camera", 4)
    num = len(world_to_camera)
    intrinsics = _matrices(arrays, "K", 3)
    source_index, height, width = arrays["source_index"], arrays["height"], arrays["width"]
    if len(intrinsics) != num or source_index.shape != (num,):
        raise CameraPathError(
            f"as many K and source_index as world_to_camera ({num})",
            f"{len(intrinsics)} and {list(source_index.shape)}",
        )
    integers = all(array.dtype.kind in "iu" for array in (source_index, height, width))
    if not integers or height.shape != () or width.shape != ():
        raise CameraPathError("whole numbers in source_index, height and width", "another kind or shape")
    if (source_index.astype(np.int64) < 0).any():
        raise CameraPathError("source_index >= 0", f"{int(source_index.min())}")
    return RawCameras(
        K=intrinsics,
        world_to_camera=world_to_camera,
        source_index=source_index.astype(np.int64),
        sizes=((int(height), int(width)),) * num,
    )


def _official(arrays: dict[str, NDArray[Any]]) -> RawCameras:
    extrinsics = _matrices(arrays, "extrinsics", 4)
    num = len(extrinsics)
    shared = arrays["intrinsics"].shape == (3, 3)
    intrinsics = np.repeat(arrays["intrinsics"][None].astype(np.float64), num, axis=0) if shared else None
    intrinsics = _matrices(arrays, "intrinsics", 3) if intrinsics is None else intrinsics
    if len(intrinsics) != num:
        raise CameraPathError(f"one K or {num} in intrinsics", f"{len(intrinsics)}")
    with np.errstate(invalid="ignore"):
        is_opengl = bool(np.abs(extrinsics[0] - OPENGL).max() < 1e-4)
    notice = () if is_opengl else ("extrinsics do not start at diag(1,-1,-1,1): read as OpenCV world-to-camera",)
    return RawCameras(
        K=to_corner_origin(intrinsics, "official"),
        world_to_camera=OPENGL @ extrinsics if is_opengl else extrinsics,
        source_index=np.arange(num, dtype=np.int64),
        sizes=_size_from_center(intrinsics),
        notices=notice,
    )


def _size_from_center(intrinsics: Float64) -> tuple[Size, ...]:
    """The release keeps no image size but c = (W/2, H/2)."""
    doubled = 2 * intrinsics[:, :2, 2]
    if not (np.isfinite(doubled).all() and (doubled >= 1).all() and (doubled < 2**31).all()):
        raise CameraPathError("a principal point inside the image in intrinsics", "another value")
    return tuple((round(float(cy)), round(float(cx))) for cx, cy in doubled)


def write_cameras_npz(file: Path, path: CameraPath) -> None:
    """Write our arrays; equal cameras give equal bytes (no clock in the archive)."""
    arrays: dict[str, NDArray[Any]] = {
        "K": path.K,
        "world_to_camera": path.world_to_camera,
        "source_index": path.source_index,
        "height": np.array(path.height),
        "width": np.array(path.width),
    }
    with atomic_path(file) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for key, array in arrays.items():
            stream = io.BytesIO()
            np.lib.format.write_array(stream, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{key}.npy", (1980, 1, 1, 0, 0, 0)), stream.getvalue())
