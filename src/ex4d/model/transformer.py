"""Wan's transformer with EX-4D's geometry latents added once, right after its patch embedding."""

import math
from typing import Any

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor, nn


class ExactTimesteps(nn.Module):
    """Sinusoids of the timestep in float64, as the release computes them; diffusers' float32 is off by 4e-5.

    Args:
        num_channels: even; half of them cosines, then half sines.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.num_channels = num_channels

    def forward(self, timesteps: Tensor) -> Tensor:
        """float32 [B, num_channels] of float timesteps [B] in 0–1000: [cos | sin] of t · 10000^(−i/half)."""
        half = self.num_channels // 2
        exponents = torch.arange(half, dtype=torch.float64, device=timesteps.device) / half
        angles = timesteps.double()[:, None] * torch.exp(-math.log(10_000.0) * exponents)
        return torch.cat([angles.cos(), angles.sin()], dim=-1).float()


class EX4DTransformer3DModel(WanTransformer3DModel):
    """`WanTransformer3DModel` that takes geometry latents; loads every Wan transformer folder as it is.

    Without geometry latents it computes what Wan computes, but for the exact time sinusoid.
    """

    @register_to_config
    def __init__(
        self,
        patch_size: tuple[int, ...] = (1, 2, 2),
        num_attention_heads: int = 40,
        attention_head_dim: int = 128,
        in_channels: int = 36,
        out_channels: int = 16,
        text_dim: int = 4096,
        freq_dim: int = 256,
        ffn_dim: int = 13824,
        num_layers: int = 40,
        cross_attn_norm: bool = True,
        qk_norm: str | None = "rms_norm_across_heads",
        eps: float = 1e-6,
        image_dim: int | None = 1280,
        added_kv_proj_dim: int | None = 5120,
        rope_max_seq_len: int = 1024,
        pos_embed_seq_len: int | None = None,
    ) -> None:
        super().__init__(
            patch_size=patch_size,
            num_attention_heads=num_attention_heads,
            attention_head_dim=attention_head_dim,
            in_channels=in_channels,
            out_channels=out_channels,
            text_dim=text_dim,
            freq_dim=freq_dim,
            ffn_dim=ffn_dim,
            num_layers=num_layers,
            cross_attn_norm=cross_attn_norm,
            qk_norm=qk_norm,
            eps=eps,
            image_dim=image_dim,
            added_kv_proj_dim=added_kv_proj_dim,
            rope_max_seq_len=rope_max_seq_len,
            pos_embed_seq_len=pos_embed_seq_len,
        )
        self.condition_embedder.timesteps_proj = ExactTimesteps(freq_dim)  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def compute_dtype(self) -> torch.dtype:
        """What inputs are cast to; the patch embedding is never quantised."""
        return self.patch_embedding.weight.dtype

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_hidden_states_image: Tensor | None = None,
        return_dict: bool = True,
        attention_kwargs: dict[str, Any] | None = None,
        geometry_latents: Tensor | None = None,
    ) -> Any:
        """Velocity [B, 16, t, h, w] of the noisy latents, as `sample` of an output or alone in a tuple.

        Args:
            hidden_states: [B, 36, t, h, w]: noisy latents, then the 20 channels of the image condition.
            timestep: float [B], 1000 at pure noise; not rounded.
            encoder_hidden_states: text embeddings [B, 512, text_dim], zero-padded.
            encoder_hidden_states_image: image embeddings [B, 257, image_dim].
            return_dict: a tuple if False.
            attention_kwargs: as in `WanTransformer3DModel`.
            geometry_latents: [B, dim, t, h/2, w/2] of `GeometryEncoder`; None = plain Wan.
        """
        if geometry_latents is None:
            added = None
        else:
            # A hook for this one call: the parent's forward stays the parent's, with its caches,
            # context-parallel plan and checkpointing.

            def add(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
                return output + geometry_latents.to(output.dtype)

            added = self.patch_embedding.register_forward_hook(add)
        try:
            return super().forward(
                hidden_states=hidden_states,
                timestep=timestep,  # pyright: ignore[reportArgumentType] - floats, whatever diffusers' hint says
                encoder_hidden_states=encoder_hidden_states,
                encoder_hidden_states_image=encoder_hidden_states_image,
                return_dict=return_dict,
                attention_kwargs=attention_kwargs,
            )
        finally:
            if added is not None:
                added.remove()
