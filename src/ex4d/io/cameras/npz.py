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
from ex4d.io.cameras.common import MAX_CAMERAS, OPENGL, RawCameras, size_from_center
from ex4d.io.intrinsics import to_corner_origin

OUR_KEYS = ("K", "world_to_camera", "source_index", "height", "width")
OFFICIAL_KEYS = ("extrinsics", "intrinsics")
MAX_MEMBER_BYTES = 64 * 2**20
_MAX_HEADER_BYTES = 1 << 16

_DAMAGE = (
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
)
"""What zipfile and NumPy raise on damaged or hostile archives."""


def read_cameras_npz(file: Path) -> RawCameras:
    """Cameras of an npz, ours or the release's.

    Raises:
        CameraPathError: not an npz, neither set of keys, arrays of another shape or kind.
    """
    keys = list_members(file)
    if set(OUR_KEYS) <= keys:
        return _ours({key: read_member(file, key) for key in OUR_KEYS})
    if set(OFFICIAL_KEYS) <= keys:
        return _official({key: read_member(file, key) for key in OFFICIAL_KEYS})
    raise CameraPathError(
        f"the arrays {', '.join(OUR_KEYS)} or {', '.join(OFFICIAL_KEYS)} in {file}",
        ", ".join(sorted(keys)[:8]) or "none",
    )


def list_members(file: Path) -> set[str]:
    """Names of the arrays of an npz.

    Raises:
        CameraPathError: not a zip archive.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
        raise CameraPathError(f"an npz file at {file}", str(error)[:200], "export the cameras again") from error


def read_member(file: Path, key: str) -> NDArray[Any]:
    """One array of an npz; parsed here, so that no declared size is believed and nothing is unpickled.

    Raises:
        CameraPathError: missing, damaged, not numbers, or larger than `MAX_MEMBER_BYTES`.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            info = archive.getinfo(f"{key}.npy")
            if info.file_size > MAX_MEMBER_BYTES:
                raise CameraPathError(f"an array of at most {MAX_MEMBER_BYTES // 2**20} MiB at {key}", "a larger one")
            data = archive.read(info)
        stream = io.BytesIO(data)
        shape, fortran, dtype = _read_header(stream)
        if dtype.kind not in "fiu":
            raise CameraPathError(f"numbers in the array {key}", f"{dtype}")
        count = 1
        for length in shape:
            count *= length
        if count * dtype.itemsize != len(data) - stream.tell():
            raise CameraPathError(f"{shape} numbers in the array {key}", "another amount of data", "export again")
        array = np.frombuffer(data, dtype, offset=stream.tell(), count=count)
        return array.reshape(shape, order="F" if fortran else "C")
    except _DAMAGE as error:
        raise _unreadable(file, key, error) from error


def read_member_shape(file: Path, key: str) -> tuple[int, ...]:
    """The shape of one array of an npz, from its header alone; at least one axis, nothing negative.

    Raises:
        CameraPathError: missing or damaged.
    """
    try:
        with zipfile.ZipFile(file) as archive, archive.open(f"{key}.npy") as stream:
            shape = _read_header(io.BytesIO(stream.read(_MAX_HEADER_BYTES)))[0]
    except _DAMAGE as error:
        raise _unreadable(file, key, error) from error
    if not shape or min(shape) < 1:
        raise CameraPathError(f"an array that is not empty at {key} in {file}", f"shape {list(shape)}")
    return shape


def _read_header(stream: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether Fortran order, and kind of numbers."""
    version = np.lib.format.read_magic(stream)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    return read_header(stream)


def _unreadable(file: Path, key: str, error: Exception) -> CameraPathError:
    got = " ".join(str(error).split())[:200] or type(error).__name__
    return CameraPathError(f"a readable array {key} in {file}", got, "export the cameras again")


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
        sizes=size_from_center(intrinsics),
        notices=notice,
    )


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
