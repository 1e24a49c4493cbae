"""8-bit weights: error a matrix, what stays, and what is missing or impossible."""

import copy
import sys
from typing import Any

import pytest
import torch
from small_transformer import make_transformer
from torch import nn

from ex4d.errors import MissingDependencyError
from ex4d.model.quantize import quantize_block


def block_of(transformer: Any) -> nn.Module:
    return copy.deepcopy(transformer.blocks[0]).to(torch.bfloat16)


@pytest.mark.parametrize(("precision", "error"), [("fp8", 2**-4), ("int8", 1 / 127 / 2 + 2**-8)])
def test_error_of_every_weight_is_bounded(precision: Any, error: float) -> None:
    """float8 e4m3 rounds to 4 significant bits (2^-4 of the value at most, denormals aside), int8 to half a step."""
    before, after = block_of(make_transformer()), block_of(make_transformer())
    quantize_block(after, precision)
    for name, module in before.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        weight, quantised = module.weight.float(), after.get_submodule(name).weight.dequantize().float()  # pyright: ignore
        largest = weight.abs().amax(dim=1, keepdim=True)
        limit = error * (weight.abs() if precision == "fp8" else largest) + largest / 448 / 256
        assert ((weight - quantised).abs() <= limit).all(), name
        assert not torch.equal(weight, quantised)


def test_bytes_are_halved() -> None:
    block = block_of(make_transformer())
    before = sum(p.nbytes for p in block.parameters())
    quantize_block(block, "fp8")
    parameters: list[Any] = list(block.parameters())
    after = sum(p.qdata.nbytes + p.scale.nbytes if hasattr(p, "qdata") else p.nbytes for p in parameters)
    assert after < 0.53 * before


def test_loras_stay_as_they_are() -> None:
    holder = nn.ModuleDict({"base_layer": nn.Linear(32, 32), "lora_A": nn.Linear(32, 16, bias=False)}).bfloat16()
    quantize_block(holder, "int8")
    assert hasattr(holder["base_layer"].weight, "qdata")
    assert type(holder["lora_A"].weight) is nn.Parameter


def test_without_torchao_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(MissingDependencyError, match=r"ex4d\[quant\]"):
        quantize_block(nn.Linear(32, 32), "fp8")
