"""COLMAP models, text and binary: folders of `cameras`, `images` and `points3D`.

COLMAP's poses are world-to-camera with OpenCV axes and its pixels count from the corner: as ours. Only
pinhole cameras are read; images are ordered by name. Format: https://colmap.github.io/format.html
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from ex4d.core.arrays import Float64
from ex4d.core.camera import CameraPath
from ex4d.core.rotations import matrix_to_quaternion, quaternion_to_matrix
from ex4d.errors import CameraPathError
from ex4d.io.atomic import write_bytes_atomic
from ex4d.io.cameras.common import (
    MAX_CAMERAS,
    MAX_SIDE_PX,
    RawCameras,
    Size,
    frame_name,
    order_by_name,
    pinhole_matrix,
    require_no_skew,
)
from ex4d.io.intrinsics import to_corner_origin
from ex4d.io.strict_json import read_bytes

MODEL_NAMES = (
    "SIMPLE_PINHOLE",
    "PINHOLE",
    "SIMPLE_RADIAL",
    "RADIAL",
    "OPENCV",
    "OPENCV_FISHEYE",
    "FULL_OPENCV",
    "FOV",
    "SIMPLE_RADIAL_FISHEYE",
    "RADIAL_FISHEYE",
    "THIN_PRISM_FISHEYE",
)
"""By COLMAP's number; the first two have no distortion."""
MODEL_PARAMETERS = {"SIMPLE_PINHOLE": 3, "PINHOLE": 4}
MAX_MODEL_BYTES = 512 * 2**20
"""`images` also holds every feature point."""

SUBFOLDERS = ("", "sparse/0", "sparse", "0")


@dataclass(frozen=True, slots=True)
class ColmapCamera:
    """A row of `cameras`: K float64 [3,3], corner origin, and (height, width)."""

    K: Float64
    size: Size


class ColmapImage(NamedTuple):
    """A row of `images`: qvec w x y z, tvec x y z (world-to-camera), camera id and file name."""

    pose: tuple[float, ...]
    camera_id: int
    name: str


def find_colmap_model(folder: Path) -> tuple[Path, str] | None:
    """(folder, suffix ``.bin`` or ``.txt``) of the model in a folder or its ``sparse/0``; None if there is none."""
    for sub in SUBFOLDERS:
        for suffix in (".bin", ".txt"):
            if all((folder / sub / f"{stem}{suffix}").is_file() for stem in ("cameras", "images")):
                return folder / sub, suffix
    return None


def make_camera(model: str, size: Size, params: tuple[float, ...]) -> ColmapCamera:
    """Check one camera.

    Raises:
        CameraPathError: a model with distortion, or a size or number out of range.
    """
    if model not in MODEL_PARAMETERS:
        raise CameraPathError(
            "COLMAP cameras of the model PINHOLE or SIMPLE_PINHOLE",
            f"{model[:40]!r}",
            "undistort the images first (colmap image_undistorter) and use its model",
        )
    if len(params) != MODEL_PARAMETERS[model] or not np.isfinite(params).all():
        raise CameraPathError(f"{MODEL_PARAMETERS[model]} finite numbers in a {model} camera", f"{len(params)}")
    if not all(1 <= side <= MAX_SIDE_PX for side in size):
        raise CameraPathError(f"image sides of 1 to {MAX_SIDE_PX} px", f"{size[1]}x{size[0]}")
    fx, fy, cx, cy = params if len(params) == 4 else (params[0], *params)
    return ColmapCamera(to_corner_origin(pinhole_matrix(fx, fy, cx, cy), "colmap"), size)


def assemble(cameras: dict[int, ColmapCamera], images: list[ColmapImage]) -> RawCameras:
    """Cameras in the order of their image names."""
    if not 1 <= len(images) <= MAX_CAMERAS:
        raise CameraPathError(f"1 to {MAX_CAMERAS} images in the COLMAP model", f"{len(images)}")
    unknown = next((image for image in images if image.camera_id not in cameras), None)
    if unknown is not None:
        raise CameraPathError(f"the camera {unknown.camera_id} of image {unknown.name[:80]!r}", "no such camera")
    order, source_index, notices = order_by_name([image.name for image in images])
    poses = np.array([images[i].pose for i in order])
    lengths = np.linalg.norm(poses[:, :4], axis=1)
    if not (np.isfinite(poses).all() and (np.abs(lengths - 1) < 0.01).all()):
        raise CameraPathError("finite poses with unit quaternions in the COLMAP images", "NaN or another length")
    matrices = np.repeat(np.eye(4)[None], len(order), axis=0)
    matrices[:, :3, :3] = quaternion_to_matrix(poses[:, :4])
    matrices[:, :3, 3] = poses[:, 4:]
    chosen = [cameras[images[i].camera_id] for i in order]
    return RawCameras(
        K=np.stack([camera.K for camera in chosen]),
        world_to_camera=matrices,
        source_index=source_index,
        sizes=tuple(camera.size for camera in chosen),
        notices=notices,
        names=tuple(images[i].name for i in order),
    )


def read_colmap_text(folder: Path) -> RawCameras:
    """Cameras of ``cameras.txt`` and ``images.txt``.

    Raises:
        CameraPathError: a line that is not of the format, or a model with distortion.
    """
    cameras: dict[int, ColmapCamera] = {}
    for number, line in enumerate(_lines(folder / "cameras.txt"), 1):
        if line and not line.startswith("#"):
            camera_id, camera = _parse(_camera_line, line, f"{folder / 'cameras.txt'} line {number}")
            cameras[camera_id] = camera
    return assemble(cameras, _read_images_text(folder / "images.txt"))


def _read_images_text(file: Path) -> list[ColmapImage]:
    """Every image takes two lines; the second, its points, may be empty."""
    images: list[ColmapImage] = []
    points_next = False
    for number, line in enumerate(_lines(file), 1):
        if points_next:
            if len(line.split()) % 3:
                raise CameraPathError(f"a line of points (or an empty one) at {file} line {number}", f"{line[:40]!r}")
            points_next = False
        elif line and not line.startswith("#"):
            images.append(_parse(_image_line, line, f"{file} line {number}"))
            points_next = True
    return images


def _lines(file: Path) -> list[str]:
    try:
        text = read_bytes(file, MAX_MODEL_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CameraPathError(f"UTF-8 text in {file}", "other bytes", "export the model as text again") from error
    return [line.strip() for line in text.split("\n")]


T = TypeVar("T")


def _parse(parse: Callable[[str], T], line: str, where: str) -> T:
    try:
        return parse(line)
    except (ValueError, IndexError) as error:
        raise CameraPathError(f"a COLMAP line at {where}", f"{line[:80]!r}") from error


def _camera_line(line: str) -> tuple[int, ColmapCamera]:
    words = line.split()
    params = tuple(float(word) for word in words[4:]) if words[1] in MODEL_PARAMETERS else ()
    return int(words[0]), make_camera(words[1], (int(words[3]), int(words[2])), params)


def _image_line(line: str) -> ColmapImage:
    words = line.split(maxsplit=9)
    return ColmapImage(tuple(float(word) for word in words[1:8]), int(words[8]), words[9])


def colmap_rows(path: CameraPath) -> tuple[dict[int, tuple[float, ...]], list[ColmapImage]]:
    """PINHOLE parameters (fx, fy, cx, cy) by camera id and the images of a path; equal K share one camera."""
    require_no_skew(path, "COLMAP")
    params = [(float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2])) for K in path.K]
    ids = {row: i + 1 for i, row in enumerate(dict.fromkeys(params))}
    quaternions = matrix_to_quaternion(path.world_to_camera[:, :3, :3])
    images = [
        ColmapImage(
            (*quaternions[i].tolist(), *path.world_to_camera[i, :3, 3].tolist()),
            ids[params[i]],
            frame_name(i, int(path.source_index[i])),
        )
        for i in range(len(path))
    ]
    return {number: row for row, number in ids.items()}, images


def write_colmap_text(folder: Path, path: CameraPath) -> None:
    """Write ``cameras.txt``, ``images.txt`` and an empty ``points3D.txt`` into an existing folder."""
    cameras, images = colmap_rows(path)
    camera_lines = ["# CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]"]
    camera_lines += [
        " ".join([str(number), "PINHOLE", str(path.width), str(path.height), *map(repr, row)])
        for number, row in cameras.items()
    ]
    image_lines = ["# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME, then a line of POINTS2D[] (empty)"]
    for i, image in enumerate(images, 1):
        image_lines += [" ".join([str(i), *map(repr, image.pose), str(image.camera_id), image.name]), ""]
    for name, lines in (("cameras", camera_lines), ("images", image_lines), ("points3D", ["# no points"])):
        write_bytes_atomic(folder / f"{name}.txt", ("\n".join(lines) + "\n").encode())
