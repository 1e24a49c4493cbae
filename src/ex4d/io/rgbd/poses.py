"""Camera poses as RGB-D recordings write them: matrices and quaternion lines in, a rebased path out."""

from pathlib import Path

import numpy as np

from ex4d.core.arrays import Float64, Int64
from ex4d.core.camera import CameraPath, rebase
from ex4d.core.rotations import nearest_rotation, quaternion_to_matrix, rotation_error
from ex4d.errors import InputError

_MAX_TEXT_BYTES = 64 << 20


def read_numbers(path: Path, columns: int) -> Float64:
    """Rows of numbers float64 [N,columns] of a text file; ``#`` starts a comment.

    Raises:
        InputError: unreadable, not numbers, another number of columns, NaN or infinity.
    """
    try:
        if path.stat().st_size > _MAX_TEXT_BYTES:
            raise InputError(f"a text file of numbers at {path}", "more than 64 MiB")
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [[float(word) for word in line.replace(",", " ").split()] for line in _data_lines(lines)]
    except (OSError, ValueError) as error:
        raise InputError(f"{columns} numbers a line in {path}", str(error)) from error
    bad = next((row for row in rows if len(row) != columns), None)
    if bad is not None or not rows:
        raise InputError(f"{columns} numbers a line in {path}", "no line" if bad is None else f"{len(bad)} numbers")
    values = np.array(rows, np.float64)
    if not np.isfinite(values).all():
        raise InputError(
            f"finite numbers in {path}", "NaN or infinity", "tracking was lost there: leave those frames out"
        )
    return values


def _data_lines(lines: list[str]) -> list[str]:
    stripped = (line.split("#", 1)[0].strip() for line in lines)
    return [line for line in stripped if line]


def read_matrix_pose(path: Path) -> Float64:
    """camera_to_world float64 [4,4] of a 7-Scenes ``.pose.txt``.

    Raises:
        InputError: not a rigid 4×4 matrix.
    """
    values = read_numbers(path, 4)
    if values.shape != (4, 4):
        raise InputError(f"a 4x4 matrix in {path}", f"{len(values)} lines")
    return nearest_rigid(values, str(path))


def nearest_rigid(matrix: Float64, what: str) -> Float64:
    """The rotation nearest to a rounded one (polar decomposition), so that printed digits do not add up.

    Args:
        matrix: float64 [...,4,4], rigid up to 1e-2.
        what: names the file in the message.

    Raises:
        InputError: farther than that from a rigid transform.
    """
    rotation = matrix[..., :3, :3]
    last_row = np.abs(matrix[..., 3, :] - (0, 0, 0, 1)).max()
    error = rotation_error(rotation)
    if not (error < 1e-2 and last_row < 1e-6 and (np.linalg.det(rotation) > 0).all()):
        raise InputError(f"a rotation and translation in {what}", f"a matrix that is off by {max(error, last_row):.2g}")
    out = matrix.copy()
    out[..., :3, :3] = nearest_rotation(rotation)
    return out


def poses_from_quaternions(translation: Float64, quaternion_xyzw: Float64, what: str) -> Float64:
    """camera_to_world float64 [N,4,4] from t [N,3] and unit quaternions [N,4] in the order x y z w.

    Raises:
        InputError: a quaternion that is off unit length by more than 1 %.
    """
    length = np.linalg.norm(quaternion_xyzw, axis=-1)
    if not (np.abs(length - 1) < 0.01).all():
        worst = int(np.argmax(np.abs(length - 1)))
        raise InputError(f"unit quaternions in {what}", f"length {length[worst]:.3g} in line {worst}")
    out = np.zeros((len(translation), 4, 4))
    out[:, :3, :3] = quaternion_to_matrix(quaternion_xyzw[:, [3, 0, 1, 2]])
    out[:, :3, 3] = translation
    out[:, 3, 3] = 1.0
    return out


def build_path(world_to_camera: Float64, K: Float64, *, height: int, width: int) -> CameraPath:
    """A path over frames 0, 1, … of a clip.

    Args:
        world_to_camera: float64 [N,4,4].
        K: float64 [3,3] or [N,3,3], pixels, corner origin.
        height: px.
        width: px.
    """
    num = len(world_to_camera)
    return CameraPath(
        K=np.broadcast_to(K, (num, 3, 3)).copy(),
        world_to_camera=world_to_camera,
        source_index=np.arange(num, dtype=np.int64),
        height=height,
        width=width,
    )


def select_path(path: CameraPath, indices: Int64) -> CameraPath:
    """The cameras of some frames, rebased on the first of them; ``source_index`` counts anew from 0."""
    matrices = rebase(path.world_to_camera[indices])
    return build_path(matrices, path.K[indices], height=path.height, width=path.width)


def interpolate_poses(times_s: Float64, poses: Float64, at_s: Float64, what: str) -> Float64:
    """Poses at other times: translation linear, rotation along the chord between the two neighbours.

    The chord (renormalised) differs from the arc by the cube of the angle: nothing at the ≤ 0.1 s steps allowed.

    Args:
        times_s: float64 [N], increasing.
        poses: float64 [N,4,4], camera_to_world.
        at_s: float64 [M].
        what: names the file in the message.

    Raises:
        InputError: a time with no pose within 0.1 s.
    """
    after = np.clip(np.searchsorted(times_s, at_s), 1, max(len(times_s) - 1, 1))
    before, after = after - 1, np.minimum(after, len(times_s) - 1)
    gap = np.minimum(np.abs(times_s[before] - at_s), np.abs(times_s[after] - at_s))
    if (gap > 0.1).any():
        worst = int(np.argmax(gap))
        raise InputError(f"a pose within 0.1 s of every frame in {what}", f"{gap[worst]:.3f} s at frame {worst}")
    span = np.maximum(times_s[after] - times_s[before], 1e-9)
    weight = np.clip((at_s - times_s[before]) / span, 0, 1)[:, None, None]
    mixed = (1 - weight) * poses[before] + weight * poses[after]
    mixed[:, :3, :3] = nearest_rotation(mixed[:, :3, :3])
    return mixed
