"""The geometry encoder: what a prior shows, as an addition to the transformer's patch embedding.

Latents of the colour and of the observed video (16 channels each) → three 1×1×1 convolutions → one patch
convolution. Layer names are those of EX-4D's released checkpoint.
"""

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn


class GeometryEncoder(ModelMixin, ConfigMixin):
    """EX-4D's adapter beside its LoRA: 23.11 M parameters at full size.

    The patch convolution starts at zero, so that an untrained encoder changes nothing.

    Args:
        in_channels: channels of each of the two latent videos.
        hidden_channels: width of the 1×1×1 convolutions.
        out_channels: width of the transformer it feeds.
        patch_size: (t, h, w) of that transformer.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 16,
        hidden_channels: int = 1024,
        out_channels: int = 5120,
        patch_size: tuple[int, int, int] = (1, 2, 2),
    ) -> None:
        super().__init__()
        self.latent_encoder = nn.Sequential(
            nn.Conv3d(2 * in_channels, hidden_channels, 1),
            nn.SiLU(),
            nn.Conv3d(hidden_channels, hidden_channels, 1),
            nn.SiLU(),
            nn.Conv3d(hidden_channels, hidden_channels, 1),
        )
        patch = (patch_size[0], patch_size[1], patch_size[2])  # a list after a round trip through JSON
        self.latent_patch_embedding = nn.Conv3d(hidden_channels, out_channels, patch, stride=patch)
        nn.init.zeros_(self.latent_patch_embedding.weight)
        nn.init.zeros_(self.latent_patch_embedding.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, color_latents: Tensor, observed_latents: Tensor) -> Tensor:
        """Geometry latents [B, out_channels, t, h/2, w/2] in the encoder's dtype.

        Args:
            color_latents: normalised VAE latents [B, 16, t, h, w] of the target view, unobserved pixels at mid-grey.
            observed_latents: the same of the observed mask (see `preprocess.observed_to_model`).
        """
        latents = torch.cat([color_latents, observed_latents], dim=1)
        return self.latent_patch_embedding(self.latent_encoder(latents))
