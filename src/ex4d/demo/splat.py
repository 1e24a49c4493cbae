"""A point splat, the simplest way to see depth from elsewhere: what the mesh is compared with."""

import numpy as np

from ex4d.core.arrays import Bool, Float32, UInt8
from ex4d.core.camera import Camera
from ex4d.core.geometry import pixel_centers, project, unproject


def splat_points(frame: UInt8, depth: Float32, valid: Bool, source: Camera, target: Camera) -> tuple[UInt8, Bool]:
    """Every source pixel as one point on the nearest target pixel, the nearest point winning.

    Args:
        frame: uint8 [H,W,3].
        depth: float32 [H,W], z in the source camera, scene units.
        valid: bool [H,W], True where the depth is known.
        source: the camera of the frame.
        target: the camera to see it from.

    Returns:
        uint8 [h,w,3], black where no point fell, and observed bool [h,w].
    """
    points = unproject(source, pixel_centers(*depth.shape)[valid], depth[valid].astype(np.float64))
    pixels, z = project(target, points)
    ahead = z > 0
    column, row = np.floor(pixels[ahead]).astype(np.int64).T
    color, z = frame[valid][ahead], z[ahead]
    inside = (column >= 0) & (row >= 0) & (column < target.width) & (row < target.height)
    far_first = np.flatnonzero(inside)[np.argsort(-z[inside], kind="stable")]
    rgb = np.zeros((target.height, target.width, 3), np.uint8)
    observed = np.zeros((target.height, target.width), np.bool_)
    rgb[row[far_first], column[far_first]] = color[far_first]
    observed[row[far_first], column[far_first]] = True
    return rgb, observed
