"""Weights of 8 bits in the linear layers of a transformer block. The only file that touches torchao."""

from typing import Literal

import torch
from torch import nn

from ex4d.errors import ConfigError, MissingDependencyError

FP8_CAPABILITY = (8, 9)
"""CUDA compute capability from which float8 matrices can be multiplied."""


def quantize_block(block: nn.Module, precision: Literal["fp8", "int8"]) -> None:
    """Replace the weights of all linear layers but LoRAs by 8-bit ones, a scale for each row, where they are.

    int8: the weights alone. fp8: on a GPU the activations of each product too, scaled for each token, so that
    the product itself is computed in 8 bits; on a CPU the weights alone. Norms, biases and tables stay.

    Args:
        block: with bfloat16 weights, changed in place.
        precision: ``fp8`` (e4m3) or ``int8``.

    Raises:
        MissingDependencyError: no torchao.
        ConfigError: matrices that cannot be quantised (sides that are no multiples of 16).
    """
    try:
        from torchao.quantization import (
            Float8DynamicActivationFloat8WeightConfig,
            Float8WeightOnlyConfig,
            Int8WeightOnlyConfig,
            PerRow,
            quantize_,
        )
        from torchao.utils import TorchAOBaseTensor
    except ImportError as error:
        raise MissingDependencyError("torchao", "quant", "8-bit weights (--plan fp8 or int8)") from error
    # set_inductor_config would change compiler settings of the whole process
    if precision == "int8":
        config = Int8WeightOnlyConfig(set_inductor_config=False)
    elif next(block.parameters()).is_cuda:
        config = Float8DynamicActivationFloat8WeightConfig(granularity=PerRow(), set_inductor_config=False)
    else:
        config = Float8WeightOnlyConfig(set_inductor_config=False)
    quantize_(block, config, _is_base_linear)
    for name, module in block.named_modules():
        # torchao leaves what it cannot quantise as it was, without a word
        if _is_base_linear(module, name) and not isinstance(module.weight, TorchAOBaseTensor):
            raise ConfigError(f"matrices that {precision} can hold", f"{name}: {module}", "use --plan bf16")


def _is_base_linear(module: nn.Module, name: str) -> bool:
    return isinstance(module, nn.Linear) and "lora_" not in name


def fp8_shortage(device: torch.device) -> str:
    """Why products cannot be computed in float8 on a CUDA device; empty if they can."""
    major, minor = torch.cuda.get_device_capability(device)
    if (major, minor) >= FP8_CAPABILITY:
        return ""
    return f"float8 needs compute capability {'.'.join(map(str, FP8_CAPABILITY))}, this GPU has {major}.{minor}"
