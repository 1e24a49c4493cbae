"""The nouns `Camera` and `CameraPath`.

Axes are OpenCV's: x right, y down, z forward. Pixels count from the top-left *corner*, so the centre
of the top-left pixel is (0.5, 0.5). The world is the camera frame of source frame 0.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ex4d.core.arrays import Float64, Int64, check_array


def _check_rigid(name: str, matrix: Float64) -> None:
    """Raise unless matrix [...,4,4] is a rotation and translation (to 1e-4), without reflection."""
    rotation = matrix[..., :3, :3]
    if not np.isfinite(matrix).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
    error = np.abs(rotation @ np.swapaxes(rotation, -1, -2) - np.eye(3)).max()
    if error > 1e-4 or np.abs(matrix[..., 3, :] - (0, 0, 0, 1)).max() > 1e-6:
        raise ValueError(f"{name}: expected a rigid transform, got one that is off by {error:.2g}")
    if (np.linalg.det(rotation) < 0).any():
        raise ValueError(f"{name}: expected a rotation, got a reflection (determinant -1)")


def _check_intrinsics(name: str, intrinsics: Float64) -> None:
    """Raise unless K [...,3,3] has positive focal lengths and the last row (0, 0, 1)."""
    if not np.isfinite(intrinsics).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
    if (intrinsics[..., 0, 0] <= 0).any() or (intrinsics[..., 1, 1] <= 0).any():
        raise ValueError(f"{name}: expected positive focal lengths in pixels")
    if np.abs(intrinsics[..., 2, :] - (0, 0, 1)).max() > 1e-9:
        raise ValueError(f"{name}: expected the last row 0 0 1")


def _check_size(name: str, height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise ValueError(f"{name}: expected a height and width of at least 1 px, got {height}x{width}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """A pinhole camera.

    Attributes:
        K: float64 [3,3], pixels; principal point measured from the top-left corner.
        world_to_camera: float64 [4,4], rigid, OpenCV axes.
        height: px.
        width: px.
    """

    K: Float64
    world_to_camera: Float64
    height: int
    width: int

    def __post_init__(self) -> None:
        check_array("Camera.K", self.K, np.float64, (3, 3))
        check_array("Camera.world_to_camera", self.world_to_camera, np.float64, (4, 4))
        _check_intrinsics("Camera.K", self.K)
        _check_rigid("Camera.world_to_camera", self.world_to_camera)
        _check_size("Camera", self.height, self.width)

    @property
    def camera_to_world(self) -> Float64:
        """float64 [4,4]: the exact rigid inverse."""
        return invert_rigid(self.world_to_camera)

    @property
    def center(self) -> Float64:
        """float64 [3]: the eye in world coordinates."""
        return self.camera_to_world[:3, 3].copy()

    @property
    def fov_x_deg(self) -> float:
        """Horizontal field of view in degrees."""
        cx, fx = self.K[0, 2], self.K[0, 0]
        return math.degrees(math.atan(cx / fx) + math.atan((self.width - cx) / fx))


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraPath:
    """N cameras, and which source frame each of them shows.

    Attributes:
        K: float64 [N,3,3], pixels, corner origin.
        world_to_camera: float64 [N,4,4], rigid, OpenCV axes.
        source_index: int64 [N], index of the source frame that output frame i shows.
        height: px, the same for all.
        width: px, the same for all.
    """

    K: Float64
    world_to_camera: Float64
    source_index: Int64
    height: int
    width: int

    def __post_init__(self) -> None:
        num = len(self.K)
        check_array("CameraPath.K", self.K, np.float64, (None, 3, 3))
        check_array("CameraPath.world_to_camera", self.world_to_camera, np.float64, (num, 4, 4))
        check_array("CameraPath.source_index", self.source_index, np.int64, (num,))
        if num == 0:
            raise ValueError("CameraPath: expected at least one camera, got none")
        _check_intrinsics("CameraPath.K", self.K)
        _check_rigid("CameraPath.world_to_camera", self.world_to_camera)
        _check_size("CameraPath", self.height, self.width)
        if (self.source_index < 0).any():
            raise ValueError("CameraPath.source_index: expected indices >= 0")

    def __len__(self) -> int:
        return len(self.K)

    def __getitem__(self, index: int) -> Camera:
        return Camera(
            K=self.K[index], world_to_camera=self.world_to_camera[index], height=self.height, width=self.width
        )

    @property
    def camera_to_world(self) -> Float64:
        """float64 [N,4,4]: the exact rigid inverses."""
        return invert_rigid(self.world_to_camera)

    @property
    def center(self) -> Float64:
        """float64 [N,3]: the eyes in world coordinates."""
        return self.camera_to_world[:, :3, 3].copy()

    @property
    def fov_x_deg(self) -> Float64:
        """float64 [N]: horizontal fields of view in degrees."""
        return np.array([self[i].fov_x_deg for i in range(len(self))])

    @staticmethod
    def from_cameras(cameras: Sequence[Camera], source_index: Int64) -> "CameraPath":
        """Stack cameras of one size into a path."""
        return CameraPath(
            K=np.stack([camera.K for camera in cameras]),
            world_to_camera=np.stack([camera.world_to_camera for camera in cameras]),
            source_index=source_index,
            height=cameras[0].height,
            width=cameras[0].width,
        )


def invert_rigid(matrix: Float64) -> Float64:
    """Inverse of rigid transforms float64 [...,4,4] by transposition (no loss from a general inverse)."""
    out = np.zeros_like(matrix)
    rotation_t = np.swapaxes(matrix[..., :3, :3], -1, -2)
    out[..., :3, :3] = rotation_t
    out[..., :3, 3] = -np.einsum("...ij,...j->...i", rotation_t, matrix[..., :3, 3])
    out[..., 3, 3] = 1.0
    return out


def rebase(world_to_camera: Float64) -> Float64:
    """The same cameras float64 [N,4,4] in the world of the first one, whose matrix becomes exactly the identity."""
    matrices = world_to_camera @ invert_rigid(world_to_camera[0])
    matrices[:, 3] = (0, 0, 0, 1)
    matrices[0] = np.eye(4)
    return matrices


def pinhole(*, focal_px: float, height: int, width: int) -> Float64:
    """K float64 [3,3] with square pixels and the principal point at (W/2, H/2), corner origin."""
    return np.array([[focal_px, 0.0, width / 2], [0.0, focal_px, height / 2], [0.0, 0.0, 1.0]])


def static_path(*, K: Float64, num_frames: int, height: int, width: int) -> CameraPath:
    """The path of a camera that stays at the world origin; frame i shows source frame i."""
    return CameraPath(
        K=np.repeat(K[None], num_frames, axis=0),
        world_to_camera=np.repeat(np.eye(4)[None], num_frames, axis=0),
        source_index=np.arange(num_frames, dtype=np.int64),
        height=height,
        width=width,
    )
