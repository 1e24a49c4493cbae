"""What a preset does for speed, and the schedule that step caches are timed with. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ex4d.errors import ConfigError
from ex4d.model.config import Attention, GenerateConfig, Preset, Switch
from ex4d.model.estimates import PlanName


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceleration:
    """How the transformer is computed.

    Attributes:
        attention: implementation; ``auto`` = PyTorch's own choice for the device.
        compile: compile the blocks.
        cache: reuse of computation between steps.
        fuse_lora: LoRAs are part of the weights.
    """

    attention: Attention
    compile: bool
    cache: Literal["none", "first-block"]
    fuse_lora: bool


PRESETS: Mapping[Preset, Acceleration] = {
    "official": Acceleration(attention="auto", compile=False, cache="none", fuse_lora=False),
    "balanced": Acceleration(attention="auto", compile=True, cache="first-block", fuse_lora=True),
    "draft": Acceleration(attention="auto", compile=False, cache="none", fuse_lora=True),
}
"""``draft`` skips no step, because distilled models have too few alike; compiling takes longer than its four steps."""


def resolve_acceleration(config: GenerateConfig, plan: PlanName) -> Acceleration:
    """The preset's choices, overruled by what the config says and by what the plan can.

    fp8 and int8 fuse unless told not to, so that LoRAs are quantised with the weights. GGUF weights can be neither
    fused nor compiled (diffusers 0.42: its packed tensors break when they are traced).

    Raises:
        ConfigError: fusing or compiling was asked for with GGUF weights.
    """
    preset = PRESETS[config.preset]
    for name, switch in (("--fuse-lora", config.fuse_lora), ("--compile", config.compile)):
        if plan == "gguf" and switch == "on":
            raise ConfigError(f"{name} auto or off with --plan gguf", "on", "use --plan fp8, int8 or offload")
    fuse = plan != "gguf" and (preset.fuse_lora or plan in ("fp8", "int8"))
    return Acceleration(
        attention=preset.attention if config.attention == "auto" else config.attention,
        compile=_switched(config.compile, preset.compile and plan != "gguf"),
        cache=preset.cache if config.cache == "auto" else config.cache,
        fuse_lora=_switched(config.fuse_lora, fuse),
    )


def _switched(switch: Switch, preset: bool) -> bool:
    return preset if switch == "auto" else switch == "on"


def fixed_schedule(num_inference_steps: int, *, skip: int = 1, warmup: float = 0.2) -> tuple[bool, ...]:
    """Which steps are computed (True) when a fixed share is skipped: for timing a step cache at a stated ratio.

    Args:
        num_inference_steps: at least 1.
        skip: steps skipped before each computed one.
        warmup: share of the steps at the start that is always computed, 0–1; one step at least.
    """
    first = max(int(warmup * num_inference_steps + 0.5), 1)
    return tuple(i < first or (i - first) % (skip + 1) == skip for i in range(num_inference_steps))
