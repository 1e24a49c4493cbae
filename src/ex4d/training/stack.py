"""From weight folders to what is trained: the frozen base on its device, LoRA and encoder new or from an adapter."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from ex4d.errors import ConfigError
from ex4d.model.adapter import Lora, attach_lora, read_adapter
from ex4d.model.components import make_component
from ex4d.model.estimates import MemoryPlan
from ex4d.model.geometry_encoder import GeometryEncoder
from ex4d.model.placement import load_transformer, place_transformer
from ex4d.model.tiny import CONFIGS, make_tiny_pipeline
from ex4d.model.transformer import EX4DTransformer3DModel
from ex4d.model.wan_pipeline import EX4DPipeline
from ex4d.pipeline.stack import embed_texts
from ex4d.pipeline.weight_paths import WeightPaths
from ex4d.training.config import ModelConfig, TrainConfig
from ex4d.training.frozen_fp8 import store_in_fp8
from ex4d.training.model import TrainedModel, compute_in, fingerprint, new_encoder, new_lora, train_adapter
from ex4d.weights.files import describe_weights
from ex4d.weights.headers import read_json


@dataclass(frozen=True, slots=True)
class Stack:
    """What a run works with.

    Attributes:
        model: not shared out yet.
        pipe: the same transformer and encoder, with VAE and image encoder.
        identity: `model.fingerprint`.
    """

    model: TrainedModel
    pipe: EX4DPipeline
    identity: str


def load_training_stack(
    config: TrainConfig,
    weights: WeightPaths,
    device: torch.device,
    *,
    hashes: Mapping[str, str],
    encodes: bool = True,
) -> Stack:
    """The base of `weights` with an adapter to train: `weights.adapter`, or a new one that adds nothing yet.

    Args:
        config: what is trained.
        weights: base None = the random miniature.
        device: where it computes.
        hashes: of `hash_weights`.
        encodes: whether VAE and image encoder are needed in every step, and so stay on the device.

    Raises:
        WeightsError: anything that does not fit.
        ConfigError: ``model.trained = "all"``: only its makers train a whole model (`benchmarks/train_tiny.py`).
    """
    if config.model.trained == "all":
        raise ConfigError(
            'model.trained "adapter"', '"all"', "whole models are trained from Python, see docs/training.md"
        )
    if weights.base is None:
        pipe = make_tiny_pipeline(attach=False)
        transformer = pipe.transformer
        changes = {"hidden_channels": CONFIGS["geometry_encoder"]["hidden_channels"]}
        encoder, lora = _adapter(config, transformer, weights.adapter, changes)
        attach_lora(transformer, lora)
        place_transformer(transformer, _plan(config), device)
    else:
        transformer, encoder, lora = _load(config, weights.base, weights.adapter, device)
        pipe = EX4DPipeline.from_pretrained(
            weights.base, tokenizer=None, text_encoder=None, transformer=transformer, geometry_encoder=encoder
        )
    cast(nn.Module, encoder).to(device)
    pipe.register_modules(geometry_encoder=encoder)
    model = TrainedModel(transformer, encoder)
    train_adapter(model, lora)
    identity = fingerprint(model, hashes)
    ready_to_train(model, config.model, device)
    resident = ["transformer", "geometry_encoder"]
    if encodes:
        pipe.vae.to(device)
        pipe.image_encoder.to(device)
        resident += ["vae", "image_encoder"]
    return Stack(model, pipe.place(device, resident=resident), identity)


def ready_to_train(model: TrainedModel, config: ModelConfig, device: torch.device) -> None:
    """Frozen matrices in float8, precision and checkpointing as a config wants them; weights are there already."""
    if config.fp8_base:
        store_in_fp8(model.transformer, device)
    model.to(device)
    compute_in(model, config.precision, device)
    if config.checkpointing:
        model.transformer.enable_gradient_checkpointing()
    model.train()


def embed_captions(
    captions: Sequence[str], weights: WeightPaths, device: torch.device, *, hashes: Mapping[str, str]
) -> dict[str, Tensor]:
    """Caption → embedding [512,text_dim] on the CPU, by umT5, which is loaded, used and dropped."""
    if not captions:
        return {}
    embeds, _ = embed_texts(captions, weights, hashes, device)
    return {caption: embed[0].cpu() for caption, embed in zip(captions, embeds, strict=True)}


def _load(
    config: TrainConfig, base: Path, adapter: Path | None, device: torch.device
) -> tuple[EX4DTransformer3DModel, GeometryEncoder, Lora]:
    folder = base / "transformer"
    empty = cast(EX4DTransformer3DModel, make_component("transformer", read_json(folder / "config.json")))
    encoder, lora = _adapter(config, empty, adapter, {})
    # matrices that become float8 do so one block at a time, so that the device never holds the base in bfloat16
    first = torch.device("cpu") if config.model.fp8_base else device
    return load_transformer(folder, _plan(config), first, loras=[lora], fused=False), encoder, lora


def _plan(config: TrainConfig) -> MemoryPlan:
    return MemoryPlan(name="bf16", summary="for training", precision=config.model.precision)


def _adapter(
    config: TrainConfig, transformer: EX4DTransformer3DModel, folder: Path | None, changes: Mapping[str, int]
) -> tuple[GeometryEncoder, Lora]:
    if folder is None:
        model = config.model
        lora = new_lora(transformer, rank=model.rank, alpha=model.alpha, seed=config.seed)
        return new_encoder(transformer, seed=config.seed, **changes), lora
    encoder, lora = read_adapter(folder, transformer)
    if (lora.rank, lora.alpha) != (config.model.rank, config.model.alpha):
        got = f"rank {lora.rank} and alpha {lora.alpha:g} in {folder}"
        raise ConfigError("model.rank and model.alpha of the adapter to start from", got, "write them into the recipe")
    return encoder, lora


def hash_weights(weights: WeightPaths) -> dict[str, str]:
    """File → SHA-256 of the base, and of the adapter that training starts from."""
    found = {} if weights.base is None else describe_weights(weights.base)
    if weights.adapter is not None:
        found |= {f"adapter/{name}": digest for name, digest in describe_weights(weights.adapter).items()}
    return found
