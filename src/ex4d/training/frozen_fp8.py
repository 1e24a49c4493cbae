"""A frozen base in float8: one byte a weight and a scale for each row, multiplied in the precision of the input.

diffusers' layerwise casting swaps the weight itself and so breaks the way back; torchao's dynamic float8 has none.
Here the weight is made anew on both ways and kept on neither.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ex4d.model.transformer import EX4DTransformer3DModel

FP8 = torch.float8_e4m3fn
_LARGEST = torch.finfo(FP8).max


class _Product(torch.autograd.Function):
    """x Wᵀ with W in float8; the gradient goes to x alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, codes: Tensor, scales: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(codes, scales)
        return functional.linear(x, _weight(codes, scales, x.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        codes, scales = ctx.saved_tensors
        return grad @ _weight(codes, scales, grad.dtype), None, None


def _weight(codes: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    return codes.to(dtype) * scales.to(dtype)


class Float8Linear(nn.Module):
    """A frozen `nn.Linear` whose weight is float8 codes times a scale a row.

    Codes and scales are buffers: they are neither trained nor shared out nor stored in checkpoints.

    Args:
        linear: what is replaced; not changed.
    """

    codes: Tensor
    scales: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach().float()
        scales = weight.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / _LARGEST
        self.register_buffer("codes", (weight / scales).to(FP8), persistent=False)
        self.register_buffer("scales", scales, persistent=False)
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().clone(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., out] of [..., in], in the precision of `x`, or of autocast."""
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        product = cast(Tensor, _Product.apply(x, self.codes, self.scales))
        return product if self.bias is None else product + self.bias.to(product.dtype)


def store_in_fp8(transformer: EX4DTransformer3DModel, device: torch.device) -> None:
    """Replace every frozen matrix of the blocks; LoRAs, norms and tables stay. Blocks move to the device one by one.

    Args:
        transformer: LoRAs attached or not; changed in place.
        device: where it computes; what is not in blocks moves there too.
    """
    for block in transformer.blocks:
        block.to(device)
        for name, module in list(block.named_modules()):
            if isinstance(module, nn.Linear) and "lora_" not in name:
                owner, _, leaf = name.rpartition(".")
                block.get_submodule(owner).register_module(leaf, Float8Linear(module))
    cast(nn.Module, transformer).to(device)
