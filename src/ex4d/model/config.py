"""`GenerateConfig`: everything that decides what the diffusion model makes of a prior. Imports no torch."""

import re
from dataclasses import dataclass
from typing import Literal

from ex4d.errors import ConfigError
from ex4d.model.windows import plan_windows

PROMPT = "4K ultra HD, surround motion, realistic tone, panoramic shot, wide-angle view, cinematic quality"
"""What EX-4D was trained and released with."""

NEGATIVE_PROMPT = (
    "Bright tones, overexposed, static, blurred details, subtitles, style, works, paintings, images, static, "
    "overall gray, worst quality, low quality, JPEG compression residue, ugly, incomplete, extra fingers, "
    "poorly drawn hands, poorly drawn faces, deformed, disfigured, misshapen limbs, fused fingers, still picture, "
    "messy background, three legs, many people in the background, walking backwards"
)
"""Wan's own, which EX-4D keeps."""

TINY = "tiny"
"""The name of the random miniature, as `weights`."""

Preset = Literal["official", "balanced", "draft"]
Attention = Literal["auto", "native", "cudnn", "flash", "flash3", "sage"]
StepCache = Literal["auto", "none", "first-block"]
Switch = Literal["auto", "on", "off"]
Plan = Literal["auto", "bf16", "fp8", "int8", "gguf", "offload", "cpu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateConfig:
    """Settings of the diffusion model.

    Attributes:
        weights: Wan2.1-I2V-14B: a name (see `ex4d weights list`) or a diffusers folder; tiny: random miniature.
        adapter: EX-4D's adapter, a folder; auto: the pulled one, or the one inside the weights.
        preset: official: 25 steps, CFG 5, as released; balanced: the same, faster; draft: 4 steps, unproven.
        prompt: what to show.
        negative_prompt: what to avoid; unused without guidance.
        steps: denoising steps, 1 to 1000; 0: the preset's.
        guidance_scale: CFG scale, at least 1; 1: no guidance, half the work; 0: the preset's.
        shift: of the noise schedule, above 0.
        size: HxW px, multiples of 16; auto: the clip's aspect, about 512x512 pixels.
        square: squash to 512x512, as the release does.
        erode_px: side of the kernel that shrinks observed areas, 1 (none) to 99; official: 2 to 8, drawn a frame.
        mask_quirk: the mask is given as -3/+1, as the release does and its weights expect; without: as -1/+1.
        window_frames: frames generated at a time, 4k+1.
        overlap_frames: frames that windows of a long clip share, 4k+1.
        tile: HxW px: denoise and decode large frames in tiles of this size; off: whole frames.
        output_size: model, or source to scale the result to the clip's size.
        max_vram: GiB of GPU memory to stay within; auto: what is free.
        plan: memory plan; auto: the best that fits.
        fallback: out of memory, the next smaller plan is tried; without: an error.
        attention: implementation of attention; auto: the preset's.
        compile: compile the transformer's blocks; auto: the preset's.
        cache: reuse of computation between steps; auto: the preset's.
        fuse_lora: add the LoRA to the weights instead of computing it beside them; auto: the preset's and plan's.
        vae_dtype: precision of the VAE; the release's is bf16.
    """

    weights: str = "480p"
    adapter: str = "auto"
    preset: Preset = "official"
    prompt: str = PROMPT
    negative_prompt: str = NEGATIVE_PROMPT
    steps: int = 0
    guidance_scale: float = 0.0
    shift: float = 5.0
    size: str = "auto"
    square: bool = False
    erode_px: str = "5"
    mask_quirk: bool = True
    window_frames: int = 49
    overlap_frames: int = 9
    tile: str = "off"
    output_size: Literal["model", "source"] = "model"
    max_vram: str = "auto"
    plan: Plan = "auto"
    fallback: bool = True
    attention: Attention = "auto"
    compile: Switch = "auto"
    cache: StepCache = "auto"
    fuse_lora: Switch = "auto"
    vae_dtype: Literal["fp32", "bf16"] = "fp32"

    def __post_init__(self) -> None:
        if not self.weights:
            raise ConfigError("--weights tiny, a folder or a name", "nothing", "see `ex4d weights list`")
        for name, value, allowed in (
            ("--preset", self.preset, Preset),
            ("--attention", self.attention, Attention),
            ("--plan", self.plan, Plan),
            ("--compile", self.compile, Switch),
            ("--cache", self.cache, StepCache),
            ("--fuse-lora", self.fuse_lora, Switch),
        ):
            _one_of(name, value, allowed.__args__)
        _one_of("--output-size", self.output_size, ("model", "source"))
        _one_of("--vae-dtype", self.vae_dtype, ("fp32", "bf16"))
        if not 0 <= self.steps <= 1000:
            raise ConfigError("--steps from 1 to 1000, or 0 for the preset's", str(self.steps))
        if self.guidance_scale != 0 and not 1 <= self.guidance_scale <= 100:
            raise ConfigError("--guidance-scale from 1 (no guidance) to 100, or 0", str(self.guidance_scale))
        if not 0 < self.shift <= 100:
            raise ConfigError("--shift above 0, at most 100", str(self.shift))
        if self.size_px is not None and self.square:
            raise ConfigError("one of --size and --square", "both", "drop one of them")
        self.tile_px  # noqa: B018 - raises
        if self.erode_px != "official" and not (
            self.erode_px.isascii() and self.erode_px.isdigit() and 1 <= int(self.erode_px) <= 99
        ):
            raise ConfigError("--erode-px official or 1 to 99", repr(self.erode_px), "1 erodes nothing")
        self.max_vram_gib  # noqa: B018 - raises
        plan_windows(1, window_frames=self.window_frames, overlap_frames=self.overlap_frames)

    @property
    def max_vram_gib(self) -> float | None:
        """`max_vram` as a number; None = what is free."""
        if self.max_vram == "auto":
            return None
        try:
            value = float(self.max_vram)
        except ValueError:
            value = 0.0
        if not 1 <= value <= 10_000:
            raise ConfigError("--max-vram auto or GiB from 1 to 10000", repr(self.max_vram))
        return value

    @property
    def num_inference_steps(self) -> int:
        """`steps`, or the preset's: 25, draft 4; the miniature's are 4."""
        short = self.preset == "draft" or self.weights == TINY
        return self.steps or (4 if short else 25)

    @property
    def effective_guidance_scale(self) -> float:
        """`guidance_scale`, or the preset's: 5, draft 1."""
        return self.guidance_scale or (1.0 if self.preset == "draft" else 5.0)

    @property
    def size_px(self) -> tuple[int, int] | None:
        """(height, width) of `size`; None = auto."""
        return None if self.size == "auto" else _parse_size("--size auto or", self.size)

    @property
    def tile_px(self) -> tuple[int, int] | None:
        """(height, width) of `tile`; None = off."""
        tile = None if self.tile == "off" else _parse_size("--tile off or", self.tile)
        if tile is not None and min(tile) < 32:
            raise ConfigError("--tile of at least 32x32 px", self.tile, "smaller ones cannot overlap")
        return tile


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} {', '.join(allowed[:-1])} or {allowed[-1]}", repr(value))


def _parse_size(name: str, text: str) -> tuple[int, int]:
    """(height, width) of ``HxW``.

    Raises:
        ConfigError: not of that form, or sides that are no multiples of 16 from 16 to 8192.
    """
    match = re.fullmatch(r"(\d{1,5})[xX×](\d{1,5})", text)
    sides = tuple(int(group) for group in match.groups()) if match else ()
    if len(sides) != 2 or any(side % 16 or not 16 <= side <= 8192 for side in sides):
        raise ConfigError(f"{name} HxW in multiples of 16 px, e.g. 512x512", repr(text), "the VAE and patches need 16")
    return sides[0], sides[1]
