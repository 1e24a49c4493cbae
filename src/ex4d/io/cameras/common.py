"""What every camera reader hands on, and the checks that make a `CameraPath` of it."""

import re
from dataclasses import dataclass, replace

import numpy as np

from ex4d.core.arrays import Float64, Int64
from ex4d.core.camera import CameraPath, invert_rigid, rebase
from ex4d.core.rotations import nearest_rotation, rotation_error
from ex4d.errors import CameraPathError
from ex4d.io.intrinsics import same_aspect, scale_intrinsics

MAX_CAMERAS = 100_000
"""An hour at 24 fps is 86 400."""
MAX_SIDE_PX = 1_000_000

OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
"""Camera axes of OpenGL, nerfstudio and Blender (y up, z back) from OpenCV's, and the reverse."""

FLOAT32_ERROR = 1e-5
"""Rotations off by less come from float32 files; they are made exact without a word."""
ROUNDED_ERROR = 1e-3
"""Rotations off by less are printed digits: made exact and reported. More is not a rotation."""
NOT_TOUCHED_ERROR = 1e-12
"""Rotations off by less are kept bit for bit, so that our own files return as written."""

Size = tuple[int, int]
"""(height, width) in pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawCameras:
    """Cameras as a file holds them, axes and pixel origin already ours.

    Attributes:
        K: float64 [N,3,3], pixels of `sizes`, corner origin.
        world_to_camera: float64 [N,4,4], OpenCV axes; not yet checked to be rigid.
        source_index: int64 [N].
        sizes: (height, width) of each camera, or empty where the file does not say.
        notices: sentences for people.
        names: the pictures' names in the order of the cameras, where the file has them, else empty.
        squeeze_px: a program that resized the pictures to `sizes` rounded each side by less than this.
    """

    K: Float64
    world_to_camera: Float64
    source_index: Int64
    sizes: tuple[Size, ...]
    notices: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    squeeze_px: int = 0


def finish(raw: RawCameras, size: Size | None) -> tuple[CameraPath, tuple[str, ...]]:
    """A checked path at `size` (None: the file's own), and the notices.

    Raises:
        CameraPathError: not finite, not rigid, a reflection, no or another image size.
    """
    notices = list(raw.notices)
    num = len(raw.K)
    if not 1 <= num <= MAX_CAMERAS:
        raise CameraPathError(f"1 to {MAX_CAMERAS} cameras", f"{num}")
    raw = _rigid(raw, notices)
    intrinsics, size = _at_size(raw, size, notices)
    try:
        path = CameraPath(
            K=intrinsics,
            world_to_camera=raw.world_to_camera,
            source_index=raw.source_index,
            height=size[0],
            width=size[1],
        )
    except ValueError as error:
        raise CameraPathError("cameras with finite, positive intrinsics and rigid poses", str(error)) from error
    return path, tuple(notices)


def _rigid(raw: RawCameras, notices: list[str]) -> RawCameras:
    matrices = raw.world_to_camera
    bad = ~(np.isfinite(matrices).all(axis=(1, 2)) & np.isfinite(raw.K).all(axis=(1, 2)))
    if bad.any():
        raise CameraPathError("finite numbers in every camera", f"NaN or infinity in camera {int(np.argmax(bad))}")
    _check_last_row(matrices)
    error = rotation_error(matrices[:, :3, :3])
    reflected = np.linalg.det(matrices[:, :3, :3]) < 0
    if not error <= ROUNDED_ERROR:
        raise CameraPathError(
            "rotations (orthonormal 3x3) in every pose",
            f"matrices that are off by {error:.2g}",
            "remove scale and shear",
        )
    if reflected.any():
        where = int(np.argmax(reflected))
        raise CameraPathError("rotations", f"a reflection (determinant -1) in camera {where}", "check the axes")
    if error <= NOT_TOUCHED_ERROR:
        return raw
    if error > FLOAT32_ERROR:
        notices.append(f"camera rotations were rounded (off by {error:.1g}): the nearest exact rotations are used")
    exact = matrices.copy()
    exact[:, :3, :3] = nearest_rotation(matrices[:, :3, :3])
    exact[:, 3] = (0, 0, 0, 1)
    return replace(raw, world_to_camera=exact)


def _at_size(raw: RawCameras, size: Size | None, notices: list[str]) -> tuple[Float64, Size]:
    own = sorted(set(raw.sizes))
    if any(not (1 <= side <= MAX_SIDE_PX) for each in own for side in each):
        raise CameraPathError(f"image sides of 1 to {MAX_SIDE_PX} px", f"{own[0][1]}x{own[0][0]}")
    if size is None:
        if len(own) != 1:
            got = "none" if not own else ", ".join(f"{w}x{h}" for h, w in own[:4])
            raise CameraPathError("one image size in the camera file", got, "pass the size of the images")
        return raw.K, own[0]
    intrinsics = raw.K.copy()
    for each in own:
        if each == size:
            continue
        if not same_aspect(each, size, step_px=raw.squeeze_px):
            raise CameraPathError(
                f"cameras of images of the shape {size[1]}x{size[0]}",
                f"cameras of {each[1]}x{each[0]} images",
                "crop the images or the intrinsics to one shape",
            )
        chosen = [i for i, other in enumerate(raw.sizes) if other == each]
        intrinsics[chosen] = scale_intrinsics(intrinsics[chosen], from_size=each, to_size=size)
        notices.append(f"camera intrinsics were scaled from {each[1]}x{each[0]} to {size[1]}x{size[0]}")
    return intrinsics, size


def size_from_center(intrinsics: Float64) -> tuple[Size, ...]:
    """(height, width) of each K [N,3,3] of a program that keeps no image size but puts c at (W/2, H/2).

    Raises:
        CameraPathError: a principal point that no picture has.
    """
    doubled = 2 * intrinsics[:, :2, 2]
    if not (np.isfinite(doubled).all() and (doubled >= 1).all() and (doubled < 2**31).all()):
        raise CameraPathError("a principal point inside the image in intrinsics", "another value")
    return tuple((round(float(cy)), round(float(cx))) for cx, cy in doubled)


def pinhole_matrix(fx: float, fy: float, cx: float, cy: float) -> Float64:
    """K float64 [3,3] without skew."""
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def require_no_skew(path: CameraPath, what: str) -> None:
    """Raise where a format that knows only fx, fy, cx, cy cannot hold these cameras."""
    if np.abs(path.K[:, 0, 1]).max() > 1e-9 or np.abs(path.K[:, 1, 0]).max() > 1e-9:
        raise CameraPathError(f"intrinsics without skew for {what}", "a skewed K", "export cameras.json or npz instead")


def frame_name(index: int, source_index: int) -> str:
    """The image name of output frame `index`; says the source frame where it is another."""
    return f"frame_{index:06d}.png" if index == source_index else f"frame_{index:06d}_source_{source_index:06d}.png"


_NAMED_SOURCE = re.compile(r"_source_([0-9]{1,9})\.png$")


def order_by_name(names: list[str]) -> tuple[list[int], Int64, tuple[str, ...]]:
    """The order of cameras by image name (numbers as numbers), their source frames, and a notice if it differs.

    A name made by `frame_name` says its source frame; otherwise cameras show frames 0, 1, 2, ...
    """
    order = sorted(range(len(names)), key=lambda i: _natural(names[i]))
    found = [_NAMED_SOURCE.search(names[i]) for i in order]
    source = [int(match.group(1)) if match else rank for rank, match in enumerate(found)]
    moved = order != list(range(len(names)))
    notices = ("cameras were put in the order of their image names",) if moved else ()
    return order, np.array(source, dtype=np.int64), notices


def _natural(name: str) -> list[tuple[int, str]]:
    """Digits compare by length first, so that 10 follows 9 without building huge integers."""
    parts = re.split(r"([0-9]+)", name)
    numbers = [part.lstrip("0") for part in parts]
    return [(len(numbers[i]), numbers[i]) if i % 2 else (0, parts[i]) for i in range(len(parts))]


def to_world_to_camera(camera_to_world: Float64) -> Float64:
    """Inverse of matrices float64 [N,4,4] that are not checked yet; scale and shear stay visible to `finish`.

    Raises:
        CameraPathError: a last row other than 0 0 0 1.
    """
    _check_last_row(camera_to_world)
    return invert_rigid(camera_to_world)


def _check_last_row(matrices: Float64) -> None:
    if not np.abs(matrices[:, 3] - (0, 0, 0, 1)).max() <= 1e-6:
        raise CameraPathError("the last row 0 0 0 1 in every pose", "another one", "poses are rigid 4x4 transforms")


def rebase_path(path: CameraPath) -> CameraPath:
    """The same cameras in the world of their first one, whose matrix becomes exactly the identity."""
    try:
        return replace(path, world_to_camera=rebase(path.world_to_camera))
    except ValueError as error:
        raise CameraPathError("cameras that can be moved to the origin", str(error)) from error
