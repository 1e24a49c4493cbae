"""EX-4D's LoRA and encoder: read strictly, attached, fused; the released sizes on the meta device."""

import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from small_transformer import CONFIG, make_transformer, velocity
from torch import Tensor

from ex4d.errors import WeightsError
from ex4d.model.adapter import (
    LORA_MODULES,
    Lora,
    attach_lora,
    check_adapter,
    fuse_loras,
    lora_shapes,
    read_adapter,
    read_official_adapter,
    write_adapter,
)
from ex4d.model.components import expected_shapes, make_component, shipped_config
from ex4d.model.geometry_encoder import GeometryEncoder
from ex4d.model.key_maps import original_lora_name
from ex4d.model.transformer import EX4DTransformer3DModel

RANK = 4


def random_lora(transformer: EX4DTransformer3DModel, *, seed: int = 0, rank: int = RANK, alpha: float = RANK) -> Lora:
    random = torch.Generator().manual_seed(seed)
    shapes = lora_shapes(transformer, rank)
    return Lora(tensors={k: 0.1 * torch.randn(s, generator=random) for k, s in shapes.items()}, rank=rank, alpha=alpha)


def merged_by_hand(*loras: Lora) -> EX4DTransformer3DModel:
    """W + alpha / rank · B A, and b + the change of the bias."""
    transformer = make_transformer()
    for lora in loras:
        for module in {name.rpartition(".lora_")[0] for name in lora.tensors}:
            linear = cast(Any, transformer.get_submodule(module))
            down, up = (lora.tensors[f"{module}.lora_{side}.weight"] for side in "AB")
            linear.weight.data += lora.alpha / lora.rank * (up @ down)
            linear.bias.data += lora.alpha / lora.rank * lora.tensors.get(f"{module}.lora_B.bias", torch.zeros(1))
    return transformer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    transformer = make_transformer()
    encoder = GeometryEncoder(hidden_channels=24, out_channels=CONFIG["added_kv_proj_dim"])
    torch.nn.init.normal_(encoder.latent_patch_embedding.weight)
    write_adapter(tmp_path / "adapter", encoder, random_lora(transformer))
    return tmp_path / "adapter"


# the released file


@pytest.fixture(scope="module")
def released() -> EX4DTransformer3DModel:
    transformer = make_component("transformer", shipped_config("transformer"))
    assert isinstance(transformer, EX4DTransformer3DModel)
    return transformer


@pytest.fixture(scope="module")
def checkpoint(released: EX4DTransformer3DModel) -> dict[str, Tensor]:
    """Names and shapes of the released ex4d.ckpt, without memory."""
    encoder = make_component("geometry_encoder", shipped_config("geometry_encoder"))
    shapes = {original_lora_name(name, []): shape for name, shape in lora_shapes(released, 16).items()}
    shapes |= expected_shapes(encoder)
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def test_the_released_checkpoint_has_808_tensors(
    released: EX4DTransformer3DModel, checkpoint: dict[str, Tensor]
) -> None:
    assert len(checkpoint) == 808
    assert checkpoint["blocks.39.ffn.2.lora_B.default.weight"].shape == (5120, 16)
    assert checkpoint["blocks.0.ffn.0.lora_B.default.weight"].shape == (13824, 16)
    assert not any("_img" in name for name in checkpoint)
    encoder, lora = read_official_adapter(checkpoint, released)
    assert len(lora.tensors) == 800
    assert (lora.rank, lora.alpha) == (16, 16)
    assert len(encoder.state_dict()) == 8


def test_one_tensor_more_or_less_is_refused(released: EX4DTransformer3DModel, checkpoint: dict[str, Tensor]) -> None:
    lost = "blocks.39.self_attn.v.lora_A.default.weight"
    left = {name: tensor for name, tensor in checkpoint.items() if name != lost}
    with pytest.raises(WeightsError, match=rf"exactly 808 tensors .* 1 missing \({lost}\)"):
        read_official_adapter(left, released)
    more = {**checkpoint, "blocks.0.self_attn.q.weight": torch.empty(5120, 5120, device="meta")}
    with pytest.raises(WeightsError, match=r"1 not known \(blocks\.0\.self_attn\.q\.weight\)"):
        read_official_adapter(more, released)
    image = {**checkpoint, "blocks.0.cross_attn.k_img.lora_A.default.weight": torch.empty(16, 5120, device="meta")}
    with pytest.raises(WeightsError, match=r"1 not known \(blocks\.0\.cross_attn\.k_img\.lora_A\.default\.weight"):
        read_official_adapter(image, released)


def test_another_rank_is_refused(released: EX4DTransformer3DModel, checkpoint: dict[str, Tensor]) -> None:
    with pytest.raises(WeightsError, match=r"800 of another shape .*lora_A\.default\.weight 16x5120, not 24x5120"):
        read_official_adapter(checkpoint, released, lora_config={"rank": 24, "alpha": 24})


def test_an_encoder_of_another_width_is_refused() -> None:
    transformer = make_transformer()
    tensors = dict(random_lora(transformer).tensors)
    config = {"hidden_channels": 24, "out_channels": 64}
    tensors |= make_component("geometry_encoder", config).state_dict()
    with pytest.raises(WeightsError, match="transformer of width 128; got one for 64"):
        read_official_adapter(tensors, transformer, encoder_config=config, lora_config={"rank": RANK, "alpha": RANK})


# folders


def test_a_folder_is_read_as_it_was_written(folder: Path) -> None:
    transformer = make_transformer()
    assert check_adapter(folder, transformer) == (RANK, RANK)
    encoder, lora = read_adapter(folder, transformer)
    want = random_lora(transformer)
    assert lora.tensors.keys() == want.tensors.keys()
    assert all(torch.equal(lora.tensors[name], want.tensors[name]) for name in want.tensors)
    assert encoder.dtype == torch.float32
    assert not encoder.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert encoder.latent_patch_embedding.weight.std() > 0.5


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"rank": 8, "alpha": 4}, "of another shape .*4x128, not 8x128"),
        ({"rank": 4}, "rank and alpha in .*lora.json; got 'alpha'"),
        ({"rank": None, "alpha": 4}, "rank and alpha"),
        ({"rank": "four", "alpha": 4}, "rank and alpha"),
        ([4, 4], "a JSON object"),
    ],
)
def test_rank_and_alpha_that_do_not_fit(folder: Path, content: Any, said: str) -> None:
    (folder / "lora/lora.json").write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=said):
        check_adapter(folder, make_transformer())


def test_an_adapter_of_another_transformer_is_refused(folder: Path) -> None:
    with pytest.raises(WeightsError, match=r"exactly 80 tensors in EX-4D LoRA .* 20 missing \(blocks\.3\.attn1"):
        check_adapter(folder, make_transformer(num_layers=4))
    other = make_transformer(num_attention_heads=2, added_kv_proj_dim=64)
    with pytest.raises(WeightsError, match="of another shape"):
        check_adapter(folder, other)


# attached and fused


def test_ten_modules_a_block_are_adapted() -> None:
    transformer = make_transformer()
    assert len(LORA_MODULES) == 10
    assert len(lora_shapes(transformer, RANK)) == 20 * CONFIG["num_layers"]
    attach_lora(transformer, random_lora(transformer))
    adapted = {name.partition(".lora_A")[0] for name, _ in transformer.named_parameters() if ".lora_A" in name}
    assert adapted == {f"blocks.{i}.{module}" for i in range(CONFIG["num_layers"]) for module in LORA_MODULES}


@pytest.mark.parametrize("alpha", [4.0, 16.0])
def test_attached_equals_merged_by_hand(alpha: float) -> None:
    transformer = make_transformer()
    base = velocity(transformer)
    lora = random_lora(transformer, alpha=alpha)
    attach_lora(transformer, lora)
    wanted = velocity(merged_by_hand(lora))
    assert (wanted - base).abs().max() > 0.01
    torch.testing.assert_close(velocity(transformer), wanted, atol=1e-5, rtol=0)
    fuse_loras(transformer)
    torch.testing.assert_close(velocity(transformer), wanted, atol=1e-5, rtol=0)
    assert not any("lora" in name for name, _ in transformer.named_modules())


def test_several_add_up_and_go_again() -> None:
    transformer = make_transformer()
    base = velocity(transformer)
    first, second = random_lora(transformer), random_lora(transformer, seed=1, rank=2, alpha=6)
    attach_lora(transformer, first)
    attach_lora(transformer, second, name="second")
    wanted = velocity(merged_by_hand(first, second))
    torch.testing.assert_close(velocity(transformer), wanted, atol=1e-5, rtol=0)
    transformer.unload_lora()
    assert torch.equal(velocity(transformer), base)
    attach_lora(transformer, second)
    attach_lora(transformer, first, name="first")
    fuse_loras(transformer)
    torch.testing.assert_close(velocity(transformer), wanted, atol=1e-5, rtol=0)


def test_fusing_nothing_changes_nothing() -> None:
    transformer = make_transformer()
    before = velocity(transformer)
    fuse_loras(transformer)
    attach_lora(transformer, random_lora(transformer))
    transformer.unload_lora()
    fuse_loras(transformer)
    assert torch.equal(velocity(transformer), before)


def test_attached_tensors_are_not_trained_and_draw_no_random_numbers() -> None:
    transformer = make_transformer()
    state = torch.get_rng_state()
    attach_lora(transformer, random_lora(transformer))
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(parameter.requires_grad for parameter in transformer.parameters())
