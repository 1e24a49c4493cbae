"""Frames as the networks of the Depth Anything family want them, and what they return checked; imports no torch."""

import cv2
import numpy as np

from ex4d.core.arrays import Float32, UInt8
from ex4d.depth.pretrained.sizes import PATCH_PX
from ex4d.errors import ConfigError, DepthError

MIN_SIDE_PX, MAX_SIDE_PX = 4 * PATCH_PX, 146 * PATCH_PX
"""Of the shorter side of a network's picture: 56 to 2044 px."""
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_STD = np.array([0.229, 0.224, 0.225], np.float32)


def network_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(height, width) of the picture that a network sees of a frame: the whole of it, sides multiples of 14.

    The shorter side is `short_side` rounded, the longer keeps the aspect ratio as nearly as it can: both directions
    are scaled on their own, by up to 7 px at the longer side.

    Args:
        height: px of the frame.
        width: px of the frame.
        short_side: px, 56 to 2044.

    Raises:
        ConfigError: `short_side` is out of range.
    """
    if not MIN_SIDE_PX <= short_side <= MAX_SIDE_PX:
        raise ConfigError(f"a shorter side of {MIN_SIDE_PX} to {MAX_SIDE_PX} px for the depth network", f"{short_side}")
    short = _to_patches(short_side)
    scale = short / min(height, width)
    return max(short, _to_patches(scale * height)), max(short, _to_patches(scale * width))


def _to_patches(side: float) -> int:
    return round(side / PATCH_PX) * PATCH_PX


def prepare_pictures(frames: UInt8, size: tuple[int, int]) -> Float32:
    """Frames uint8 [n,H,W,3] sRGB as float32 [n,3,h,w], resized and normalised with ImageNet's mean and deviation."""
    height, width = size
    shrinks = frames.shape[1] * frames.shape[2] > height * width
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    resized = [cv2.resize(frame.astype(np.float32) / np.float32(255), (width, height), interpolation=method)
               for frame in frames]  # fmt: skip
    return np.ascontiguousarray(((np.stack(resized) - _MEAN) / _STD).transpose(0, 3, 1, 2))


def name_frames(numbers: list[int]) -> str:
    """ "20, 45 and 61", at most five of them."""
    shown = [str(number) for number in numbers[:5]]
    if len(numbers) > len(shown):
        shown.append(f"{len(numbers) - len(shown)} more")
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def check_output(values: Float32, frames: list[int], name: str) -> None:
    """Refuse NaN and infinities of a network.

    Args:
        values: float32 [n,h,w].
        frames: the clip's number of each.
        name: the estimator.

    Raises:
        DepthError: names the first frame.
    """
    for number, frame in zip(frames, values, strict=True):
        if not np.isfinite(frame).all():
            raise DepthError(
                f"finite numbers from {name} in frame {number}",
                f"{int((~np.isfinite(frame)).sum())} of {frame.size} pixels NaN or infinite",
                f"check the weights with `ex4d weights verify {name}`; if they are sound, run with --device cpu",
            )
