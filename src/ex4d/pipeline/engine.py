"""The diffusion model ready to generate windows: loaded under a memory plan, with a smaller one to fall back on."""

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from ex4d.core.arrays import Bool, UInt8
from ex4d.errors import OutOfMemoryError
from ex4d.model.acceleration import enable_step_cache, reset_step_cache, set_attention
from ex4d.model.components import make_component
from ex4d.model.config import GenerateConfig
from ex4d.model.estimates import ModelSize, Workload, model_size
from ex4d.model.memory import Choice, Machine, choose_plan, describe_plan, next_plan_down
from ex4d.model.parallel import ParallelContext, ParallelPlan, on_main, plan_parallel, setup_transformer
from ex4d.model.placement import inspect_machine, limit_vram
from ex4d.model.presets import Acceleration, resolve_acceleration
from ex4d.model.sampling import make_scheduler
from ex4d.model.sizes import VAE_STRIDE, Tile, plan_tiles
from ex4d.model.transformer import EX4DTransformer3DModel
from ex4d.model.wan_pipeline import EX4DPipeline, TextEmbeds
from ex4d.pipeline.generation_job import EngineSettings, GenerationJob
from ex4d.pipeline.progress import Reporter, timed_stage
from ex4d.pipeline.stack import load_stack, load_text
from ex4d.pipeline.weight_paths import WeightPaths, find_weights
from ex4d.weights.files import describe_weights
from ex4d.weights.headers import read_json

_NO_HOST_MEMORY = "can't allocate memory"
"""What torch's allocator for the CPU says, in a plain RuntimeError."""
_PACKAGES = ("diffusers", "transformers", "peft", "torchao", "gguf")


def inspect_for(weights: WeightPaths, context: ParallelContext | None = None) -> Machine:
    """The machine that these weights would run on: the miniature's is always the CPU."""
    if context is not None:
        device = context.device
    else:
        device = torch.device("cuda" if torch.cuda.is_available() and weights.base is not None else "cpu")
    return inspect_machine(device, gguf=weights.gguf)


def choose_for(
    config: GenerateConfig, weights: WeightPaths, machine: Machine, *, job: GenerationJob | None
) -> tuple[Choice, Workload, ModelSize]:
    """The memory plan for the windows of a job; None = not known yet: the usual ones.

    Raises:
        ConfigError, OutOfMemoryError: no plan works here.
    """
    work = _workload(config, job)
    size = model_size(_transformer_config(weights))
    choice = choose_plan(machine, work, requested=config.plan, max_vram_gib=config.max_vram_gib, size=size)
    return choice, work, size


def _workload(config: GenerateConfig, job: GenerationJob | None) -> Workload:
    acceleration = resolve_acceleration(config, "bf16" if config.plan == "auto" else config.plan)
    return Workload(
        num_frames=job.windows[0].num_frames if job else config.window_frames,
        height=job.height if job else 512,
        width=job.width if job else 512,
        tile=config.tile_px,
        vae_dtype=config.vae_dtype,
        step_cache=acceleration.cache != "none",
    )


def _transformer_config(weights: WeightPaths) -> Mapping[str, Any]:
    if weights.base is None:
        from ex4d.model.tiny import CONFIGS

        return CONFIGS["transformer"]
    stored = read_json(weights.base / "transformer" / "config.json")
    return cast(EX4DTransformer3DModel, make_component("transformer", stored)).config


T = TypeVar("T")


class Engine:
    """Use `open_engine`."""

    def __init__(self, job: GenerationJob, settings: EngineSettings, reporter: Reporter) -> None:
        self._job, self._settings, self._reporter = job, settings, reporter
        self._config = job.config
        self._weights = find_weights(job.config)
        self._machine = inspect_for(self._weights, settings.context)
        self._device = settings.context.device if settings.context else torch.device(self._machine.device)
        # one choice for all processes, although their GPUs may be filled differently
        self._choice, self._work, self._size = on_main(
            settings.context, lambda: choose_for(job.config, self._weights, self._machine, job=job)
        )
        self._pipe: EX4DPipeline | None = None
        self._text: TextEmbeds | None = None
        self._hashes: dict[str, dict[str, str]] = {}

    def load(self, timings: dict[str, float]) -> None:
        """Say the plan, then load text, then the rest."""
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        self._announce()
        if self._config.max_vram_gib is not None and self._device.type == "cuda":
            limit_vram(self._config.max_vram_gib, self._device)
        context, files = self._settings.context, self._weights.files
        with timed_stage(self._reporter, timings, "hash weights", None):
            self._hashes = on_main(context, lambda: {name: describe_weights(path) for name, path in files.items()})
        with timed_stage(self._reporter, timings, "encode text", None):
            on_gpu = self._device.type == "cuda" and self._choice.plan.text_encoder == "gpu"
            device = self._device if on_gpu else torch.device("cpu")
            base = self._hashes.get("base", {})
            self._text, notices = on_main(context, lambda: load_text(self._config, self._weights, base, device))
        for notice in notices:
            self._reporter.note(notice)
        with timed_stage(self._reporter, timings, "load model", None):
            self._retried(lambda pipe: None)

    def sample(self, rgb: UInt8, observed: Bool, *, seed: int, window: int, on_step: Callable[[], None]) -> Tensor:
        """Latents float32 [1,16,t,h,w] on the CPU; out of memory, the next smaller plan is loaded and tried.

        Args:
            rgb: uint8 [T,H,W,3] of a window.
            observed: bool [T,H,W] or [T,H,W,3].
            seed: of the noise.
            window: its index, for previews.
            on_step: called after every denoising step.
        """
        return self._retried(lambda pipe: self._sample(pipe, rgb, observed, seed, window, on_step))

    def decode(self, latents: Tensor) -> UInt8:
        """Frames uint8 [T,H,W,3]."""
        return self._retried(lambda pipe: pipe.decode(latents.to(self._device)))

    def describe(self) -> dict[str, Any]:
        """Provenance: plan, device, versions, SHA-256 of the weights."""
        plan = self._choice.plan
        acceleration = self._acceleration()
        return {
            "plan": plan.name,
            "vae_tiling": plan.vae_tiling or self._config.tile_px is not None,
            "attention": acceleration.attention,
            "compile": acceleration.compile,
            "cache": acceleration.cache,
            "fuse_lora": acceleration.fuse_lora,
            "device": self._machine.name,
            "processes": self._settings.context.plan.world_size if self._settings.context else 1,
            "estimated_peak_gib": round(self._choice.estimate.peak_gib, 2),
            "versions": {"torch": torch.__version__} | {name: _version(name) for name in _PACKAGES},
            "weights_sha256": self._hashes,
        }

    def write(self, job: Callable[[], None]) -> None:
        """Do something that writes files, on the main process alone; others wait."""
        on_main(self._settings.context, job)

    def close(self) -> None:
        """Give the memory back."""
        self._pipe = None
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _acceleration(self) -> Acceleration:
        return resolve_acceleration(self._config, self._choice.plan.name)

    def _announce(self) -> None:
        self._reporter.note(describe_plan(self._choice))
        for skipped in self._choice.skipped:
            self._reporter.note(f"not plan {skipped}")

    def _load_pipe(self) -> EX4DPipeline:
        acceleration = self._acceleration()
        pipe = load_stack(
            self._config, self._weights, self._choice.plan, self._device, acceleration, note=self._reporter.note
        )
        set_attention(pipe.transformer, acceleration.attention, self._device)
        enable_step_cache(pipe.transformer, acceleration.cache, num_inference_steps=self._config.num_inference_steps)
        setup_transformer(pipe.transformer, self._settings.context)
        pipe.scheduler = make_scheduler(shift=self._config.shift, renoise=self._config.preset == "draft")
        pipe.place(self._device, resident=("transformer",))
        if self._choice.plan.vae_tiling or self._config.tile_px is not None:
            pipe.vae.enable_tiling()
        return pipe

    def _retried(self, job: Callable[[EX4DPipeline], T]) -> T:
        """Do something with the loaded stack; out of memory, load it under the next smaller plan and try again."""
        while True:
            try:
                self._pipe = self._pipe or self._load_pipe()
                return job(self._pipe)
            except torch.OutOfMemoryError as error:
                reason = str(error).strip().splitlines()[0]
            except RuntimeError as error:
                if _NO_HOST_MEMORY not in str(error):
                    raise
                fix = "a smaller --size or --window-frames, or close other programs"
                raise OutOfMemoryError("enough host memory", str(error).strip().splitlines()[0], fix) from error
            # outside of the except block, whose traceback holds the failed attempt's tensors
            self._step_down(reason)

    def _step_down(self, reason: str) -> None:
        failed = self._choice.plan.name
        if not self._config.fallback or self._settings.context is not None:
            fix = "another --plan, a smaller --size or --window-frames, or more GPU memory"
            raise OutOfMemoryError(f"enough GPU memory for plan {failed}", reason, fix)
        self.close()
        auto = self._config.plan == "auto"
        self._choice = next_plan_down(self._choice, self._machine, self._work, auto=auto, size=self._size)
        self._reporter.note(f"plan {failed} ran out of memory ({reason}): going on with plan {self._choice.plan.name}")
        self._announce()

    def _sample(
        self, pipe: EX4DPipeline, rgb: UInt8, observed: Bool, seed: int, window: int, on_step: Callable[[], None]
    ) -> Tensor:
        assert self._text is not None
        reset_step_cache(pipe.transformer)
        conditioning = pipe.encode_prior(rgb, observed, mask_quirk=self._config.mask_quirk)
        generator = torch.Generator().manual_seed(seed)  # goes on: fresh noise of later steps is other noise
        num_frames, height, width = rgb.shape[:3]
        noise = pipe.initial_noise(num_frames, height, width, generator)

        def report(index: int, latents: Tensor, clean: Tensor) -> None:
            on_step()
            every, show = self._settings.preview_every, self._settings.on_preview
            if every and show is not None and (index + 1) % every == 0 and self._settings.is_main:
                show(window, index + 1, pipe.decode(clean))

        latents = pipe.sample(
            conditioning,
            self._text,
            noise,
            num_inference_steps=self._config.num_inference_steps,
            guidance_scale=self._config.effective_guidance_scale,
            tiles=self._tiles(*noise.shape[3:]),
            parallel=self._settings.context,
            generator=generator,
            on_step=report,
        )
        return latents.cpu()

    def _tiles(self, height: int, width: int) -> tuple[Tile, ...]:
        """In latents; none if a tile holds the frame."""
        if self._config.tile_px is None:
            return ()
        tile_height, tile_width = (side // VAE_STRIDE for side in self._config.tile_px)
        tiles = plan_tiles(height, width, tile_height=tile_height, tile_width=tile_width)
        return tiles if len(tiles) > 1 else ()


def plan_processes(job: GenerationJob, num_gpus: int) -> ParallelPlan:
    """How a job is shared out among processes.

    Raises:
        ConfigError: it cannot be, among so many.
    """
    return plan_parallel(
        num_gpus,
        uses_guidance=job.config.effective_guidance_scale > 1,
        num_heads=_transformer_config(find_weights(job.config))["num_attention_heads"],
        num_tokens=_workload(job.config, job).num_tokens,
    )


@contextmanager
def open_engine(
    job: GenerationJob, settings: EngineSettings, *, reporter: Reporter, timings: dict[str, float]
) -> Iterator[Engine]:
    """An engine for a job, loaded; its memory is free again after the block."""
    engine = Engine(job, settings, reporter)
    try:
        engine.load(timings)
        yield engine
    finally:
        engine.close()


def _version(package: str) -> str:
    try:
        return version(package)
    except ModuleNotFoundError:
        return "not installed"
