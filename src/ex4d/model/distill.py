"""LoRAs of distilled Wan models, stacked on EX-4D's for the ``draft`` preset: opt-in, quality unproven."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.lora_pipeline import WanLoraLoaderMixin
from torch import Tensor

from ex4d.errors import WeightsError
from ex4d.model.adapter import Lora
from ex4d.model.key_maps import map_transformer
from ex4d.model.transformer import EX4DTransformer3DModel
from ex4d.weights.files import read_tensors
from ex4d.weights.strict import check_tensors

_PREFIX, _WAN_PREFIX = "transformer.", "diffusion_model."


def read_distill_lora(file: Path, transformer: EX4DTransformer3DModel) -> tuple[Lora, tuple[str, ...]]:
    """The LoRA of a file with Wan's names (``diffusion_model.blocks.0.self_attn.q.lora_down.weight``, ``diff_b``, …).

    Its scale is folded into the tensors (alpha = rank). Full changes of norms and of other parts (``diff``), which
    diffusers does not apply either, are left out and said.

    Args:
        file: safetensors.
        transformer: what it belongs to; its weights are not looked at (meta will do).

    Returns:
        The LoRA, and notices.

    Raises:
        WeightsError: no such LoRA, ranks that differ, or modules that this transformer does not have.
    """
    original = read_tensors(file)
    try:
        converted: Any = WanLoraLoaderMixin.lora_state_dict({name: tensor.clone() for name, tensor in original.items()})
    except (ValueError, KeyError, NameError) as error:
        raise WeightsError(f"a LoRA for Wan2.1-I2V-14B in {file}", str(error), "see `ex4d weights list`") from error
    tensors: dict[str, Tensor] = {
        name.removeprefix(_PREFIX): tensor for name, tensor in converted.items() if isinstance(tensor, Tensor)
    }
    rank = _rank(tensors, file)
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    check_tensors(found, _expected(tensors, transformer, rank), what=f"distilled LoRA in {file}")
    left_out = [name for name in original if ".diff" in name and _applied_as(name) not in tensors]
    some = ", ".join(left_out[:3]) + (" …" if len(left_out) > 3 else "")
    notices = (f"{len(left_out)} full changes in {file.name} are not applied: {some}",) if left_out else ()
    return Lora(tensors=tensors, rank=rank, alpha=rank), notices


def _applied_as(name: str) -> str:
    """What diffusers makes of a full change, where it applies it: of biases, and of the last layer."""
    module, _, kind = name.removeprefix(_WAN_PREFIX).rpartition(".")
    target = next(iter(map_transformer([f"{module}."]))).removesuffix(".")
    return f"{target}.lora_B.bias" if kind == "diff_b" else f"{target}.lora_A.weight"


def _rank(tensors: Mapping[str, Tensor], file: Path) -> int:
    ranks = {tensor.shape[0] for name, tensor in tensors.items() if name.endswith(".lora_A.weight")}
    if len(ranks) != 1:
        raise WeightsError(f"a LoRA of one rank in {file}", f"ranks {sorted(ranks)}", "see `ex4d weights list`")
    return ranks.pop()


def _expected(
    tensors: Mapping[str, Tensor], transformer: EX4DTransformer3DModel, rank: int
) -> dict[str, tuple[int, ...]]:
    """Shapes that the modules named would need; both matrices of each, and a bias where there is one."""
    shapes: dict[str, tuple[int, ...]] = {}
    linears = {name: part for name, part in transformer.named_modules() if isinstance(part, torch.nn.Linear)}
    for module in {name.rpartition(".lora_")[0] for name in tensors} & set(linears):
        shapes[f"{module}.lora_A.weight"] = (rank, linears[module].in_features)
        shapes[f"{module}.lora_B.weight"] = (linears[module].out_features, rank)
        if f"{module}.lora_B.bias" in tensors:
            shapes[f"{module}.lora_B.bias"] = (linears[module].out_features,)
    return shapes
