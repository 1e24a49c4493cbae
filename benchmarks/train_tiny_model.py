"""A tiny model of Wan's shape with everything in it but a VAE: a lossless codec stands behind the VAE's interface."""

from types import SimpleNamespace
from typing import Any, cast

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

from ex4d.model.sampling import make_scheduler
from ex4d.model.transformer import EX4DTransformer3DModel
from ex4d.model.wan_pipeline import EX4DPipeline
from ex4d.training.config import ObjectiveConfig
from ex4d.training.model import TrainedModel, new_encoder

TIME, SIDE = 4, 8
CHANNELS = 3 * TIME * SIDE * SIDE
"""A latent is a block of 8x8 px in 4 frames, all of its values: as many channels as values, nothing is lost."""

TEXT_TOKENS, TEXT_DIM = 4, 16
OBJECTIVE = ObjectiveConfig(prediction="clean", weighting="none", min_sigma=0.5)
"""The clean latents are what is predicted, mostly from little else than what is seen."""


class SpaceToDepth(ModelMixin, ConfigMixin):
    """Blocks of pixels moved into channels and back, with a VAE's interface.

    As in Wan's VAE the first frame has a latent frame of its own, in which it stands four times.
    """

    @register_to_config
    def __init__(
        self,
        z_dim: int = CHANNELS,
        latents_mean: tuple[float, ...] = (0.0,) * CHANNELS,
        latents_std: tuple[float, ...] = (0.5,) * CHANNELS,
        scale_factor_temporal: int = TIME,
        scale_factor_spatial: int = SIDE,
    ) -> None:
        super().__init__()
        self.register_buffer("unit", torch.ones(()))  # has the precision that is asked for

    def encode(self, video: Tensor) -> Any:
        """Latents [B,768,t,h,w] of a video [B,3,T,H,W], as the mode of a distribution."""
        first = video[:, :, :1].expand(-1, -1, TIME - 1, -1, -1)
        whole = torch.cat([first, video], dim=2)
        b, c, frames, height, width = whole.shape
        shape = (b, c, frames // TIME, TIME, height // SIDE, SIDE, width // SIDE, SIDE)
        blocks = whole.reshape(shape).permute(0, 1, 3, 5, 7, 2, 4, 6)
        latents = blocks.reshape(b, CHANNELS, frames // TIME, height // SIDE, width // SIDE)
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: latents))

    def decode(self, latents: Tensor, *, return_dict: bool = False) -> tuple[Tensor]:
        """The video [B,3,T,H,W] in a tuple."""
        b, _, t, h, w = latents.shape
        blocks = latents.reshape(b, 3, TIME, SIDE, SIDE, t, h, w).permute(0, 1, 5, 2, 6, 3, 7, 4)
        whole = blocks.reshape(b, 3, t * TIME, h * SIDE, w * SIDE)
        return (torch.cat([whole[:, :, :TIME].mean(dim=2, keepdim=True), whole[:, :, TIME:]], dim=2),)


def make_model(*, seed: int, width: int, num_layers: int) -> tuple[TrainedModel, EX4DPipeline]:
    """Transformer and geometry encoder with random weights, float32, and a pipeline of them and the codec.

    Args:
        seed: of the weights.
        width: of the transformer, in multiples of 48.
        num_layers: its blocks.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = EX4DTransformer3DModel(
            patch_size=(1, 1, 1),
            num_attention_heads=width // 48,
            attention_head_dim=48,
            in_channels=2 * CHANNELS + 4,
            out_channels=CHANNELS,
            text_dim=TEXT_DIM,
            freq_dim=64,
            ffn_dim=4 * width,
            num_layers=num_layers,
            image_dim=None,
            added_kv_proj_dim=None,
        )
    encoder = new_encoder(transformer, seed=seed, hidden_channels=width)
    model = TrainedModel(transformer, encoder).requires_grad_(True)
    pipe = EX4DPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=cast(Any, SpaceToDepth()),
        scheduler=make_scheduler(),
        transformer=transformer,
        geometry_encoder=encoder,
    )
    return model, pipe.place("cpu")


def no_text() -> dict[str, Tensor]:
    """The embedding of the one caption that there is."""
    return {"": torch.zeros(TEXT_TOKENS, TEXT_DIM)}
