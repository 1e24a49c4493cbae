"""The pipeline's parts at miniature size: saving, fusing, tiles, conditioning and what it refuses."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_prior import known, random_prior
from torch import Tensor

from ex4d.errors import Ex4dError, InputError, OutputError, WeightsError
from ex4d.model.branch import Conditioning, TextEmbeds
from ex4d.model.sizes import Tile, plan_tiles
from ex4d.model.tiny import make_tiny_pipeline
from ex4d.model.wan_pipeline import EX4DPipeline, encode_texts

HEIGHT, WIDTH = 64, 96


def run(pipe: EX4DPipeline, **options: Any) -> Tensor:
    return pipe(*random_prior(), **{"num_inference_steps": 2, **options}).latents


def inputs(pipe: EX4DPipeline) -> tuple[Conditioning, TextEmbeds, Tensor]:
    """A prior of 8x12 latents with strong geometry, texts and noise."""
    random = torch.Generator().manual_seed(0)
    noise = pipe.initial_noise(5, HEIGHT, WIDTH, random)
    conditioning = pipe.encode_prior(*random_prior(5, HEIGHT, WIDTH))
    geometry = torch.randn(known(conditioning.geometry_latents).shape, generator=random)
    return replace(conditioning, geometry_latents=geometry), pipe.encode_text("a", "b"), noise


# frames in, frames out


def test_as_many_frames_come_out_as_went_in(tiny: EX4DPipeline) -> None:
    output = tiny(*random_prior(9, 32, 48), num_inference_steps=1)
    assert output.frames.shape == (9, 32, 48, 3)
    assert output.frames.dtype == np.uint8
    assert output.frames.std() > 1
    assert output.latents.shape == (1, 16, 3, 4, 6)
    assert output.latents.dtype == torch.float32


def test_the_seed_decides(tiny: EX4DPipeline) -> None:
    first = run(tiny, seed=1)
    torch.manual_seed(99)
    assert torch.equal(run(tiny, seed=1), first)
    assert not torch.equal(run(tiny, seed=2), first)
    noise = tiny.initial_noise(9, 64, 96, torch.Generator().manual_seed(1))
    assert noise.shape == (1, 16, 3, 8, 12)
    assert torch.equal(noise, torch.randn(noise.shape, generator=torch.Generator().manual_seed(1)))


def test_without_guidance_the_negative_prompt_is_not_read(tiny: EX4DPipeline) -> None:
    assert torch.equal(*(run(tiny, guidance_scale=1.0, negative_prompt=text) for text in ("a", "b")))
    assert not torch.equal(*(run(tiny, guidance_scale=2.0, negative_prompt=text) for text in ("a", "b")))
    assert tiny.encode_text("a", None).uncond is None


@pytest.mark.parametrize(
    ("rgb_shape", "mask_shape"),
    [((4, 32, 48), None), ((6, 32, 48), None), ((5, 40, 48), None), ((5, 32, 56), None), ((5, 32, 48), (5, 32, 32))],
)
def test_sizes_that_the_model_cannot_take(tiny: EX4DPipeline, rgb_shape: Any, mask_shape: Any) -> None:
    with pytest.raises(InputError, match="4k\\+1 frames with sides in multiples of 16"):
        tiny(np.zeros((*rgb_shape, 3), np.uint8), np.ones(mask_shape or rgb_shape, bool))


# saving and loading


@pytest.mark.parametrize("adapter_apart", [False, True])
def test_saved_and_loaded_it_gives_the_same(tiny: EX4DPipeline, tmp_path: Path, adapter_apart: bool) -> None:
    before = run(tiny)
    tiny.save_pretrained(tmp_path / "weights")
    assert torch.equal(run(tiny), before), "saving changed it"
    options = {}
    if adapter_apart:
        for part in ("geometry_encoder", "lora"):
            shutil.move(tmp_path / "weights" / part, tmp_path / "adapter" / part)
        options = {"adapter": tmp_path / "adapter"}
    loaded = EX4DPipeline.from_pretrained(tmp_path / "weights", dtype=torch.float32, **options)
    assert torch.equal(run(loaded), before)
    assert not any(part.training for part in loaded.components.values() if isinstance(part, torch.nn.Module))
    loaded.save_pretrained(tmp_path / "again")
    assert torch.equal(run(EX4DPipeline.from_pretrained(tmp_path / "again", dtype=torch.float32)), before)


def test_it_can_be_saved_where_it_came_from(tiny: EX4DPipeline, tmp_path: Path) -> None:
    tiny.save_pretrained(tmp_path)
    loaded = EX4DPipeline.from_pretrained(tmp_path, dtype=torch.float32)
    loaded.save_pretrained(tmp_path)
    assert torch.equal(run(EX4DPipeline.from_pretrained(tmp_path, dtype=torch.float32)), run(tiny))


def test_precision_of_what_is_loaded(tiny_folder: Path) -> None:
    pipe = EX4DPipeline.from_pretrained(tiny_folder)
    transformer = dict(pipe.transformer.named_parameters())
    assert transformer["blocks.0.attn1.to_k.base_layer.weight"].dtype == torch.bfloat16
    assert transformer["blocks.0.norm2.weight"].dtype == torch.float32
    assert transformer["condition_embedder.time_embedder.linear_1.weight"].dtype == torch.float32
    assert pipe.text_encoder.dtype == pipe.image_encoder.dtype == torch.bfloat16
    assert pipe.vae.dtype == pipe.geometry_encoder.dtype == torch.float32
    latents, exact = run(pipe), run(EX4DPipeline.from_pretrained(tiny_folder, dtype=torch.float32))
    assert latents.dtype == torch.float32
    assert 0 < (latents - exact).norm() / exact.norm() < 0.05


def test_the_folder_names_our_classes_and_a_stock_one_loads(tiny_folder: Path, tmp_path: Path) -> None:
    index = json.loads((tiny_folder / "model_index.json").read_text())
    assert index["_class_name"] == "EX4DPipeline"
    assert index["geometry_encoder"][1] == "GeometryEncoder"
    stock = Path(shutil.copytree(tiny_folder, tmp_path / "stock"))
    config = json.loads((stock / "transformer/config.json").read_text())
    (stock / "transformer/config.json").write_text(json.dumps({**config, "_class_name": "WanTransformer3DModel"}))
    del index["geometry_encoder"]
    (stock / "model_index.json").write_text(json.dumps({**index, "_class_name": "WanImageToVideoPipeline"}))
    for part in ("geometry_encoder", "lora"):
        shutil.rmtree(stock / part)
    pipes = [
        EX4DPipeline.from_pretrained(each, adapter=tiny_folder, dtype=torch.float32) for each in (stock, tiny_folder)
    ]
    assert torch.equal(*(run(pipe) for pipe in pipes))


def test_ready_components_are_taken_and_others_left_out(tiny: EX4DPipeline, tiny_folder: Path) -> None:
    loaded = EX4DPipeline.from_pretrained(
        tiny_folder,
        text_encoder=None,
        tokenizer=None,
        transformer=tiny.transformer,
        geometry_encoder=tiny.geometry_encoder,
    )
    assert loaded.transformer is tiny.transformer
    assert loaded.text_encoder is None
    with pytest.raises(WeightsError, match="the component text_encoder; got it was not loaded"):
        loaded.encode_text("a", "b")


def test_fused_and_unfused_agree(tiny: EX4DPipeline, tmp_path: Path) -> None:
    before = run(tiny)
    tiny.fuse()
    assert not any("lora" in name for name, _ in tiny.transformer.named_modules())
    assert (run(tiny) - before).abs().max() <= 1e-4
    with pytest.raises(OutputError, match="save before fuse"):
        tiny.save_pretrained(tmp_path / "fused")
    assert not (tmp_path / "fused").exists()


def test_without_a_lora_there_is_nothing_to_fuse(tmp_path: Path) -> None:
    pipe = make_tiny_pipeline(attach=False)
    before = run(pipe)
    pipe.fuse()
    assert torch.equal(run(pipe), before)
    pipe.save_pretrained(tmp_path / "base")
    assert not (tmp_path / "base/lora").exists()


# conditioning


def test_unobserved_color_is_not_looked_at(tiny: EX4DPipeline) -> None:
    rgb, observed = random_prior()
    other = np.where(observed[..., None], rgb, 255 - rgb)
    first, second = (tiny.encode_prior(each, observed) for each in (rgb, other))
    for name in ("image_embeds", "image_latents", "geometry_latents"):
        assert torch.equal(getattr(first, name), getattr(second, name))


def test_the_quirk_is_in_the_geometry_alone(tiny: EX4DPipeline) -> None:
    quirky, plain = (tiny.encode_prior(*random_prior(), mask_quirk=quirk) for quirk in (True, False))
    assert not torch.allclose(known(quirky.geometry_latents), known(plain.geometry_latents), atol=1e-4)
    assert torch.equal(quirky.image_latents, plain.image_latents)
    assert torch.equal(known(quirky.image_embeds), known(plain.image_embeds))


def test_only_the_first_frame_is_the_image(tiny: EX4DPipeline) -> None:
    rgb, observed = random_prior()
    later = rgb.copy()
    later[1:] = 255 - later[1:]
    first, second = (tiny.encode_prior(each, observed) for each in (rgb, later))
    assert torch.equal(first.image_latents, second.image_latents)
    assert torch.equal(known(first.image_embeds), known(second.image_embeds))
    assert not torch.equal(known(first.geometry_latents), known(second.geometry_latents))
    assert first.image_latents.shape == (1, 20, 2, 4, 6)
    assert known(first.image_embeds).shape == (1, 257, 32)
    assert known(first.geometry_latents).shape == (1, 64, 2, 2, 3)


def test_texts_have_512_tokens_and_zeros_after_them(tiny: EX4DPipeline) -> None:
    text, longer = encode_texts(["ab  c", "x" * 600], tiny.tokenizer, tiny.text_encoder)
    assert text.shape == longer.shape == (1, 512, 32)
    assert text[0, :5].abs().sum(dim=-1).min() > 0  # white space is cleaned, the end is a token
    assert not text[0, 5:].any()
    assert longer[0].abs().sum(dim=-1).min() > 0
    (alone,) = encode_texts(["ab c"], tiny.tokenizer, tiny.text_encoder)
    assert torch.equal(alone, text)


def test_encoding_and_decoding_are_inverse_in_scale(tiny: EX4DPipeline) -> None:
    """Latents are normalised: the constants of Wan2.1, applied and taken back."""
    mean, std = (torch.tensor(tiny.vae.config[key]).view(1, -1, 1, 1, 1) for key in ("latents_mean", "latents_std"))
    video = torch.rand(1, 3, 5, 32, 48) * 2 - 1
    with torch.no_grad():
        raw = tiny.vae.encode(video).latent_dist.mode()
        torch.testing.assert_close(tiny.encode_video(video) * std + mean, raw)
        decoded = tiny.vae.decode(raw, return_dict=False)[0]
    torch.testing.assert_close(tiny.decode_video((raw - mean) / std), decoded, atol=1e-5, rtol=0)


# tiles


def test_one_tile_of_the_whole_frame_equals_no_tiles(tiny: EX4DPipeline) -> None:
    conditioning, text, noise = inputs(tiny)
    plain = tiny.sample(conditioning, text, noise, num_inference_steps=2)
    tiles = plan_tiles(8, 12, tile_height=64, tile_width=64)
    tiled = tiny.sample(conditioning, text, noise, num_inference_steps=2, tiles=tiles)
    torch.testing.assert_close(tiled, plain, atol=1e-6, rtol=0)


def cut(conditioning: Conditioning, tile: Tile) -> Conditioning:
    """A prior of the tile alone. Image embeddings are of the whole frame."""
    top, bottom, left, right = tile.top, tile.bottom, tile.left, tile.right
    return replace(
        conditioning,
        image_latents=conditioning.image_latents[..., top:bottom, left:right],
        geometry_latents=known(conditioning.geometry_latents)[..., top // 2 : bottom // 2, left // 2 : right // 2],
    )


@pytest.mark.parametrize("size", [(8, 8), (4, 64), (4, 8)])
def test_where_one_tile_is_alone_it_is_what_it_would_be_by_itself(tiny: EX4DPipeline, size: tuple[int, int]) -> None:
    conditioning, text, noise = inputs(tiny)
    tiles = plan_tiles(8, 12, tile_height=size[0], tile_width=size[1])
    assert len(tiles) > 1
    tiled = tiny.sample(conditioning, text, noise, num_inference_steps=1, tiles=tiles)
    covered = np.zeros((8, 12), int)
    for tile in tiles:
        covered[tile.top : tile.bottom, tile.left : tile.right] += 1
    assert (covered == 1).any()
    assert (covered > 1).any()
    for tile in tiles:
        area = (..., slice(tile.top, tile.bottom), slice(tile.left, tile.right))
        alone = tiny.sample(cut(conditioning, tile), text, noise[area], num_inference_steps=1)
        once = torch.from_numpy(covered == 1)[area[1:]]
        torch.testing.assert_close(tiled[area][..., once], alone[..., once], atol=1e-5, rtol=0)


def test_tiles_blend_where_they_overlap(tiny: EX4DPipeline) -> None:
    conditioning, text, noise = inputs(tiny)
    left, right = tiles = plan_tiles(8, 12, tile_height=8, tile_width=8)
    tiled = tiny.sample(conditioning, text, noise, num_inference_steps=1, tiles=tiles)
    first, second = (
        tiny.sample(cut(conditioning, tile), text, noise[..., tile.left : tile.right], num_inference_steps=1)
        for tile in (left, right)
    )
    shared = tiled[..., right.left : left.right]
    a, b = first[..., right.left :], second[..., : left.right - right.left]
    assert (torch.minimum(a, b) - 1e-5 <= shared).all()
    assert (shared <= torch.maximum(a, b) + 1e-5).all()
    towards_second = ((shared - a).abs() / (b - a).abs().clamp(min=1e-4)).median(dim=-2).values.mean(dim=(0, 1, 2))
    assert (towards_second.diff() > 0).all(), towards_second


def test_geometry_of_a_tile_is_that_of_its_place(tiny: EX4DPipeline) -> None:
    """The rightmost geometry column changes the right tile alone, the leftmost the left one."""
    conditioning, text, noise = inputs(tiny)
    tiles = plan_tiles(8, 12, tile_height=8, tile_width=8)
    assert [(tile.left, tile.right) for tile in tiles] == [(0, 8), (4, 12)]

    def sample(column: int | None) -> Tensor:
        geometry = known(conditioning.geometry_latents).clone()
        if column is not None:
            geometry[..., column] *= -1
        changed = replace(conditioning, geometry_latents=geometry)
        return tiny.sample(changed, text, noise, num_inference_steps=1, tiles=tiles)

    base = sample(None)
    for column, touched, untouched in ((5, slice(8, 12), slice(0, 4)), (0, slice(0, 4), slice(8, 12))):
        latents = sample(column)
        assert torch.equal(latents[..., untouched], base[..., untouched])
        assert (latents[..., touched] - base[..., touched]).abs().max() > 1e-3


# what goes wrong


@pytest.mark.parametrize("where", ["noise", "geometry", "weights"])
def test_latents_that_are_no_numbers_name_their_step(tiny: EX4DPipeline, where: str) -> None:
    conditioning, text, noise = inputs(tiny)
    if where == "noise":
        noise[0, 0, 0, 0, 0] = float("nan")
    elif where == "geometry":
        known(conditioning.geometry_latents)[0, 3, 0, 1, 1] = float("inf")
    else:
        tiny.transformer.proj_out.weight.data[0, 0] = float("nan")
    with pytest.raises(Ex4dError, match="NaN or infinity after step 1 of 2"):
        tiny.sample(conditioning, text, noise, num_inference_steps=2)


def test_preview_latents_are_told_each_step(tiny: EX4DPipeline) -> None:
    conditioning, text, noise = inputs(tiny)
    seen: list[tuple[int, Tensor]] = []
    latents = tiny.sample(
        conditioning,
        text,
        noise,
        num_inference_steps=3,
        on_step=lambda index, latents, clean: seen.append((index, clean)),
    )
    assert [index for index, _ in seen] == [0, 1, 2]
    torch.testing.assert_close(seen[-1][1], latents, atol=1e-5, rtol=0)
