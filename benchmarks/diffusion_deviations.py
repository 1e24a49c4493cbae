"""What each departure from the EX-4D release's diffusion changes, on the oracle's tiny random weights, CPU, float32.

    python benchmarks/diffusion_deviations.py

Prints the first table of docs/fidelity.md's deviations. ``ours``: our defaults differ from the release; ``option``: a
flag or preset does; ``port``: nothing of ours does, but a port made in the obvious way would. Everything is compared
with our defaults, which equal the release's code to 1e-5 here (tests/parity/test_diffusion.py). Random weights show
which details matter to the numbers, not to the pictures. EX4D_ORACLE names another oracle.
"""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.embeddings import Timesteps
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor
from transformers import CLIPImageProcessorPil
from transformers.utils import logging

from ex4d.model import preprocess
from ex4d.model.adapter import fuse_loras
from ex4d.model.branch import Conditioning, TextEmbeds
from ex4d.model.estimates import PLANS, PlanName
from ex4d.model.gguf_files import KINDS, load_gguf, write_gguf
from ex4d.model.placement import place_transformer
from ex4d.model.sampling import linear_sigmas, make_scheduler
from ex4d.model.sizes import Tile, plan_tiles
from ex4d.model.wan_pipeline import EX4DPipeline
from ex4d.scene.clip import scene_clip
from ex4d.scene.generate import make_scene

TESTS = Path(__file__).resolve().parents[1] / "tests"
STEPS, GUIDANCE = 4, 5.0


def known(tensor: Tensor | None) -> Tensor:
    """A part of a conditioning that is there."""
    assert tensor is not None
    return tensor


def print_row(what: str, kind: str, where: str, got: Tensor, want: Tensor) -> None:
    """A row of the first table: norm of the difference over the norm of `want`, and the largest difference."""
    difference = (got.float() - want.float()).abs()
    relative = float(difference.norm() / want.float().norm())
    print(f"| {what} | {kind} | {where} | {relative:.1e} | {float(difference.max()):.1e} |", flush=True)


@dataclass(kw_only=True)
class Lab:
    """The oracle's stack and what our defaults make of its inputs."""

    oracle: Any
    folder: Path

    def __post_init__(self) -> None:
        self.pipe = self.load()
        self.text: TextEmbeds = self.oracle.text()
        self.rgb, self.mask = (self.oracle.inputs[name].numpy() for name in ("color_u8", "mask_u8"))
        self.observed = preprocess.threshold_mask(self.mask)
        self.conditioning = self.pipe.encode_prior(self.rgb, self.observed)
        self.latents = self.sample()
        self.video = self.pipe.decode_video(self.latents)

    def load(self) -> EX4DPipeline:
        """A pipeline of its own, to be changed."""
        return EX4DPipeline.from_pretrained(self.folder, dtype=torch.float32)

    def sample(
        self,
        *,
        pipe: EX4DPipeline | None = None,
        given: Conditioning | None = None,
        text: TextEmbeds | None = None,
        tiles: Sequence[Tile] = (),
    ) -> Tensor:
        """Latents after 4 guided steps, with what is not named as by default."""
        return (pipe or self.pipe).sample(
            given or self.conditioning,
            text or self.text,
            self.oracle.inputs["noise"],
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            tiles=tiles,
        )

    @torch.no_grad()
    def forward(self, transformer: Any) -> Tensor:
        """One conditional forward of a transformer on the oracle's latents."""
        dtype = transformer.compute_dtype
        return transformer(
            hidden_states=torch.cat([self.oracle.forward["x"], self.conditioning.image_latents], dim=1).to(dtype),
            timestep=self.oracle.forward["timestep"],
            encoder_hidden_states=self.text.cond.to(dtype),
            encoder_hidden_states_image=known(self.conditioning.image_embeds).to(dtype),
            geometry_latents=self.conditioning.geometry_latents,
            return_dict=False,
        )[0]

    def report(self, what: str, kind: str, **changes: Any) -> None:
        """A row for latents sampled with changes."""
        print_row(what, kind, "latents", self.sample(**changes), self.latents)


def open_lab(folder: Path) -> Lab:
    """Convert the oracle's official-style files and load them."""
    sys.path.insert(0, str(TESTS))
    from parity.oracle import Oracle  # pyright: ignore[reportMissingImports]

    oracle = Oracle()
    return Lab(oracle=oracle, folder=oracle.convert(folder / "weights"))


def compare_conditioning(lab: Lab) -> None:
    """Mask quirk, erosion, CLIP's pixels, text length."""
    plain = lab.pipe.encode_prior(lab.rgb, lab.observed, mask_quirk=False)
    videos = [preprocess.observed_to_model(lab.observed, quirk=quirk) for quirk in (False, True)]
    print_row("mask given as −1/+1, not −3/+1", "option", "mask latent", *map(lab.pipe.encode_video, videos))
    lab.report("", "", given=plain)

    def eroded(erode_px: str, seed: int) -> Tensor:
        mask = preprocess.erode_mask(lab.mask, erode_px, seed=seed)
        return lab.sample(given=lab.pipe.encode_prior(lab.rgb, preprocess.threshold_mask(mask)))

    drawn = eroded("official", 0)
    print_row("erosion of 5, not of 2–8 at random", "ours", "latents", eroded("5", 0), drawn)
    print_row("(two draws of the release's own)", "", "latents", eroded("official", 1), drawn)
    _, first = preprocess.first_frame_to_model(preprocess.color_to_model(lab.rgb, lab.observed))
    pixels: Any = CLIPImageProcessorPil()(images=first, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        embeds = lab.pipe.image_encoder(pixels, output_hidden_states=True).hidden_states[-2]
    print_row(
        "CLIP: short edge, crop, antialias", "port", "image embeddings", embeds, known(lab.conditioning.image_embeds)
    )
    lab.report("", "", given=replace(lab.conditioning, image_embeds=embeds))
    assert lab.text.uncond is not None
    short = TextEmbeds(cond=lab.text.cond[:, :226], uncond=lab.text.uncond[:, :226])
    lab.report("text of 226 tokens, not 512", "port", text=short)


class _DefaultSigmas(FlowMatchEulerDiscreteScheduler):
    def set_timesteps(self, *args: Any, sigmas: Any = None, device: Any = "cpu", **options: Any) -> None:
        super().set_timesteps(num_inference_steps=len(sigmas), device=device)


class _WholeTimesteps(FlowMatchEulerDiscreteScheduler):
    def set_timesteps(self, *args: Any, **options: Any) -> None:
        super().set_timesteps(*args, **options)
        self.timesteps = self.timesteps.long().float()


class _RoundedLatents(FlowMatchEulerDiscreteScheduler):
    def step(self, *args: Any, **options: Any) -> Any:
        return tuple(part.bfloat16().float() for part in super().step(*args, **options))


class _UniPC(UniPCMultistepScheduler):
    def set_timesteps(self, *args: Any, sigmas: Any = None, device: Any = "cpu", **options: Any) -> None:
        super().set_timesteps(num_inference_steps=len(sigmas), device=device)

    def step(self, *args: Any, generator: Any = None, **options: Any) -> Any:
        return super().step(*args, **options)


def compare_sampling(lab: Lab) -> None:
    """Schedules, timesteps, rounding between steps, time sinusoid, tiles."""
    shift = make_scheduler().config["shift"]
    unipc = _UniPC(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
    official, default = make_scheduler(), _DefaultSigmas(shift=shift)
    for scheduler in (official, default):
        scheduler.set_timesteps(sigmas=linear_sigmas(25).tolist())
    sigmas = (torch.as_tensor(scheduler.sigmas) for scheduler in (default, official))
    print_row("diffusers' own Euler sigmas", "port", "sigmas of 25 steps", *sigmas)
    for what, scheduler in (
        ("", default),
        (f"UniPC instead of Euler, at shift {shift:g}", unipc),
        ("timesteps cut to whole numbers", _WholeTimesteps(shift=shift)),
        ("latents rounded to bf16 after each step", _RoundedLatents(shift=shift)),
    ):
        lab.pipe.scheduler = scheduler
        lab.report(what, "port" if what else "")
    lab.pipe.scheduler = make_scheduler()
    pipe = lab.load()
    pipe.transformer.condition_embedder.timesteps_proj = Timesteps(pipe.transformer.config["freq_dim"], True, 0)
    forwards = (lab.forward(each.transformer) for each in (pipe, lab.pipe))
    print_row("time sinusoid in float32", "port", "a forward", *forwards)
    lab.report("", "", pipe=pipe)
    height, width = lab.latents.shape[3:]
    tiles = plan_tiles(height, width, tile_height=height, tile_width=2 * (width // 3))
    lab.report(f"denoised in {len(tiles)} tiles, 2/3 of the width each", "option", tiles=tiles)


def compare_vae(lab: Lab) -> None:
    """Precision, output rounding, tiling."""
    pipe = lab.load()
    pipe.vae = AutoencoderKLWan.from_pretrained(lab.folder / "vae", dtype=torch.bfloat16)
    latents = [
        each.encode_video(preprocess.color_to_model(lab.rgb, lab.observed, dtype=each.vae.dtype))
        for each in (lab.pipe, pipe)
    ]
    print_row("VAE in fp32, not bf16", "ours", "colour latent", *latents)
    rounded = pipe.encode_prior(lab.rgb, lab.observed)
    print_row("", "", "latents", lab.latents, lab.sample(given=rounded))
    print_row("", "", "decoded video", lab.video, pipe.decode_video(lab.latents))
    pipe = lab.load()
    pipe.geometry_encoder.to(torch.bfloat16)
    geometry = pipe.encode_prior(lab.rgb, lab.observed).geometry_latents
    print_row(
        "geometry encoder in fp32, not bf16",
        "ours",
        "geometry latents",
        known(lab.conditioning.geometry_latents),
        known(geometry),
    )
    ours = preprocess.frames_from_model(lab.video)
    nearest = ((lab.video[0] + 1) * 127.5).clamp(0, 255).round().to(torch.uint8).permute(1, 2, 3, 0).numpy()
    share = (ours != nearest).mean()
    print(f"| frames rounded, not truncated | port | frames | {share:.0%} of values differ | by 1 of 255 |")
    clip = scene_clip(make_scene(0), num_frames=5, fps=12.0, height=384, width=384)
    frames = clip.read(0, 5).frames
    video = preprocess.color_to_model(frames, np.ones(frames.shape[:3], bool))
    whole = lab.pipe.encode_video(video)
    decoded = lab.pipe.decode_video(whole)
    lab.pipe.vae.enable_tiling()
    print_row(
        "VAE in tiles of 256×256 (frames of 384×384)", "option", "colour latent", lab.pipe.encode_video(video), whole
    )
    print_row("", "", "decoded video", lab.pipe.decode_video(whole), decoded)
    lab.pipe.vae.disable_tiling()


@contextmanager
def as_released(transformer: Any) -> Iterator[None]:
    """bf16 products with a float32 residual stream: autocast, and the stream widened where it begins."""
    hook = transformer.patch_embedding.register_forward_hook(lambda module, inputs, output: output.float())
    with torch.autocast("cpu", torch.bfloat16):
        yield
    hook.remove()


def compare_weights(lab: Lab, work: Path) -> None:
    """One forward against float32 with the LoRA beside: fused, bf16, 8 bits, GGUF."""
    exact = lab.forward(lab.pipe.transformer)

    def placed(plan: PlanName, *, fused: bool) -> Tensor:
        transformer = lab.load().transformer
        if fused:
            fuse_loras(transformer)
        return lab.forward(place_transformer(transformer, PLANS[plan], "cpu"))

    print_row("LoRA fused, all in fp32", "option", "a forward", placed("cpu", fused=True), exact)
    wide = lab.load().transformer
    with as_released(wide):
        print_row("(like the release: bf16 products, fp32 residuals)", "", "a forward", lab.forward(wide), exact)
    print_row("bf16 residuals, LoRA beside", "ours", "a forward", placed("bf16", fused=False), exact)
    print_row("bf16, LoRA fused", "option", "a forward", placed("bf16", fused=True), exact)
    eight_bits: tuple[PlanName, ...] = ("fp8", "int8")
    for plan in eight_bits:
        print_row(f"{plan} weights, LoRA fused", "option", "a forward", placed(plan, fused=True), exact)
    for kind in KINDS:
        file = work / f"{kind}.gguf"
        write_gguf(lab.folder / "transformer", file, kind=kind)
        base = lab.load()
        base.transformer.unload_lora()
        plain = lab.forward(base.transformer)
        quantised = lab.forward(load_gguf(file, lab.folder / "transformer"))
        print_row(f"GGUF {kind} (both sides without LoRA)", "option", "a forward", quantised, plain)


def main() -> None:
    """Measure and print everything."""
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as name:
        lab = open_lab(Path(name))
        print("| what is different | kind | measured on | relative | largest |\n|---|---|---|---|---|")
        compare_conditioning(lab)
        compare_sampling(lab)
        compare_vae(lab)
        compare_weights(lab, Path(name))


if __name__ == "__main__":
    main()
