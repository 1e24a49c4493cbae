"""A random miniature of Stable Video Diffusion's parts, saved as `ex4d weights pull` would leave them."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from ex4d.weights.folders import write_json
from ex4d.weights.manifest import FileRecord, Manifest, write_manifest

EMBEDDING = 32
_VAE: dict[str, Any] = {
    "block_out_channels": (32, 32, 32, 32),
    "layers_per_block": 1,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "force_upcast": True,
}
_SCHEDULER: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "sigma_min": 0.002,
    "sigma_max": 700.0,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "timestep_type": "continuous",
    "use_karras_sigmas": True,
}
"""As stable-video-diffusion-img2vid-xt/scheduler/scheduler_config.json."""


def make_unet(seed: int = 0) -> UNetSpatioTemporalConditionModel:
    """The UNet with four levels, like the real one, and random weights that keep signals of size 1."""
    return _random(
        lambda: UNetSpatioTemporalConditionModel(
            block_out_channels=(32, 32, 64, 64),
            layers_per_block=1,
            cross_attention_dim=EMBEDDING,
            num_attention_heads=(2, 2, 4, 4),
            addition_time_embed_dim=32,
            projection_class_embeddings_input_dim=96,
        ),
        seed,
    )


def make_scheduler() -> EulerDiscreteScheduler:
    """SVD's scheduler."""
    return EulerDiscreteScheduler(**_SCHEDULER)


def save_weights(root: Path) -> None:
    """Write the folders ``depthcrafter`` and ``svd`` of a weights root."""
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=224,
        patch_size=32,
        projection_dim=EMBEDDING,
        hidden_act="gelu",
    )
    folder, svd = root / "depthcrafter", root / "svd"
    make_unet().save_pretrained(folder)
    vae = _random(lambda: AutoencoderKLTemporalDecoder(**_VAE), 1)
    vae.save_pretrained(svd / "vae", variant="fp16")
    encoder = _random(lambda: CLIPVisionModelWithProjection(config), 2)
    encoder.save_pretrained(svd / "image_encoder", variant="fp16")
    make_scheduler().save_pretrained(svd / "scheduler")
    (svd / "feature_extractor").mkdir()
    pixels = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
    write_json(svd / "feature_extractor" / "preprocessor_config.json", pixels)
    for part in (folder, svd):
        files = {
            path.relative_to(part).as_posix(): FileRecord(
                size=path.stat().st_size, sha256=hashlib.sha256(path.read_bytes()).hexdigest()
            )
            for path in sorted(part.rglob("*"))
            if path.is_file()
        }
        write_manifest(part, Manifest(files=files, name=part.name))


def _random(make: Callable[[], Any], seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = make()
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
            elif name.endswith("mix_factor"):
                nn.init.normal_(parameter)
    return module.eval().requires_grad_(False)
