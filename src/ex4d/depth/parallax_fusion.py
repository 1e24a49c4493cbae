"""Agreement over time: what a frame's parallax says, checked and averaged with what the frames around it say."""

from collections import deque
from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np

from ex4d.core.arrays import Bool, Float32, Float64
from ex4d.core.camera import CameraPath
from ex4d.depth.parallax import ParallaxFrame

OFFSETS = (-6, -4, -2, -1, 1, 2, 4, 6)
_AGREE = 0.12


def fuse_parallax(frames: Iterator[ParallaxFrame], path: CameraPath) -> Iterator[ParallaxFrame]:
    """The same frames with disparity averaged over those nearby that agree; holds 13 of them.

    A pixel is carried to another frame by its disparity and both cameras; where that frame's own disparity is the same
    surface within 12 % (or three standard deviations), it counts. What nobody agrees with is trusted less.

    Args:
        frames: in order, all of the clip's.
        path: the cameras, one a frame, at any size of the clip's shape.
    """
    held: deque[tuple[int, ParallaxFrame, Float32]] = deque()
    reach = max(OFFSETS)
    index, ended = 0, False
    while True:
        while not ended and (not held or held[-1][0] < index + reach):
            frame = next(frames, None)
            if frame is None:
                ended = True
                break
            number = held[-1][0] + 1 if held else index
            held.append((number, frame, frame.completed()))
        if not held or index > held[-1][0]:
            return
        while held[0][0] < index - reach:
            held.popleft()
        yield _fuse({number: (frame, full) for number, frame, full in held}, path, index)
        index += 1


def _fuse(held: dict[int, tuple[ParallaxFrame, Float32]], path: CameraPath, index: int) -> ParallaxFrame:
    frame, full = held[index]
    height, width = frame.gray.shape
    own = frame.weight
    known = own > 0
    start = np.where(known, frame.disparity, full)
    total, weighted = own.copy(), own * np.log(np.maximum(start, 1e-9))
    seen, agreed = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    for offset in OFFSETS:
        if index + offset not in held:
            continue
        other, _ = held[index + offset]
        sample, weight, inside = _carry(start, other, _relative(path, index, index + offset, (height, width)))
        tolerance = np.maximum(_AGREE, 3 / np.sqrt(np.maximum(np.minimum(weight, np.maximum(own, 1e-9)), 1e-9)))
        tolerance = np.where(known, np.minimum(tolerance, 0.5), 2 * _AGREE)
        agrees = inside & (np.abs(sample) < tolerance)
        seen += inside
        agreed += agrees
        total += weight * agrees
        weighted += weight * agrees * (np.log(np.maximum(start, 1e-9)) + sample)
    value = np.exp(weighted / np.maximum(total, 1e-9)) * (total > 0)
    doubt = 1 + 3 * (1 - agreed / np.maximum(seen, 1)) * (seen >= 2)
    with np.errstate(divide="ignore"):
        error = np.where(total > 0, value * doubt / np.sqrt(np.maximum(total, 1e-9)), np.inf)
    return replace(frame, disparity=value.astype(np.float32), error=error.astype(np.float32))


def _relative(path: CameraPath, index: int, other: int, size: tuple[int, int]) -> Float64:
    """float64 [3,4]: (x z, y z, z) px of one frame, and 1, to the same of another; both at (h, w), corner origin."""
    scale = np.diag([size[1] / path.width, size[0] / path.height, 1.0])
    a, b = path.world_to_camera[index], path.world_to_camera[other]
    rotation = b[:3, :3] @ a[:3, :3].T
    translation = b[:3, 3] - rotation @ a[:3, 3]
    K, K_other = scale @ path.K[index], scale @ path.K[other]
    return np.concatenate([K_other @ rotation @ np.linalg.inv(K), (K_other @ translation)[:, None]], axis=1)


def _carry(disparity: Float32, other: ParallaxFrame, matrix: Float64) -> tuple[Float32, Float32, Bool]:
    """What another frame says: log of its disparity over the expected one, weight, and whether it says anything."""
    height, width = disparity.shape
    m = matrix.astype(np.float32)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) + np.float32(0.5)
    z = m[2, 0] * x + m[2, 1] * y + m[2, 2] + m[2, 3] * disparity  # depth there over depth here
    z = np.maximum(z, np.float32(1e-3))
    u = (m[0, 0] * x + m[0, 1] * y + m[0, 2] + m[0, 3] * disparity) / z - np.float32(0.5)
    v = (m[1, 0] * x + m[1, 1] * y + m[1, 2] + m[1, 3] * disparity) / z - np.float32(0.5)
    found = cv2.remap(other.disparity, u, v, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    weight = cv2.remap(other.weight, u, v, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    inside = (np.asarray(weight) > 0) & (disparity > 0)
    ratio = np.log(np.maximum(found, 1e-9) * z / np.maximum(disparity, 1e-9))
    return np.asarray(ratio, np.float32), np.asarray(weight, np.float32), inside
