"""What is done to the outlines of a finished mask: displaced, dilated, eroded; the same in every frame."""

import cv2
import numpy as np

from ex4d.core.arrays import Bool, Float32
from ex4d.core.seeding import make_rng
from ex4d.masking.config import MaskConfig

_NOISE_GRAIN_PX = 24
"""Size of the bends of displaced outlines."""


def reshape(survived: Bool, *, config: MaskConfig, seed: int) -> tuple[Bool, dict[str, int]]:
    """Noise, then dilation, then erosion of bool [T,H,W]; sizes are drawn once a clip.

    Returns:
        the mask, and the drawn ``dilate_px`` and ``erode_px``.
    """
    rng = make_rng(seed, "masks", "morphology")
    dilate, erode = (int(rng.integers(low, high + 1)) for low, high in (config.dilate_px, config.erode_px))
    if config.noise_px > 0:
        survived = _displaced(survived, _smooth_noise(survived.shape[1:], rng) * np.float32(config.noise_px))
    for operation, radius in ((cv2.MORPH_DILATE, dilate), (cv2.MORPH_ERODE, erode)):
        if radius:
            kernel = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
            # beyond the frame there is neither: a rim is no outline
            survived = np.stack([cv2.morphologyEx(one.astype(np.uint8), operation, kernel) for one in survived]) > 0
    return survived, {"dilate_px": dilate, "erode_px": erode}


def _smooth_noise(size: tuple[int, ...], rng: np.random.Generator) -> Float32:
    """float32 [H,W,2], about −1…1, with bends of `_NOISE_GRAIN_PX`."""
    height, width = size
    coarse = (height // _NOISE_GRAIN_PX + 4, width // _NOISE_GRAIN_PX + 4, 2)
    knots = rng.uniform(-1, 1, coarse).astype(np.float32)
    return np.asarray(cv2.resize(knots, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def _displaced(survived: Bool, offset: Float32) -> Bool:
    height, width = survived.shape[1:]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    at = x + offset[..., 0], y + offset[..., 1]
    moved = [
        cv2.remap(one.astype(np.uint8), *at, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE) for one in survived
    ]
    return np.stack(moved) > 0
