"""From frames in uint8 and masks in bool to what the model eats, and back: the one place with [-1, 1].

Every step is the release's, in its order; where ours differs by default, the argument that restores the
release's way is named. Sources: README of the oracle in tests/data, docs/fidelity.md.
"""

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ex4d.core.arrays import Bool, Int64, UInt8
from ex4d.core.seeding import make_rng

OFFICIAL_ERODE_PX = (2, 8)
"""The release draws the kernel's side from these, ends included, for every frame, unseeded."""

CLIP_SIDE = 224
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def sample_frames(num_frames: int, num_wanted: int) -> Int64:
    """Indices int64 [num_wanted] the release picks from a longer video: evenly spread, ends included, rounded down."""
    return np.linspace(0, num_frames - 1, num_wanted, dtype=np.int64)


def resize_view(rgb: UInt8, mask: UInt8, *, height: int, width: int, official: bool) -> tuple[UInt8, UInt8]:
    """Colour and mask at the model's size.

    Args:
        rgb: uint8 [T,H,W,3], black where not observed.
        mask: uint8 [T,H,W] or [T,H,W,3], 255 = observed.
        height: wanted, px.
        width: wanted, px.
        official: bilinear whatever the sizes, as the release does. Otherwise shrinking averages areas, and colour
            is averaged over observed pixels only, so that no black bleeds into edges.

    Returns:
        uint8 [T,height,width,3] and uint8 [T,height,width] or [T,height,width,3].
    """
    if rgb.shape[1:3] == (height, width):
        return rgb, mask
    shrinks = height * width < rgb.shape[1] * rgb.shape[2]
    how = cv2.INTER_AREA if shrinks and not official else cv2.INTER_LINEAR

    def resize(frame: np.ndarray) -> np.ndarray:
        return cv2.resize(frame, (width, height), interpolation=how)

    masks = np.stack([resize(frame) for frame in mask])
    if official:
        return np.stack([resize(frame) for frame in rgb]), masks
    colors: list[UInt8] = []
    for frame, seen in zip(rgb, mask, strict=True):
        share = seen.astype(np.float32).reshape(*seen.shape[:2], -1) / 255
        weight = resize(share).reshape(height, width, -1)
        color = resize(frame.astype(np.float32) * share) / np.maximum(weight, 1e-6)
        colors.append(np.clip(color + 0.5, 0, 255).astype(np.uint8))
    return np.stack(colors), masks


def erode_mask(mask: UInt8, erode_px: str, *, seed: int, first_index: int = 0) -> UInt8:
    """The mask with observed areas shrunk by a square kernel, at the model's size and before the threshold.

    Args:
        mask: uint8 [T,H,W] or [T,H,W,3].
        erode_px: side of the kernel as text; ``official`` draws 2–8 for every frame.
        seed: of that draw; frame i gets the same kernel however the clip is cut into windows.
        first_index: index of the first frame in the clip.
    """
    eroded: list[UInt8] = []
    for offset, frame in enumerate(mask):
        if erode_px == "official":
            low, high = OFFICIAL_ERODE_PX
            side = int(make_rng(seed, "erode", first_index + offset).integers(low, high + 1))
        else:
            side = int(erode_px)
        eroded.append(np.asarray(cv2.erode(frame, np.ones((side, side), np.uint8)), np.uint8))
    return np.stack(eroded)


def threshold_mask(mask: UInt8, *, dtype: torch.dtype = torch.float32) -> Bool:
    """bool, True where mask/255 > 0.5, the division rounded to `dtype`."""
    return ((torch.from_numpy(mask).float() / 255).to(dtype) > 0.5).numpy()


def color_to_model(rgb: UInt8, observed: Bool, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Colour [1,3,T,H,W] in [-1, 1]; unobserved pixels are −1 (black).

    Args:
        rgb: uint8 [T,H,W,3].
        observed: bool [T,H,W] or [T,H,W,3].
        dtype: bfloat16 rounds as the release does.
    """
    color = (torch.from_numpy(rgb).float() / 255).to(dtype)
    return _to_planes((color * _channels(observed).to(dtype)) * 2 - 1)


def observed_to_model(observed: Bool, *, quirk: bool, dtype: torch.dtype = torch.float32) -> Tensor:
    """The mask as a video [1,3,T,H,W]: −1 and 1, or −3 and 1.

    Args:
        observed: bool [T,H,W] or [T,H,W,3].
        quirk: the release maps 0/1 to −1/+1 twice, so that its VAE sees −3/+1; its weights were trained so.
        dtype: of the result; all values are exact in bfloat16.
    """
    mask = _channels(observed).to(dtype) * 2 - 1
    return _to_planes((mask * 2 - 1 if quirk else mask).expand(*observed.shape[:3], 3))


def first_frame_to_model(color: Tensor) -> tuple[Tensor, UInt8]:
    """The image that stands for the clip's appearance: frame 0 of the masked colour, through uint8 as released.

    Args:
        color: [1,3,T,H,W] in [-1, 1].

    Returns:
        [1,3,H,W] in [-1, 1], and the truncated frame uint8 [H,W,3].
    """
    frame = ((color[0, :, 0] * 0.5 + 0.5) * 255).to(torch.uint8).permute(1, 2, 0).contiguous()
    image = frame.float() * (2 / 255) - 1
    return image.to(color.dtype).permute(2, 0, 1)[None], frame.cpu().numpy()


def clip_pixels(image: Tensor) -> Tensor:
    """Pixels [1,3,224,224] for CLIP: the whole image stretched, bicubic without antialias, then CLIP's mean and std.

    Args:
        image: [1,3,H,W] in [-1, 1].
    """
    side = (CLIP_SIDE, CLIP_SIDE)
    small = functional.interpolate(image.float(), size=side, mode="bicubic", align_corners=False) * 0.5 + 0.5
    mean = torch.tensor(_CLIP_MEAN, device=image.device).view(1, 3, 1, 1)
    std = torch.tensor(_CLIP_STD, device=image.device).view(1, 3, 1, 1)
    return ((small - mean) / std).to(image.dtype)


def image_condition_mask(num_latent_frames: int, height: int, width: int) -> Tensor:
    """float32 [1,4,t,h,w] of Wan's image condition: 1 at latent frame 0, whose image is given; 0 elsewhere."""
    mask = torch.zeros(1, 4, num_latent_frames, height, width)
    mask[:, :, 0] = 1
    return mask


def frames_from_model(video: Tensor) -> UInt8:
    """uint8 [T,H,W,3] of a video [1,3,T,H,W] in [-1, 1], truncated as the release does (diffusers rounds)."""
    return ((video[0].float() + 1) * 127.5).clamp(0, 255).to(torch.uint8).permute(1, 2, 3, 0).cpu().numpy()


def _channels(observed: Bool) -> Tensor:
    flags = torch.from_numpy(np.ascontiguousarray(observed))
    return flags[..., None] if observed.ndim == 3 else flags


def _to_planes(video: Tensor) -> Tensor:
    return video.permute(3, 0, 1, 2)[None].contiguous()
