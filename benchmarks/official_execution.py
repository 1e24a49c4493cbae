"""How the EX-4D release executes the model, re-created on our transformer: the same result, its slower ways.

Each way can be switched on alone:

- ``unfused-lora``: the LoRA's matrices in bfloat16 beside the weights, twenty more small products a block;
- ``complex-rope``: queries and keys rotated as complex128;
- ``fp32-residual``: tokens in float32 between the layers of a block, cast for every matrix product;
- ``per-layer-offload``: umT5 and CLIP in pageable host memory, every layer copied to the GPU when its turn comes;
- ``no-compile``: operators one by one.

The release also puts everything on the GPU at first and runs VAE and geometry encoder in bfloat16; ``reference`` does
so too. What else it may do (such as moving components once around their use) is left out, so the re-creation is
rather too fast than too slow.
"""

from collections.abc import Collection
from typing import Any, cast

import torch
from accelerate import cpu_offload
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from torch import Tensor, nn

from ex4d.model.transformer import EX4DTransformer3DModel

SLOWDOWNS = ("unfused-lora", "complex-rope", "fp32-residual", "per-layer-offload", "no-compile")


class ComplexRope(nn.Module):
    """Rotations of all tokens as complex128 [1, n, 1, head_dim/2], from the cosines and sines that diffusers makes."""

    def __init__(self, rope: nn.Module) -> None:
        super().__init__()
        self.rope = rope

    def forward(self, hidden_states: Tensor) -> Tensor:
        """hidden_states: [B, 36, t, h, w], for its size."""
        cosines, sines = self.rope(hidden_states)
        return torch.complex(cosines[..., 0::2].double(), sines[..., 1::2].double())


class ComplexRopeAttention(WanAttnProcessor):
    """Self-attention with the rotation computed as a complex product in double precision."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: Any = None,
    ) -> Tensor:
        """Tokens [B, n, dim] after attention; only the arguments of self-attention are used."""
        heads = (attn.heads, -1)
        query = _rotate(attn.norm_q(attn.to_q(hidden_states)).unflatten(2, heads), rotary_emb)
        key = _rotate(attn.norm_k(attn.to_k(hidden_states)).unflatten(2, heads), rotary_emb)
        value = attn.to_v(hidden_states).unflatten(2, heads)
        mixed = dispatch_attention_fn(query, key, value, backend=self._attention_backend)
        return attn.to_out[0](mixed.flatten(2, 3).type_as(query))


def _rotate(tokens: Tensor, rotations: Tensor) -> Tensor:
    pairs = torch.view_as_complex(tokens.double().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotations).flatten(-2).to(tokens.dtype)


def slow_down(transformer: EX4DTransformer3DModel, slowdowns: Collection[str]) -> None:
    """Switch on what changes the transformer's forward pass; before it is compiled.

    Args:
        transformer: changed in place.
        slowdowns: of `SLOWDOWNS`; those that are not about the forward pass are none of its business.
    """
    if "complex-rope" in slowdowns:
        transformer.rope = cast(Any, ComplexRope(transformer.rope))
        for block in transformer.blocks:
            cast(Any, block).attn1.set_processor(ComplexRopeAttention())
    if "fp32-residual" in slowdowns:
        transformer.blocks[0].register_forward_pre_hook(_first_input_to_float)
        products = [part for part in transformer.blocks.modules() if isinstance(part, nn.Linear)]
        for part in (*products, transformer.proj_out):
            part.register_forward_pre_hook(_input_to_weight_dtype)


def _first_input_to_float(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return inputs[0].float(), *inputs[1:]


def _input_to_weight_dtype(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return inputs[0].to(cast(Any, module).weight.dtype), *inputs[1:]


class StreamedEncoder:
    """umT5 whose layers visit the GPU; to `encode_texts` it looks like one that is there."""

    def __init__(self, encoder: nn.Module, device: torch.device) -> None:
        stream_layers(encoder, device)
        self._encoder, self.device = encoder, device

    def __call__(self, *arguments: Tensor) -> Any:
        """The encoder's output."""
        return self._encoder(*arguments)


def stream_layers(encoder: nn.Module, device: torch.device) -> None:
    """Weights wait in pageable host memory; each layer's are copied to the device for its turn, then dropped there."""
    encoder.to("cpu")
    cpu_offload(encoder, execution_device=device)
