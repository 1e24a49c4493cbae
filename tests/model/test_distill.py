"""LoRAs of distilled models, as lightx2v stores them, stacked on EX-4D's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import save_file
from small_transformer import CONFIG, make_transformer, save_transformer, velocity
from torch import Tensor

from ex4d.errors import WeightsError
from ex4d.model.adapter import Lora, attach_lora, fuse_loras, lora_shapes
from ex4d.model.distill import read_distill_lora
from ex4d.model.estimates import PLANS
from ex4d.model.key_maps import map_transformer
from ex4d.model.placement import load_transformer
from ex4d.model.transformer import EX4DTransformer3DModel
from parity.oracle import ORIGINALS, Oracle

RANK, ALPHA = 4, 6.0
PARTS = [
    *(f"self_attn.{part}" for part in "qkvo"),
    *(f"cross_attn.{part}" for part in ("q", "k", "v", "o", "k_img", "v_img")),
    "ffn.0",
    "ffn.2",
]
MODULES = [
    *(f"blocks.{i}.{part}" for i in range(CONFIG["num_layers"]) for part in PARTS),
    *("time_embedding.0", "time_embedding.2", "text_embedding.0", "text_embedding.2"),
    *("time_projection.1", "head.head", "img_emb.proj.1", "img_emb.proj.3"),
]
NORMS = ("blocks.0.norm3.diff", "blocks.0.norm3.diff_b", "blocks.1.self_attn.norm_q.diff", "img_emb.proj.0.diff_b")


def linear(transformer: EX4DTransformer3DModel, original: str) -> Any:
    (name,) = map_transformer([f"{original}.weight"])
    return transformer.get_submodule(name.removesuffix(".weight"))


def distilled(*, bias: bool = True, alpha: bool = True) -> dict[str, Tensor]:
    """Every linear layer's low-rank change; in blocks its alpha, in the first one alone a change of the bias."""
    transformer, random = make_transformer(), torch.Generator().manual_seed(7)
    tensors: dict[str, Tensor] = {}
    for module in MODULES:
        rows, columns = linear(transformer, module).weight.shape
        tensors[f"{module}.lora_down.weight"] = 0.1 * torch.randn(RANK, columns, generator=random)
        tensors[f"{module}.lora_up.weight"] = 0.1 * torch.randn(rows, RANK, generator=random)
        if alpha and module.startswith("blocks."):
            tensors[f"{module}.alpha"] = torch.tensor(ALPHA)
        if bias and not module.startswith(("blocks.1.", "blocks.2.")):
            tensors[f"{module}.diff_b"] = 0.1 * torch.randn(rows, generator=random)
    return {f"diffusion_model.{name}": tensor for name, tensor in tensors.items()}


def merge(transformer: EX4DTransformer3DModel, tensors: Mapping[str, Tensor]) -> EX4DTransformer3DModel:
    """W + alpha / rank · up · down and b + diff_b, by hand."""
    for module in MODULES:
        layer, name = linear(transformer, module), f"diffusion_model.{module}"
        scale = float(tensors.get(f"{name}.alpha", RANK)) / RANK
        layer.weight.data += scale * (tensors[f"{name}.lora_up.weight"] @ tensors[f"{name}.lora_down.weight"])
        layer.bias.data += tensors.get(f"{name}.diff_b", 0)
    return transformer


def adapter() -> Lora:
    random = torch.Generator().manual_seed(3)
    shapes = lora_shapes(make_transformer(), 2)
    return Lora(tensors={k: 0.1 * torch.randn(s, generator=random) for k, s in shapes.items()}, rank=2, alpha=4)


def write(tensors: Mapping[str, Tensor], folder: Path) -> Path:
    save_file(dict(tensors), folder / "distill.safetensors")
    return folder / "distill.safetensors"


def wanted(tensors: Mapping[str, Tensor]) -> Tensor:
    """The velocity with both merged by hand."""
    transformer = make_transformer()
    attach_lora(transformer, adapter())
    fuse_loras(transformer)
    return velocity(merge(transformer, tensors))


@pytest.mark.parametrize(("bias", "alpha"), [(True, True), (False, True), (True, False)])
def test_stacked_on_ex4ds_it_equals_a_merge_by_hand(tmp_path: Path, bias: bool, alpha: bool) -> None:
    tensors = distilled(bias=bias, alpha=alpha)
    transformer = make_transformer()
    lora, notices = read_distill_lora(write(tensors, tmp_path), transformer)
    assert not notices
    assert lora.rank == lora.alpha == RANK
    attach_lora(transformer, adapter())
    alone = velocity(transformer)
    attach_lora(transformer, lora, name="distill")
    want = wanted(tensors)
    assert (alone - want).abs().max() > 0.05
    torch.testing.assert_close(velocity(transformer), want, atol=1e-5, rtol=0)
    fuse_loras(transformer)
    torch.testing.assert_close(velocity(transformer), want, atol=1e-5, rtol=0)


@pytest.mark.parametrize("bias", [False, True])
def test_both_can_be_fused_while_loading(tmp_path: Path, bias: bool) -> None:
    tensors = distilled(bias=bias)
    folder = save_transformer(tmp_path / "transformer")
    lora, _ = read_distill_lora(write(tensors, tmp_path), make_transformer())
    transformer = load_transformer(folder, PLANS["cpu"], "cpu", loras=[adapter(), lora])
    torch.testing.assert_close(velocity(transformer), wanted(tensors), atol=1e-5, rtol=0)


def test_the_scale_of_alpha_is_in_the_tensors(tmp_path: Path) -> None:
    tensors = distilled()
    lora, _ = read_distill_lora(write(tensors, tmp_path), make_transformer())
    name = "diffusion_model.blocks.2.cross_attn.v_img"
    delta = ALPHA / RANK * tensors[f"{name}.lora_up.weight"] @ tensors[f"{name}.lora_down.weight"]
    up, down = (lora.tensors[f"blocks.2.attn2.add_v_proj.lora_{side}.weight"] for side in "BA")
    torch.testing.assert_close(lora.alpha / lora.rank * up @ down, delta)
    bias = lora.tensors["blocks.0.ffn.net.2.lora_B.bias"]
    assert torch.equal(bias, tensors["diffusion_model.blocks.0.ffn.2.diff_b"])


def test_what_is_not_applied_is_said(tmp_path: Path) -> None:
    tensors = distilled()
    tensors |= {f"diffusion_model.{name}": torch.zeros(128) for name in NORMS}
    lora, notices = read_distill_lora(write(tensors, tmp_path), make_transformer())
    assert len(lora.tensors) == 2 * len(MODULES) + sum(name.endswith(".diff_b") for name in distilled())
    assert len(notices) == 1
    assert notices[0].startswith(
        "4 full changes in distill.safetensors are not applied: diffusion_model.blocks.0.norm3"
    )


def test_the_model_may_be_empty(tmp_path: Path) -> None:
    with torch.device("meta"):
        empty = EX4DTransformer3DModel(**CONFIG)
    read_distill_lora(write(distilled(), tmp_path), cast(EX4DTransformer3DModel, empty))


FIRST = "diffusion_model.blocks.0.self_attn.q"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({f"{FIRST}.lora_down.weight": None}, r"self_attn\.q\.lora_down"),
        ({f"{FIRST}.lora_up.weight": None}, r"self_attn\.q\.lora_up"),
        ({f"{FIRST}.lora_up.weight": torch.zeros(96, RANK)}, r"attn1\.to_q\.lora_B\.weight 96x4, not 128x4"),
        ({f"{FIRST}.lora_down.weight": torch.zeros(RANK, 96)}, r"attn1\.to_q\.lora_A\.weight 4x96, not 4x128"),
        ({f"{FIRST}.lora_down.weight": torch.zeros(8, 128)}, r"of one rank .*ranks \[4, 8\]"),
        ({"diffusion_model.blocks.0.self_attn.x.lora_up.weight": torch.zeros(2)}, r"self_attn\.x\.lora_up"),
        ({"diffusion_model.blocks.3.ffn.0.lora_up.weight": torch.zeros(256, RANK)}, r"not known \(blocks\.3\.ffn"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, changes: Mapping[str, Tensor | None], said: str) -> None:
    tensors = {name: tensor for name, tensor in {**distilled(), **changes}.items() if tensor is not None}
    with pytest.raises(WeightsError, match=said):
        read_distill_lora(write(tensors, tmp_path), make_transformer())


@pytest.mark.parametrize("kind", ["adapter", "transformer", "other"])
def test_files_of_other_kinds_are_refused(oracle: Oracle, tmp_path: Path, kind: str) -> None:
    files = {"adapter": ORIGINALS[4], "transformer": ORIGINALS[0]}
    tensors = oracle.load(files[kind]) if kind in files else {"diffusion_model.x": torch.zeros(1)}
    with pytest.raises(WeightsError, match=r"distill\.safetensors"):
        read_distill_lora(write(tensors, tmp_path), make_transformer())
