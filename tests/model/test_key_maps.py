"""Names in both directions; that the tensors fit is shown by every conversion, what they compute in tests/parity."""

from typing import Any

import pytest

from ex4d.model.key_maps import (
    MAPS,
    Source,
    map_image_encoder,
    map_lora,
    map_text_encoder,
    map_transformer,
    map_vae,
    original_lora_name,
    original_name,
    recognise,
)
from parity.oracle import Oracle

FILES = {
    "transformer": "wan_dit_tiny",
    "vae": "wan_vae_tiny",
    "image_encoder": "wan_clip_tiny",
    "text_encoder": "wan_t5_tiny",
    "adapter": "ex4d_ckpt_tiny",
}


@pytest.mark.parametrize("kind", list(FILES))
def test_files_are_recognised(oracle: Oracle, kind: str) -> None:
    names = list(oracle.load(FILES[kind]))
    assert recognise(names) == kind
    assert recognise(reversed(names)) == kind
    if kind == "transformer":  # shards
        assert recognise(name for name in names if name.startswith("blocks.1.")) == kind
        assert recognise(name for name in names if not name.startswith("blocks.")) == kind


def test_files_of_other_models_are_not() -> None:
    assert recognise([]) is None
    assert recognise(["model.diffusion_model.input_blocks.0.0.weight", "cond_stage_model.logit_scale"]) is None


@pytest.mark.parametrize("kind", [kind for kind in FILES if kind != "adapter"])
def test_maps_lead_back(oracle: Oracle, kind: str) -> None:
    names = list(oracle.load(FILES[kind]))
    mapped = MAPS[kind](names)
    unused = {"log_scale", "visual.head"}
    assert {source.name for source in mapped.values()} == set(names) - unused
    for target, source in mapped.items():
        assert original_name(kind, target) == source.name
        assert target != source.name or target.startswith("patch_embedding.")


@pytest.mark.parametrize("default", [".default", ""])
def test_names_of_the_adapter_lead_back(oracle: Oracle, default: str) -> None:
    names = [name.replace(".default", default) for name in oracle.load(FILES["adapter"])]
    mapped = map_lora(names)
    assert len(mapped) == 40
    for target, source in mapped.items():
        assert original_lora_name(target, names) == source.name
    encoder = MAPS["geometry_encoder"](names)
    assert encoder == {name: Source(name) for name in encoder}
    assert len(encoder) == 8


def test_a_file_without_lora_is_assumed_to_be_the_released_one() -> None:
    name = original_lora_name("blocks.3.attn2.to_out.0.lora_B.weight", ["latent_encoder.0.weight"])
    assert name == "blocks.3.cross_attn.o.lora_B.default.weight"


@pytest.mark.parametrize(
    ("original", "ours"),
    [
        ("blocks.39.self_attn.q.weight", "blocks.39.attn1.to_q.weight"),
        ("blocks.0.self_attn.norm_k.weight", "blocks.0.attn1.norm_k.weight"),
        ("blocks.0.cross_attn.o.bias", "blocks.0.attn2.to_out.0.bias"),
        ("blocks.0.cross_attn.k_img.bias", "blocks.0.attn2.add_k_proj.bias"),
        ("blocks.0.cross_attn.norm_k_img.weight", "blocks.0.attn2.norm_added_k.weight"),
        ("blocks.0.norm3.weight", "blocks.0.norm2.weight"),
        ("blocks.0.ffn.2.bias", "blocks.0.ffn.net.2.bias"),
        ("blocks.0.modulation", "blocks.0.scale_shift_table"),
        ("head.modulation", "scale_shift_table"),
        ("img_emb.proj.3.weight", "condition_embedder.image_embedder.ff.net.2.weight"),
        ("patch_embedding.weight", "patch_embedding.weight"),
    ],
)
def test_names_of_the_transformer(original: str, ours: str) -> None:
    assert map_transformer([original]) == {ours: Source(original)}


@pytest.mark.parametrize(
    ("original", "ours"),
    [
        ("decoder.upsamples.0.residual.0.gamma", "decoder.up_blocks.0.resnets.0.norm1.gamma"),
        ("decoder.upsamples.3.time_conv.weight", "decoder.up_blocks.0.upsamplers.0.time_conv.weight"),
        ("decoder.upsamples.4.shortcut.bias", "decoder.up_blocks.1.resnets.0.conv_shortcut.bias"),
        ("decoder.upsamples.14.residual.6.bias", "decoder.up_blocks.3.resnets.2.conv2.bias"),
        ("encoder.downsamples.2.resample.1.weight", "encoder.down_blocks.2.resample.1.weight"),
        ("encoder.conv1.weight", "encoder.conv_in.weight"),
        ("conv1.weight", "quant_conv.weight"),
    ],
)
def test_names_of_the_vae(original: str, ours: str) -> None:
    assert map_vae([original]) == {ours: Source(original)}


def test_one_tensor_for_several() -> None:
    assert set(map_text_encoder(["token_embedding.weight"])) == {"shared.weight", "encoder.embed_tokens.weight"}
    name = "visual.transformer.2.attn.to_qkv.bias"
    assert map_image_encoder([name]) == {
        f"encoder.layers.2.self_attn.{part}_proj.bias": Source(name, third) for third, part in enumerate("qkv")
    }


@pytest.mark.parametrize("kind", list(MAPS))
def test_unknown_names_stay_as_they_are(kind: str) -> None:
    for name in (
        "blocks.0.self_atn.q.weight",
        "blocks.x.modulation",
        "head.modulation.weight",
        "conv1",
        "normal.weight",
    ):
        assert MAPS[kind]([name]) == {name: Source(name)}
        assert original_name(kind, name) == name


def test_clips_text_side_is_dropped() -> None:
    assert map_image_encoder(["textual.blocks.0.weight", "log_scale", "visual.head"]) == {}
    assert "visual.header" in map_image_encoder(["visual.header"])


@pytest.mark.parametrize(
    ("mapping", "twice"),
    [
        (map_transformer, ["blocks.0.self_attn.q.weight", "blocks.0.attn1.to_q.weight"]),
        (map_vae, ["conv1.weight", "quant_conv.weight"]),
        (map_text_encoder, ["token_embedding.weight", "shared.weight"]),
        (map_lora, ["blocks.0.ffn.0.lora_A.default.weight", "blocks.0.ffn.0.lora_A.weight"]),
    ],
)
def test_two_tensors_for_one_target_are_both_kept(mapping: Any, twice: list[str]) -> None:
    """So that the strict check lists one of them as left over."""
    for names in (twice, twice[::-1]):
        assert {source.name for source in mapping(names).values()} == set(names)
