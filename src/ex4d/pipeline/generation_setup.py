"""What a generation needs, found and checked before the long work: packages, weights, GPU memory."""

import importlib.util

from ex4d.errors import MissingDependencyError
from ex4d.model.config import GenerateConfig
from ex4d.pipeline.weight_paths import WeightPaths, find_weights

PACKAGES = (
    *("torch", "diffusers", "transformers", "peft", "accelerate", "huggingface_hub", "safetensors", "tokenizers"),
    *("ftfy", "sentencepiece"),
)


def check_generation(config: GenerateConfig) -> WeightPaths:
    """Find out what can be known before a long run: packages, weights (headers only), a plan for this machine.

    Raises:
        MissingDependencyError: the extra ``gen`` is not installed.
        WeightsError, ConfigError, OutOfMemoryError: what is missing, wrong or too small.
    """
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(package, "gen", "generation with the diffusion model")
    weights = find_weights(config)
    from ex4d.model.acceleration import check_attention, check_compiler
    from ex4d.model.presets import resolve_acceleration
    from ex4d.pipeline.engine import choose_for, inspect_for

    if weights.adapter is not None:
        from ex4d.model.adapter import check_adapter
        from ex4d.model.components import check_folder
        from ex4d.model.tiny import empty_tiny_transformer

        transformer = empty_tiny_transformer() if weights.base is None else check_folder(weights.base)
        assert transformer is not None
        check_adapter(weights.adapter, transformer)
    machine = inspect_for(weights)
    choice, _, _ = choose_for(config, weights, machine, job=None)
    check_attention(config.attention, machine.device)
    if resolve_acceleration(config, choice.plan.name).compile:
        check_compiler(machine.device)
    return weights
