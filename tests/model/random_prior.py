"""Small random priors for the miniature."""

import numpy as np
from torch import Tensor

from ex4d.core.arrays import Bool, UInt8


def random_prior(num_frames: int = 5, height: int = 32, width: int = 48, *, seed: int = 0) -> tuple[UInt8, Bool]:
    """Random colour uint8 [T,H,W,3], and a mask bool [T,H,W] of patches."""
    random = np.random.default_rng(seed)
    rgb = random.integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)
    patches = random.uniform(size=(num_frames, height // 8, width // 8)) > 0.4
    return rgb, patches.repeat(8, axis=1).repeat(8, axis=2)


def known(tensor: Tensor | None) -> Tensor:
    """A part of a conditioning that must be there."""
    assert tensor is not None
    return tensor
