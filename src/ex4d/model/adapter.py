"""EX-4D's adapter: geometry encoder and LoRA, read strictly, attached, fused.

A folder holds ``geometry_encoder/`` and ``lora/lora.safetensors`` with ``lora/lora.json`` (rank, alpha).
"""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor, nn

from ex4d.errors import WeightsError
from ex4d.model.components import expected_shapes, fill_component, make_component, shipped_config
from ex4d.model.geometry_encoder import GeometryEncoder
from ex4d.model.key_maps import map_geometry_encoder, map_lora, original_lora_name
from ex4d.model.transformer import EX4DTransformer3DModel
from ex4d.weights.files import read_tensors, tensor_shapes
from ex4d.weights.headers import read_json
from ex4d.weights.strict import check_tensors

ADAPTER_NAME = "ex4d"
LORA_MODULES = (
    *(f"{attention}.{part}" for attention in ("attn1", "attn2") for part in ("to_q", "to_k", "to_v", "to_out.0")),
    "ffn.net.0.proj",
    "ffn.net.2",
)
"""In each block; the image keys and values of the cross-attention are not adapted."""
_LORA_FILE, _LORA_CONFIG = "lora/lora.safetensors", "lora/lora.json"
_ENCODER_FILE = "geometry_encoder/diffusion_pytorch_model.safetensors"
_ENCODER_CONFIG = "geometry_encoder/config.json"
ADAPTER_FILES = (_ENCODER_FILE, _ENCODER_CONFIG, _LORA_FILE, _LORA_CONFIG)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """Low-rank additions to the transformer's weights: W + (alpha / rank) B A.

    Attributes:
        tensors: ``<module>.lora_A.weight`` [rank, in] and ``<module>.lora_B.weight`` [out, rank]; distilled ones
            may have ``<module>.lora_B.bias`` [out].
        rank: of every addition.
        alpha: scale times rank.
    """

    tensors: Mapping[str, Tensor]
    rank: int
    alpha: float


def lora_shapes(transformer: EX4DTransformer3DModel, rank: int) -> dict[str, tuple[int, ...]]:
    """Name → shape of the LoRA tensors of a transformer: 20 a block, 800 at full size."""
    shapes: dict[str, tuple[int, ...]] = {}
    for index in range(transformer.config["num_layers"]):
        for module in LORA_MODULES:
            name = f"blocks.{index}.{module}"
            linear: Any = transformer.get_submodule(name)
            shapes[f"{name}.lora_A.weight"] = (rank, linear.in_features)
            shapes[f"{name}.lora_B.weight"] = (linear.out_features, rank)
    return shapes


def read_official_adapter(
    tensors: Mapping[str, Tensor],
    transformer: EX4DTransformer3DModel,
    *,
    encoder_config: Mapping[str, Any] | None = None,
    lora_config: Mapping[str, Any] | None = None,
) -> tuple[GeometryEncoder, Lora]:
    """Geometry encoder and LoRA of a flat ``ex4d.ckpt``.

    Args:
        tensors: the file's.
        transformer: what they belong to; its weights are not looked at (meta will do).
        encoder_config: default: the released encoder's.
        lora_config: ``rank`` and ``alpha``; default 16 and 16 as released.

    Raises:
        WeightsError: lists everything missing, left over, or of another shape or rank.
    """
    lora_config = lora_config or shipped_config("lora")
    encoder_config = encoder_config or shipped_config("geometry_encoder")
    sources = map_lora(tensors)
    encoder = {name: tensors[name] for name in map_geometry_encoder(tensors)}
    found = {to: tuple(tensors[source.name].shape) for to, source in sources.items()}
    found |= {name: tuple(tensor.shape) for name, tensor in encoder.items()}
    expected = lora_shapes(transformer, lora_config["rank"])
    names = {to: source.name for to, source in sources.items()}
    names |= {to: original_lora_name(to, tensors) for to in expected.keys() - names.keys()}
    expected |= expected_shapes(make_component("geometry_encoder", encoder_config))
    check_tensors(found, expected, what="EX-4D's LoRA and encoder", original_names=names)
    lora = Lora(tensors={to: tensors[source.name] for to, source in sources.items()}, **lora_config)
    return _fill_encoder(encoder, encoder_config, transformer), lora


def check_adapter(folder: Path, transformer: EX4DTransformer3DModel) -> tuple[int, float]:
    """Rank and alpha of an adapter folder; only headers are read.

    Raises:
        WeightsError: files missing, or tensors that do not belong to this transformer.
    """
    missing = [name for name in ADAPTER_FILES if not (folder / name).is_file()]
    if missing:
        fix = "make it with `ex4d weights convert ex4d.ckpt`, or `ex4d weights pull ex4d`"
        raise WeightsError(f"an EX-4D adapter in {folder}", f"{', '.join(missing)} missing", fix)
    config = read_json(folder / _LORA_CONFIG)
    try:
        rank, alpha = int(config["rank"]), float(config["alpha"])
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"rank and alpha in {folder / _LORA_CONFIG}", str(error), "convert the adapter again"
        ) from error
    check_tensors(tensor_shapes(folder / _LORA_FILE), lora_shapes(transformer, rank), what=f"EX-4D LoRA in {folder}")
    encoder = make_component("geometry_encoder", read_json(folder / _ENCODER_CONFIG))
    check_tensors(tensor_shapes(folder / _ENCODER_FILE), expected_shapes(encoder), what=f"geometry encoder in {folder}")
    _check_width(encoder, transformer)
    return rank, alpha


def read_adapter(folder: Path, transformer: EX4DTransformer3DModel) -> tuple[GeometryEncoder, Lora]:
    """Geometry encoder (float32) and LoRA of an adapter folder; raises as `check_adapter`."""
    rank, alpha = check_adapter(folder, transformer)
    config = read_json(folder / _ENCODER_CONFIG)
    encoder = _fill_encoder(read_tensors(folder / _ENCODER_FILE), config, transformer)
    return encoder, Lora(tensors=read_tensors(folder / _LORA_FILE), rank=rank, alpha=alpha)


def write_adapter(folder: Path, encoder: GeometryEncoder, lora: Lora) -> None:
    """Write an adapter folder."""
    encoder.save_pretrained(folder / "geometry_encoder")
    write_lora(folder, lora)


def write_lora(folder: Path, lora: Lora) -> None:
    """Write the LoRA's part of an adapter folder."""
    (folder / "lora").mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in lora.tensors.items()}, folder / _LORA_FILE)
    (folder / _LORA_CONFIG).write_text(json.dumps({"rank": lora.rank, "alpha": lora.alpha}, indent=2) + "\n", "utf-8")


def attach_lora(transformer: EX4DTransformer3DModel, lora: Lora, *, name: str = ADAPTER_NAME) -> None:
    """Compute a LoRA beside the weights; several add up. Its precision is `placement.place_transformer`'s to choose.

    Args:
        transformer: changed in place.
        lora: checked against the transformer before (`read_adapter`).
        name: of the adapter; `transformer.set_adapters` and `fuse_lora` take it.
    """
    targets = sorted({key.rsplit(".lora_", 1)[0] for key in lora.tensors})
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # pyright: ignore[reportArgumentType]
        target_modules=targets,
        lora_bias=any(key.endswith(".bias") for key in lora.tensors),
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`", UserWarning)  # several are meant
        transformer.add_adapter(config, adapter_name=name)  # with random values, which are overwritten below
    state = dict(transformer.named_parameters())
    with torch.no_grad():
        for key, tensor in lora.tensors.items():
            module, _, kind = key.rpartition(".")
            state[f"{module}.{name}.{kind}"].copy_(tensor)
    transformer.set_adapter(list(transformer.peft_config))  # add_adapter switched all others off
    transformer.requires_grad_(False)


def fuse_loras(transformer: EX4DTransformer3DModel) -> None:
    """Add all attached LoRAs to the weights and remove them: same result, no extra work in every step.

    Raises:
        ConfigError: weights that cannot be added to (GGUF).
    """
    if getattr(transformer, "peft_config", None):
        transformer.fuse_lora()
        transformer.unload_lora()


def _fill_encoder(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], transformer: EX4DTransformer3DModel
) -> GeometryEncoder:
    encoder = fill_component("geometry_encoder", tensors, config, dtype=torch.float32)
    _check_width(encoder, transformer)
    assert isinstance(encoder, GeometryEncoder)
    return encoder


def _check_width(encoder: nn.Module, transformer: EX4DTransformer3DModel) -> None:
    assert isinstance(encoder, GeometryEncoder)
    width = transformer.config["num_attention_heads"] * transformer.config["attention_head_dim"]
    if encoder.config["out_channels"] != width:
        raise WeightsError(
            f"an adapter for a transformer of width {width}",
            f"one for {encoder.config['out_channels']}",
            "EX-4D's adapter belongs to Wan2.1-I2V-14B",
        )
