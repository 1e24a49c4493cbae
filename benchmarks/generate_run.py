"""One case of `generate_gpu.py`: the stack loaded under its plan, then encoding, steps and decoding, timed."""

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from generate_results import GIB_GOALS, GOAL_VIDEO, NO_GPU, Result, forward_flops
from official_execution import StreamedEncoder, slow_down, stream_layers
from random_stack import Site, random_component, random_encoders, random_transformer, write_random_gguf

from ex4d.model.acceleration import enable_step_cache, set_attention
from ex4d.model.branch import Conditioning, TextEmbeds
from ex4d.model.components import shipped_config
from ex4d.model.config import NEGATIVE_PROMPT, PROMPT, GenerateConfig, Preset
from ex4d.model.estimates import GIB, PLANS, MemoryPlan, PlanName, Workload, model_size
from ex4d.model.memory import choose_plan, describe_plan
from ex4d.model.placement import inspect_machine, limit_vram
from ex4d.model.presets import fixed_schedule, resolve_acceleration
from ex4d.model.sampling import make_scheduler
from ex4d.model.tiny import CONFIGS, make_tiny_tokenizer
from ex4d.model.wan_pipeline import EX4DPipeline, encode_texts

WARMUP_STEPS, TIMED_STEPS = 2, 5
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is measured.

    Attributes:
        preset, plan: of `ex4d generate`.
        fixed_cache: skip steps by `fixed_schedule`.
        text: measure umT5 too.
        whole: also run all steps.
        slowdowns: of the release, added to the preset.
        release: everything on the GPU at first, VAE and geometry encoder in bfloat16.
    """

    preset: Preset = "balanced"
    plan: PlanName = "bf16"
    fixed_cache: bool = False
    text: bool = False
    whole: bool = False
    slowdowns: frozenset[str] = frozenset()
    release: bool = False

    @property
    def config(self) -> GenerateConfig:
        """As for `ex4d generate`, without its content-dependent cache."""
        return GenerateConfig(
            preset=self.preset,
            plan=self.plan,
            cache="none",
            compile="off" if "no-compile" in self.slowdowns else "auto",
            fuse_lora="off" if "unfused-lora" in self.slowdowns else "auto",
        )


def blank_result(name: str, case: Case, video: str, *, tiny: bool) -> Result:
    """What is known of a case before it is run."""
    config = shipped_config("transformer") if not tiny else CONFIGS["transformer"]
    acceleration, num_steps = resolve_acceleration(case.config, case.plan), case.config.num_inference_steps
    num_frames, height, width = map(int, video.split("x"))
    tokens = Workload(num_frames=num_frames, height=height, width=width).num_tokens
    passes = 2 if case.config.effective_guidance_scale > 1 else 1
    return Result(
        case=name,
        video=video,
        tiny=tiny,
        plan=case.plan,
        acceleration={
            "attention": acceleration.attention,
            "compile": acceleration.compile,
            "cache": "fixed" if case.fixed_cache else "none",
            "fuse_lora": acceleration.fuse_lora,
        },
        num_steps=num_steps,
        computed_steps=sum(fixed_schedule(num_steps)) if case.fixed_cache else num_steps,
        step_tflop=passes * forward_flops(config, tokens) / 1e12,
        error=NO_GPU,
    )


class Run:
    """One case: text, load, encode, steps, decode; `result` is filled in on the way."""

    def __init__(self, case: Case, site: Site, result: Result, max_vram_gib: float | None) -> None:
        self.case, self.site, self.result, self.device = case, site, result, site.device
        self.num_frames, self.height, self.width = map(int, result.video.split("x"))
        self.work = Workload(
            num_frames=self.num_frames,
            height=self.height,
            width=self.width,
            vae_dtype="bf16" if case.release else "fp32",
            step_cache=case.fixed_cache,
            text_cached=not case.text,
        )
        self.gguf = write_random_gguf(site) if case.plan == "gguf" else None
        self.plan = self._choose_plan(max_vram_gib)
        self.acceleration = resolve_acceleration(case.config, self.plan.name)
        self.streams = "per-layer-offload" in case.slowdowns
        if max_vram_gib is not None and self.device.type == "cuda":
            limit_vram(max_vram_gib, self.device)

    def run(self) -> None:
        """Text first, as the engine does; under `release` everything lies on the GPU before anything is encoded."""
        self._note_differences()
        _reset_peaks(self.device)
        text = self._encode_text() if self.case.text and not self.case.release else None
        started = self._now()
        pipe = self._load()
        encoder = random_component("text_encoder", self.site) if self.case.release else None
        self.result.load_s = self._now() - started
        self.result.peak_load = _read_peaks(self.device)
        if encoder is not None:
            text = self._encode_text(encoder)
            del encoder
        if self.streams:
            stream_layers(pipe.image_encoder, self.device)
        _reset_peaks(self.device)
        self._generate(pipe, text or self._random_text())
        self.result.peak_run = _read_peaks(self.device)
        self.result.host_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB

    def _choose_plan(self, max_vram_gib: float | None) -> MemoryPlan:
        """With the goal as budget, so that the VAE is tiled where the goal asks for it."""
        if self.device.type == "cpu":
            return PLANS[self.case.plan]
        goal = GIB_GOALS.get(self.result.case) if self.result.video == GOAL_VIDEO else None
        machine = inspect_machine(self.device, gguf=self.gguf)
        size = model_size(self.site.config("transformer"))
        budget = max_vram_gib or goal
        choice = choose_plan(machine, self.work, requested=self.case.plan, max_vram_gib=budget, size=size)
        self.result.estimate_load_gib, self.result.estimate_run_gib = choice.estimate.load_gib, choice.estimate.run_gib
        self.result.notes.append(describe_plan(choice))
        return choice.plan

    def _note_differences(self) -> None:
        notes = self.result.notes
        if self.site.tiny and self.acceleration.compile:
            notes.append("blocks run without the compiler at tiny size")
        if self.device.type == "cpu":
            notes.append("no GPU: no peaks of its memory")
            if self.plan.precision == "fp8":
                notes.append("no GPU: fp8 weights alone, products in bfloat16")
            if self.plan.offload:
                notes.append("no GPU: blocks are not copied on a stream")

    def _load(self) -> EX4DPipeline:
        """The pipeline as the engine leaves it; under `release` all of it on the GPU."""
        case = self.case
        encoders = random_encoders(self.site, exact=not case.release)
        _empty_cache(self.device)
        transformer = random_transformer(
            self.site,
            self.plan,
            self.acceleration,
            prepare=lambda transformer: slow_down(transformer, case.slowdowns),
            gguf=self.gguf,
        )
        set_attention(transformer, self.acceleration.attention, self.device)
        parts: dict[str, Any] = {**encoders, "transformer": transformer, "tokenizer": None, "text_encoder": None}
        pipe = EX4DPipeline(scheduler=make_scheduler(renoise=case.preset == "draft"), **parts)
        resident = self.plan.resident
        if case.release:
            resident = ("transformer", *encoders)
            for encoder in encoders.values():
                encoder.to(self.device)
        elif self.streams:
            resident = ("transformer", "image_encoder")
        pipe.place(self.device, resident=resident)
        if self.plan.vae_tiling:
            pipe.vae.enable_tiling()
        return pipe

    def _encode_text(self, encoder: Any = None) -> TextEmbeds:
        """Both prompts by umT5, timed in a second call."""
        encoder = random_component("text_encoder", self.site) if encoder is None else encoder
        if self.streams:
            encoder = StreamedEncoder(encoder, self.device)
        tokenizer = make_tiny_tokenizer()
        embeds, self.result.text_s = self._twice(lambda: encode_texts([PROMPT, NEGATIVE_PROMPT], tokenizer, encoder))
        return TextEmbeds(cond=embeds[0], uncond=embeds[1])

    def _random_text(self) -> TextEmbeds:
        """As from the cache of prompts."""
        shape = (1, 512, self.site.config("text_encoder")["d_model"])
        guided = self.case.config.effective_guidance_scale > 1
        return TextEmbeds(cond=torch.randn(shape), uncond=torch.randn(shape) if guided else None)

    def _generate(self, pipe: EX4DPipeline, text: TextEmbeds) -> None:
        rng = np.random.default_rng(0)
        rgb = rng.integers(0, 256, (self.num_frames, self.height, self.width, 3), np.uint8)
        observed = rng.random(rgb.shape[:3]) > 0.3
        noise = pipe.initial_noise(self.num_frames, self.height, self.width, torch.Generator().manual_seed(0))
        conditioning, self.result.encode_s = self._twice(lambda: pipe.encode_prior(rgb, observed))
        self._time_steps(pipe, conditioning, text, noise)
        _, self.result.decode_s = self._twice(lambda: pipe.decode(noise.to(self.device)))
        if not self.case.whole:
            return
        started = self._now()
        conditioning = pipe.encode_prior(rgb, observed)
        config = self.case.config
        latents = pipe.sample(conditioning, text, noise, num_inference_steps=config.num_inference_steps)
        pipe.decode(latents)
        self.result.whole_s = self._now() - started

    def _time_steps(
        self, pipe: EX4DPipeline, conditioning: Conditioning, text: TextEmbeds, noise: torch.Tensor
    ) -> None:
        """Warm-up and timed steps; with the fixed cache as many timed steps that are skipped."""
        result, cached = self.result, self.case.fixed_cache
        num_steps = WARMUP_STEPS + TIMED_STEPS * (1 + cached)
        computed = (True,) * num_steps
        if cached:
            share = WARMUP_STEPS / num_steps
            enable_step_cache(pipe.transformer, "fixed", num_inference_steps=num_steps, warmup=share)
            computed = fixed_schedule(num_steps, warmup=share)
        marks = [self._now()]

        def mark(index: int, latents: torch.Tensor, clean: torch.Tensor) -> None:
            marks.append(self._now())

        pipe.sample(
            conditioning,
            text,
            noise,
            num_inference_steps=num_steps,
            guidance_scale=self.case.config.effective_guidance_scale,
            generator=torch.Generator().manual_seed(0),
            on_step=mark,
        )
        timed = list(zip(np.diff(marks).tolist(), computed, strict=True))[WARMUP_STEPS:]
        result.step_s = [seconds for seconds, is_computed in timed if is_computed]
        result.skipped_step_s = [seconds for seconds, is_computed in timed if not is_computed]
        result.median_step_s = statistics.median(result.step_s)
        result.total_s = result.computed_steps * result.median_step_s
        if result.skipped_step_s:
            result.total_s += (result.num_steps - result.computed_steps) * statistics.median(result.skipped_step_s)

    def _twice(self, job: Callable[[], T]) -> tuple[T, float]:
        job()
        started = self._now()
        made = job()
        return made, self._now() - started

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def _empty_cache(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _reset_peaks(device: torch.device) -> None:
    _empty_cache(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _read_peaks(device: torch.device) -> dict[str, float] | None:
    """GiB since the last reset. ``device`` adds what is not torch's: the context, libraries (other processes too)."""
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    reserved = torch.cuda.max_memory_reserved(device)
    others = total - free - torch.cuda.memory_reserved(device)
    peaks = {"allocated": torch.cuda.max_memory_allocated(device), "reserved": reserved, "device": reserved + others}
    return {name: value / GIB for name, value in peaks.items()}
