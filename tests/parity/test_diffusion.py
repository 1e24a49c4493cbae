"""Our stack computes what the release computes: every row of the oracle's README, within its tolerance."""

import itertools
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from ex4d.model import preprocess
from ex4d.model.adapter import fuse_loras
from ex4d.model.sampling import linear_sigmas, make_scheduler
from ex4d.model.transformer import ExactTimesteps
from ex4d.model.wan_pipeline import EX4DPipeline
from parity.oracle import Oracle, difference, load_pipeline

VAE, GEOMETRY, CLIP, T5, DIT, LOOP = 1e-5, 1e-5, 1e-4, 1e-4, 5e-5, 1e-4


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle()


@pytest.fixture(scope="module")
def folder(oracle: Oracle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return oracle.convert(tmp_path_factory.mktemp("oracle") / "weights")


@pytest.fixture(scope="module")
def pipe(folder: Path) -> EX4DPipeline:
    return load_pipeline(folder)


def _masks(oracle: Oracle) -> tuple[np.ndarray, np.ndarray]:
    return oracle.inputs["color_u8"].numpy(), preprocess.threshold_mask(oracle.inputs["mask_u8"].numpy())


# preprocessing


def test_frames_are_picked_evenly(oracle: Oracle) -> None:
    picked = [key for key in oracle.preprocess if key.startswith("frame_idx_")]
    assert picked
    for key in picked:
        num_frames, num_wanted = (int(part) for part in key.removeprefix("frame_idx_").split("_to_"))
        np.testing.assert_array_equal(preprocess.sample_frames(num_frames, num_wanted), oracle.preprocess[key].numpy())


def test_resize_is_bilinear(oracle: Oracle) -> None:
    (key,) = (key for key in oracle.preprocess if key.startswith("mask_resized_"))
    raw, want = oracle.preprocess["mask_raw_u8"].numpy(), oracle.preprocess[key].numpy()
    _, got = preprocess.resize_view(raw, raw, height=want.shape[1], width=want.shape[2], official=True)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("side", range(2, 9))
def test_erosion(oracle: Oracle, side: int) -> None:
    raw, want = oracle.preprocess["mask_raw_u8"].numpy(), oracle.preprocess[f"mask_eroded_k{side}"].numpy()
    np.testing.assert_array_equal(preprocess.erode_mask(raw, str(side), seed=0), want)


def test_official_erosion_draws_its_kernels_by_seed_and_frame(oracle: Oracle) -> None:
    raw = oracle.preprocess["mask_raw_u8"].numpy()
    frames = np.concatenate([raw] * 50)
    first, again = (preprocess.erode_mask(frames, "official", seed=0) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first[5:], preprocess.erode_mask(frames[5:], "official", seed=0, first_index=5))
    assert (first != preprocess.erode_mask(frames, "official", seed=1)).any()
    possible = [np.concatenate([preprocess.erode_mask(raw, str(side), seed=0)] * 50) for side in range(2, 9)]
    matches = np.array([[(frame == other[i]).all() for other in possible] for i, frame in enumerate(first)])
    assert matches.any(axis=1).all()
    assert matches.any(axis=0).all(), "some kernel was never drawn in 100 frames"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_color_mask_and_first_frame(oracle: Oracle, dtype: torch.dtype) -> None:
    exact = dtype == torch.float32
    wanted = oracle.conditioning if exact else oracle.preprocess
    suffix = "" if exact else "_bf16"
    rgb, mask = (oracle.inputs[name].numpy() for name in ("color_u8", "mask_u8"))
    observed = preprocess.threshold_mask(mask, dtype=dtype)
    color = preprocess.color_to_model(rgb, observed, dtype=dtype)
    assert torch.equal(color[0], wanted[f"color{suffix}"])
    assert torch.equal(preprocess.observed_to_model(observed, quirk=False, dtype=dtype)[0], wanted[f"mask{suffix}"])
    _, first = preprocess.first_frame_to_model(color)
    np.testing.assert_array_equal(first, wanted[f"first_frame_u8{suffix}"].numpy())


# conditioning


def test_prior_is_encoded_as_released(oracle: Oracle, pipe: EX4DPipeline) -> None:
    conditioning = pipe.encode_prior(*_masks(oracle))
    assert conditioning.geometry_latents is not None
    assert conditioning.image_embeds is not None
    assert difference(conditioning.geometry_latents, oracle.conditioning["ray_latent"]) <= GEOMETRY
    assert difference(conditioning.image_embeds, oracle.conditioning["clip_fea"]) <= CLIP
    assert difference(conditioning.image_latents, oracle.conditioning["y"]) <= VAE


def test_latents_of_color_and_mask(oracle: Oracle, pipe: EX4DPipeline) -> None:
    color, mask = (oracle.conditioning[name][None] for name in ("color", "mask"))
    assert difference(pipe.encode_video(color), oracle.conditioning["color_latent"]) <= VAE
    quirky = pipe.encode_video(mask * 2 - 1)
    assert difference(quirky, oracle.conditioning["mask_latent"]) <= VAE


def test_without_the_quirk_the_mask_latent_is_another_one(oracle: Oracle, pipe: EX4DPipeline) -> None:
    _, observed = _masks(oracle)
    latents = {quirk: pipe.encode_video(preprocess.observed_to_model(observed, quirk=quirk)) for quirk in (True, False)}
    assert difference(latents[False], oracle.conditioning["mask_latent_without_quirk"]) <= VAE
    assert difference(latents[True], oracle.conditioning["mask_latent"]) <= VAE
    assert _relative(latents[False], oracle.conditioning["mask_latent"]) > 0.05


def test_geometry_encoder_alone(oracle: Oracle, pipe: EX4DPipeline) -> None:
    latents = [oracle.conditioning[name] for name in ("color_latent", "mask_latent")]
    assert difference(pipe.geometry_encoder(*latents), oracle.conditioning["ray_latent"]) <= GEOMETRY


def test_text_encoder(oracle: Oracle, pipe: EX4DPipeline) -> None:
    ids, mask = oracle.inputs["prompt_ids"], oracle.inputs["prompt_mask"]
    embeds = pipe.text_encoder(ids, mask).last_hidden_state
    for row, name in enumerate(("context_pos", "context_neg")):
        want = oracle.conditioning[name]
        assert difference(embeds[row, : len(want)], want) <= T5


# transformer


@pytest.mark.parametrize(("lora", "geometry"), [*itertools.product((True, False), repeat=2)])
def test_one_forward(oracle: Oracle, folder: Path, lora: bool, geometry: bool) -> None:
    pipe = load_pipeline(folder)
    if not lora:
        pipe.transformer.unload_lora()
    name = {(True, True): "", (True, False): "_no_ray", (False, True): "_no_lora", (False, False): "_base"}[
        lora, geometry
    ]
    assert difference(_forward(oracle, pipe, "cond", geometry), oracle.forward[f"out_pos{name}"]) <= DIT
    if lora and geometry:
        assert difference(_forward(oracle, pipe, "uncond", True), oracle.forward["out_neg"]) <= DIT


def test_fused_and_unfused_lora_agree(oracle: Oracle, folder: Path) -> None:
    pipe = load_pipeline(folder)
    before = _forward(oracle, pipe, "cond", True)
    fuse_loras(pipe.transformer)
    assert not any("lora" in name for name, _ in pipe.transformer.named_parameters())
    after = _forward(oracle, pipe, "cond", True)
    assert difference(after, before) <= 1e-4
    assert difference(after, oracle.forward["out_pos"]) <= DIT


def _forward(oracle: Oracle, pipe: EX4DPipeline, text: str, geometry: bool) -> Tensor:
    given = oracle.given()
    with torch.no_grad():
        return pipe.transformer(
            hidden_states=torch.cat([oracle.forward["x"], given.image_latents], dim=1),
            timestep=oracle.forward["timestep"],
            encoder_hidden_states=getattr(oracle.text(), text),
            encoder_hidden_states_image=given.image_embeds,
            geometry_latents=given.geometry_latents if geometry else None,
            return_dict=False,
        )[0]


# schedule and loop


def test_schedules_for_all_step_counts(oracle: Oracle) -> None:
    names = [key.removeprefix("sigmas_") for key in oracle.schedule if key.startswith("sigmas_")]
    assert names
    for name in names:
        steps, _, strength = name.partition("_strength")
        scheduler = make_scheduler(shift=oracle.config["shift"])
        scheduler.set_timesteps(sigmas=linear_sigmas(int(steps), float(strength or 1)).tolist())
        sigmas, timesteps = cast(Tensor, scheduler.sigmas), cast(Tensor, scheduler.timesteps)
        assert difference(sigmas[:-1], oracle.schedule[f"sigmas_{name}"]) <= 1e-6
        assert sigmas[-1] == 0
        assert difference(timesteps, oracle.schedule[f"timesteps_{name}"]) <= 1e-3


def test_time_sinusoid_in_float64(oracle: Oracle) -> None:
    want = oracle.schedule["time_embed_256"]
    assert difference(ExactTimesteps(want.shape[1])(oracle.schedule["time_embed_in"]), want) <= 1e-6


def test_initial_noise_is_the_releases(oracle: Oracle, pipe: EX4DPipeline) -> None:
    config = oracle.config
    generator = torch.Generator().manual_seed(config["seed"])
    noise = pipe.initial_noise(config["num_frames"], config["height"], config["width"], generator)
    assert torch.equal(noise, oracle.inputs["noise"])


def test_latents_after_every_step_and_frames(oracle: Oracle, pipe: EX4DPipeline) -> None:
    seen: list[Tensor] = []
    latents = pipe.sample(
        oracle.given(),
        oracle.text(),
        oracle.inputs["noise"],
        num_inference_steps=oracle.config["num_inference_steps"],
        guidance_scale=oracle.config["guidance_scale"],
        on_step=lambda index, latents, clean: seen.append(latents),
    )
    assert len(seen) == oracle.config["num_inference_steps"]
    for index, step in enumerate(seen):
        assert step.dtype == torch.float32
        assert difference(step, oracle.loop[f"latents_after_{index}"]) <= LOOP
    assert torch.equal(latents, seen[-1])
    assert difference(pipe.decode_video(latents), oracle.loop["decoded"]) <= LOOP
    frames, want = pipe.decode(latents).astype(int), oracle.loop["frames_u8"].numpy().astype(int)
    assert np.abs(frames - want).max() <= 1
    assert (frames != want).mean() <= 1e-4


def test_from_frames_to_frames(oracle: Oracle, pipe: EX4DPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole call, with the release's token ids: only the tokenizer of real weights is not at hand."""
    monkeypatch.setattr(pipe, "encode_text", lambda prompt, negative: oracle.text())
    config = oracle.config
    output = pipe(
        *_masks(oracle),
        num_inference_steps=config["num_inference_steps"],
        guidance_scale=config["guidance_scale"],
        seed=config["seed"],
    )
    assert difference(output.latents, oracle.loop[f"latents_after_{config['num_inference_steps'] - 1}"]) <= LOOP
    want = oracle.loop["frames_u8"].numpy().astype(int)
    assert (output.frames.astype(int) != want).mean() <= 1e-3
    assert np.abs(output.frames.astype(int) - want).max() <= 1


def _relative(got: Tensor, want: Tensor) -> float:
    return float((got - want).norm() / want.norm())
