"""A training sample as latents: the whole clip as the target, and what is seen of it through each simulated mask.

What is seen goes through the same code as a prior at inference (`EX4DPipeline.encode_views`), erosion included, so
that weights trained here and the released ones are interchangeable.
"""

import numpy as np
import torch
from torch import Tensor

from ex4d.core.arrays import Bool, UInt8
from ex4d.core.seeding import make_rng
from ex4d.model import preprocess
from ex4d.model.branch import PriorLatents
from ex4d.model.wan_pipeline import EX4DPipeline

TARGET, TEXT = "target", "text"
COLOR, OBSERVED, IMAGE, IMAGE_EMBEDS = "color", "observed", "image", "image_embeds"


def encode_sample(
    pipe: EX4DPipeline, video: UInt8, survived: Bool, caption: str, *, seed: int, mask_quirk: bool = True
) -> dict[str, Tensor]:
    """Everything of a sample that frozen encoders compute, on the CPU.

    Args:
        pipe: with VAE, image encoder and text encoder; neither transformer nor geometry encoder are used.
        video: uint8 [T,H,W,3], T = 4k+1, H and W multiples of 16.
        survived: bool [M,T,H,W], not eroded.
        caption: may be empty.
        seed: of the erosion; see `encode_seen`.
        mask_quirk: see `preprocess.observed_to_model`.

    Returns:
        ``target`` float32 [16,t,h,w], normalised latents of the clip; ``color``, ``observed`` and ``image`` float32
        [M,16,t,h,w] and ``image_embeds`` [M,257,1280] (absent for a transformer that takes none), as in
        `PriorLatents`, one for each mask; ``text`` [512,text_dim], zeros after the caption.
    """
    seen = [
        encode_seen(pipe, video, survived, index, seed=seed, mask_quirk=mask_quirk) for index in range(len(survived))
    ]
    found = {
        TARGET: encode_target(pipe, video),
        COLOR: torch.cat([latents.color for latents in seen]),
        OBSERVED: torch.cat([latents.observed for latents in seen]),
        IMAGE: torch.cat([latents.image for latents in seen]),
        TEXT: pipe.encode_text(caption, None).cond[0],
    }
    embeds = [latents.image_embeds for latents in seen if latents.image_embeds is not None]
    if embeds:
        found[IMAGE_EMBEDS] = torch.cat(embeds)
    return {name: tensor.cpu() for name, tensor in found.items()}


def encode_target(pipe: EX4DPipeline, video: UInt8) -> Tensor:
    """Normalised latents float32 [16,t,h,w] of a whole clip uint8 [T,H,W,3]."""
    whole = preprocess.color_to_model(video, np.ones(video.shape[:3], np.bool_), dtype=pipe.vae.dtype)
    return pipe.encode_video(whole.to(pipe.compute_device))[0]


def encode_seen(
    pipe: EX4DPipeline, video: UInt8, survived: Bool, index: int, *, seed: int, mask_quirk: bool = True
) -> PriorLatents:
    """What is seen of a clip through one of its masks, as a prior of inference.

    Args:
        pipe: with VAE and image encoder.
        video: uint8 [T,H,W,3].
        survived: bool [M,T,H,W], not eroded.
        index: which mask.
        seed: of the erosion: every frame of every mask draws its own kernel of 2–8 px, as the release does unseeded.
        mask_quirk: see `preprocess.observed_to_model`.
    """
    kernels = int(make_rng(seed, "training erosion", index).integers(2**31))
    eroded = preprocess.erode_mask(survived[index].astype(np.uint8) * np.uint8(255), "official", seed=kernels)
    return pipe.encode_views(video, preprocess.threshold_mask(eroded), mask_quirk=mask_quirk)
