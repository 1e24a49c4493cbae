"""Shipped configs are the full-size model's; weight folders are checked before anything is loaded."""

import json
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from random_prior import random_prior
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import UMT5Config, UMT5EncoderModel

from ex4d.errors import WeightsError
from ex4d.model import convert, wan_pipeline
from ex4d.model.adapter import lora_shapes
from ex4d.model.components import (
    TIED_EMBEDDING,
    assert_tied,
    check_folder,
    expected_shapes,
    make_component,
    shipped_config,
)
from ex4d.model.tiny import CONFIGS
from ex4d.model.transformer import EX4DTransformer3DModel
from ex4d.model.wan_pipeline import EX4DPipeline
from parity.oracle import Oracle

FILES = {
    "transformer": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
    "image_encoder": "model.safetensors",
    "geometry_encoder": "diffusion_pytorch_model.safetensors",
    "lora": "lora.safetensors",
}
KEYS = {
    "transformer": "blocks.1.attn1.to_q.weight",
    "vae": "decoder.up_blocks.1.resnets.0.conv1.weight",
    "text_encoder": "shared.weight",
    "image_encoder": "encoder.layers.1.self_attn.q_proj.weight",
    "geometry_encoder": "latent_encoder.2.weight",
    "lora": "blocks.1.attn2.to_out.0.lora_B.weight",
}


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the miniature, to be damaged."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "weights"))


@pytest.fixture
def loads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading fails the test: transformers and diffusers would fill what is missing with random numbers."""

    def load(folder: Path, dtype: torch.dtype) -> None:
        pytest.fail(f"{folder} was loaded")

    monkeypatch.setattr(wan_pipeline, "_LOADERS", dict.fromkeys(wan_pipeline._LOADERS, load))


def edit(file: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def refused(folder: Path, **options: Any) -> str:
    with pytest.raises(WeightsError) as raised:
        EX4DPipeline.from_pretrained(folder, **options)
    return str(raised.value)


# shipped configs


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("transformer", 16_394),
        ("vae", 126.9),
        ("text_encoder", 5_681),
        ("image_encoder", 631),
        ("geometry_encoder", 23.11),
    ],
)
def test_shipped_configs_have_the_sizes_of_the_released_model(name: Any, millions: float) -> None:
    module = make_component(name, shipped_config(name))
    parameters = {key: value for key, value in module.named_parameters() if key != TIED_EMBEDDING}
    assert all(parameter.is_meta for parameter in parameters.values())
    assert sum(parameter.numel() for parameter in parameters.values()) / 1e6 == pytest.approx(millions, rel=1e-3)


def test_the_released_adapter_has_800_and_8_tensors() -> None:
    transformer = make_component("transformer", shipped_config("transformer"))
    assert isinstance(transformer, EX4DTransformer3DModel)
    shapes = lora_shapes(transformer, shipped_config("lora")["rank"])
    assert len(shapes) == 800
    assert sum(math.prod(shape) for shape in shapes.values()) / 1e6 == pytest.approx(76.68, rel=1e-3)
    assert len(expected_shapes(make_component("geometry_encoder", shipped_config("geometry_encoder")))) == 8


# folders


def test_a_whole_folder_passes(tiny_folder: Path) -> None:
    transformer = check_folder(tiny_folder)
    assert transformer is not None
    assert transformer.config["num_layers"] == CONFIGS["transformer"]["num_layers"]
    assert check_folder(tiny_folder, skip=frozenset({"transformer"})) is None


@pytest.mark.usefixtures("loads_nothing")
@pytest.mark.parametrize("part", list(FILES))
def test_tensors_that_do_not_fit(folder: Path, part: str) -> None:
    file, key = folder / part / FILES[part], KEYS[part]
    edit(file, lambda tensors: tensors.pop(key))
    assert f"1 missing ({key})" in refused(folder)
    edit(file, lambda tensors: tensors.update({key: torch.zeros(3, 5)}))
    assert f"1 of another shape ({key} 3x5, not " in refused(folder)
    whole = file.read_bytes()
    file.write_bytes(whole[:-10])
    said = refused(folder)
    assert str(file) in said
    assert "cut off" in said
    file.unlink()
    assert str(folder) in refused(folder)


@pytest.mark.usefixtures("loads_nothing")
@pytest.mark.parametrize("part", list(FILES))
def test_tensors_left_over(folder: Path, part: str) -> None:
    edit(folder / part / FILES[part], lambda tensors: tensors.update({"blocks.7.other": torch.zeros(2)}))
    assert "1 not known (blocks.7.other)" in refused(folder)


@pytest.mark.usefixtures("loads_nothing")
@pytest.mark.parametrize("part", [part for part in FILES if part != "lora"])
def test_configs_missing_or_damaged(folder: Path, part: str) -> None:
    config = folder / part / "config.json"
    config.write_text("{")
    assert f"JSON in {config}" in refused(folder)
    config.unlink()
    assert "config.json" in refused(folder)


@pytest.mark.usefixtures("loads_nothing")
def test_a_shard_is_missing(oracle: Oracle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "SHARD_BYTES", 100_000)
    folder = oracle.convert(tmp_path / "weights")
    for part in ("transformer", "image_encoder"):
        shard = min((folder / part).glob("*-00002-of-*.safetensors"))
        shard.rename(tmp_path / shard.name)
        assert f"1 missing: {shard.name}" in refused(folder)
        (tmp_path / shard.name).rename(shard)
    index = next((folder / "transformer").glob("*.index.json"))
    index.unlink()
    shard = min((folder / "transformer").glob("*-00002-of-*.safetensors"))
    shard.unlink()
    assert "missing (" in refused(folder)


def test_shards_load(oracle: Oracle, tmp_path: Path, oracle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "SHARD_BYTES", 100_000)
    pipes = [EX4DPipeline.from_pretrained(each) for each in (oracle.convert(tmp_path / "weights"), oracle_folder)]
    for name in ("transformer", "vae", "text_encoder", "image_encoder"):
        first, second = (getattr(pipe, name).state_dict() for pipe in pipes)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.usefixtures("loads_nothing")
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"in_channels": 16, "image_dim": None, "added_kv_proj_dim": None}, "a text-to-video model (T2V-14B)"),
        ({"in_channels": 16, "image_dim": None, "num_attention_heads": 12}, "a 1.3B model for text to video"),
        ({"in_channels": 48, "image_dim": None, "num_attention_heads": 24}, "the 5B model of Wan2.2 (TI2V-5B)"),
        ({"image_dim": None, "added_kv_proj_dim": None}, "an image-to-video model of Wan2.2 (I2V-A14B)"),
        ({"pos_embed_seq_len": 514}, "the first-and-last-frame model (FLF2V-14B)"),
    ],
)
def test_folders_of_other_wan_models(folder: Path, changes: Mapping[str, Any], named: str) -> None:
    config = folder / "transformer/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **changes}))
    said = refused(folder)
    assert f"expected Wan2.1-I2V-14B in {folder}; got {named}" in said
    assert "ex4d weights pull 480p" in said


@pytest.mark.usefixtures("loads_nothing")
def test_what_else_can_be_missing(folder: Path, tmp_path: Path) -> None:
    assert "no model_index.json" in refused(tmp_path / "nowhere")
    (folder / "tokenizer/tokenizer.json").rename(folder / "tokenizer.json")
    assert f"a tokenizer in {folder / 'tokenizer'}" in refused(folder)
    (folder / "tokenizer.json").rename(folder / "tokenizer/tokenizer.json")
    shutil.rmtree(folder / "vae")
    assert str(folder / "vae") in refused(folder)


@pytest.mark.usefixtures("loads_nothing")
def test_a_stock_folder_needs_an_adapter(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "geometry_encoder", tmp_path / "adapter/geometry_encoder")
    shutil.move(folder / "lora", tmp_path / "adapter/lora")
    said = refused(folder)
    assert f"an EX-4D adapter in {folder}; got geometry_encoder/" in said
    assert "ex4d weights pull ex4d" in said
    (tmp_path / "adapter/lora/lora.json").unlink()
    assert "got lora/lora.json missing" in refused(folder, adapter=tmp_path / "adapter")


# what stock folders hold


def _older_image_encoder(folder: Path) -> None:
    """As transformers before 5 wrote it."""
    file = folder / "image_encoder/model.safetensors"
    tensors = {f"vision_model.{name}": tensor.clone() for name, tensor in load_file(file).items()}
    tensors["vision_model.embeddings.position_ids"] = torch.arange(257)[None]
    save_file(tensors, file, metadata={"format": "pt"})


def _unused_norm(folder: Path) -> None:
    """In the transformer of Wan-AI's folders."""
    edit(
        folder / "transformer" / FILES["transformer"],
        lambda tensors: tensors.update({f"blocks.{i}.attn2.norm_added_q.weight": torch.ones(64) for i in range(2)}),
    )


def _tied_copy(folder: Path) -> None:
    file = folder / "text_encoder" / FILES["text_encoder"]
    edit(file, lambda tensors: tensors.update({"encoder.embed_tokens.weight": tensors["shared.weight"].clone()}))


@pytest.mark.parametrize("change", [_older_image_encoder, _unused_norm, _tied_copy])
def test_variants_of_stock_folders_compute_the_same(
    folder: Path, tiny_folder: Path, change: Callable[[Path], None]
) -> None:
    change(folder)
    outputs = []
    for each in (folder, tiny_folder):
        pipe = EX4DPipeline.from_pretrained(each, dtype=torch.float32)
        outputs.append(pipe(*random_prior(), num_inference_steps=1).latents)
    assert torch.equal(*outputs)


def test_umt5_with_another_embedding_is_refused() -> None:
    encoder = UMT5EncoderModel(UMT5Config(**CONFIGS["text_encoder"])).eval()
    assert_tied(encoder)
    encoder.encoder.embed_tokens = nn.Embedding(384, 32)
    with pytest.raises(WeightsError, match="embed_tokens tied"):
        assert_tied(encoder)
    encoder.encoder.embed_tokens = encoder.shared
    nn.init.zeros_(encoder.shared.weight)
    with pytest.raises(WeightsError, match="or zeros"):
        assert_tied(encoder)
