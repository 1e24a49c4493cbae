"""Depth to files that `open_depth` reads back to the same numbers: an npz with its cameras, and EXR images."""

import contextlib
import zipfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np

from ex4d.core.arrays import Float32, Float64
from ex4d.core.camera import CameraPath
from ex4d.core.depth import DepthScale, DepthVideo
from ex4d.errors import MissingDependencyError, OutputError
from ex4d.io.atomic import atomic_path

_SAME_TIME = (1980, 1, 1, 0, 0, 0)
"""Of every member: equal depth gives equal bytes."""


def known_depth(chunk: DepthVideo) -> Float32:
    """float32 [T,H,W]: the depth, 0 where it is unknown."""
    return np.where(chunk.valid, chunk.depth, np.float32(0))


@contextlib.contextmanager
def npz_depth(
    path: Path, *, cameras: CameraPath, timestamps_s: Float64, scale: DepthScale
) -> Generator[Callable[[DepthVideo], None], None, None]:
    """An npz archive whose depth is written while it is computed; yields what appends a chunk.

    Arrays: ``depth`` float32 [T,H,W] (0 = unknown), ``K`` float64 [T,3,3] (px of the maps, corner origin),
    ``world_to_camera`` float64 [T,4,4] (OpenCV axes, in the unit of the depth, world = camera of frame 0),
    ``timestamps_s`` float64 [T], ``is_metric`` uint8 (1: the unit is a metre). Nothing is compressed, so that frames
    can be read one by one in any order.

    Args:
        path: where the file shall appear when the block ends; its folder must exist.
        cameras: one a frame; their size is that of the maps.
        timestamps_s: float64 [T].
        scale: of the depth.

    Raises:
        OutputError: the disk is full, or the folder cannot be written.
        ValueError: other frames than `cameras` has.
    """
    shape = (len(cameras), cameras.height, cameras.width)
    small: dict[str, np.ndarray[Any, Any]] = {
        "K": cameras.K,
        "world_to_camera": cameras.world_to_camera,
        "timestamps_s": timestamps_s,
        "is_metric": np.array(scale == "metric", np.uint8),
    }
    num_written = 0
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, array in small.items():
            with archive.open(_member(name), "w") as stream:
                np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)
        with archive.open(_member("depth"), "w", force_zip64=True) as stream:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(stream, header)

            def append(chunk: DepthVideo) -> None:
                nonlocal num_written
                num_written += len(chunk)
                if (chunk.height, chunk.width) != shape[1:] or num_written > shape[0]:
                    raise ValueError(f"depth: expected {list(shape)}, got {list(chunk.depth.shape)} more")
                stream.write(np.ascontiguousarray(known_depth(chunk), "<f4").data)

            yield append
        if num_written != shape[0]:
            raise ValueError(f"depth: expected {shape[0]} frames, got {num_written}")


def _member(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(f"{name}.npy", _SAME_TIME)


def require_exr() -> None:
    """Raise `MissingDependencyError` unless EXR images can be written."""
    try:
        import OpenEXR  # noqa: F401  # pyright: ignore[reportUnusedImport] # the extra `exr`
    except ImportError as error:
        raise MissingDependencyError("OpenEXR", "exr", "writing EXR depth") from error


def write_exr_depth(path: Path, depth: Float32) -> None:
    """One depth map as an EXR image with the float32 channel ``Z``, without loss, whole or not at all.

    Args:
        path: where the file shall appear; its folder must exist.
        depth: float32 [H,W], 0 = unknown.

    Raises:
        MissingDependencyError: OpenEXR is not installed.
        OutputError: it cannot be written.
    """
    require_exr()
    import OpenEXR

    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    with atomic_path(path) as temporary:
        try:
            with OpenEXR.File(header, {"Z": np.ascontiguousarray(depth, np.float32)}) as file:
                file.write(str(temporary))
        except RuntimeError as error:  # all that OpenEXR raises, a full disk included
            reason = " ".join(str(error).split())
            fix = "free some space, or choose another output folder"
            raise OutputError(f"to be able to write {path}", reason, fix) from error
