"""Depth as 16-bit codes: what `depth.mkv` and `source_depth.mkv` hold."""

import numpy as np

from ex4d.core.arrays import Bool, Float32, UInt16

MAX_CODE = 65535


def encode_depth(depth: Float32, valid: Bool, z_min: float) -> UInt16:
    """code = round(65535 · z_min / z), 0 = invalid.

    Codes are even steps of disparity: the relative depth error is z / z_min / 131070. Depth below z_min
    saturates; depth beyond 131070 · z_min rounds to the farthest code, 1, instead of turning invalid.

    Args:
        depth: float32 [...], z, scene units.
        valid: bool [...].
        z_min: the nearest depth of the clip, > 0.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        code = np.rint(np.float32(MAX_CODE * z_min) / depth)
    return np.where(valid, np.clip(code, 1, MAX_CODE), 0).astype(np.uint16)


def decode_depth(codes: UInt16, z_min: float) -> tuple[Float32, Bool]:
    """Depth float32 [...] (0 where invalid) and valid bool [...] of `encode_depth`'s codes."""
    valid = codes > 0
    depth = np.float32(MAX_CODE * z_min) / np.maximum(codes, 1).astype(np.float32)
    return np.where(valid, depth, np.float32(0)), valid
