"""The network that is trained: transformer and geometry encoder as one module, and which of its weights may change."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ex4d.core.seeding import make_rng
from ex4d.errors import WeightsError
from ex4d.model.adapter import ADAPTER_NAME, Lora, lora_shapes
from ex4d.model.branch import PriorLatents
from ex4d.model.components import shipped_config
from ex4d.model.geometry_encoder import GeometryEncoder
from ex4d.model.sampling import NUM_TRAIN_TIMESTEPS
from ex4d.model.transformer import EX4DTransformer3DModel
from ex4d.training.config import Precision

FULL_SIZE_PARAMS = (23_109_632, 76_677_120)
"""Of the geometry encoder and of the LoRA (rank 16) of Wan2.1-I2V-14B, counted from the release."""

_TRANSFORMER, _ENCODER = "transformer.", "geometry_encoder."


class TrainedModel(nn.Module):
    """Transformer and geometry encoder, called once a micro-batch.

    Args:
        transformer: with its LoRA beside the weights, if that is what is trained.
        encoder: computes in float32, as at inference.
    """

    def __init__(self, transformer: EX4DTransformer3DModel, encoder: GeometryEncoder) -> None:
        super().__init__()
        self.transformer, self.geometry_encoder = transformer, encoder

    def forward(
        self,
        noisy: Tensor,
        sigmas: Tensor,
        *,
        text: Tensor,
        color: Tensor,
        observed: Tensor,
        image: Tensor,
        image_embeds: Tensor | None = None,
        prior_kept: Tensor | None = None,
    ) -> Tensor:
        """The transformer's output [B,C,t,h,w].

        Args:
            noisy: float32 [B,C,t,h,w].
            sigmas: float32 [B].
            text: [B,512,text_dim].
            color: as `observed`, `image` and `image_embeds` a field of `PriorLatents`.
            observed: see `color`.
            image: see `color`.
            image_embeds: see `color`.
            prior_kept: float32 [B]: 0 = nothing is added to the patch embedding, 1 = the geometry latents are.
        """
        seen = PriorLatents(color=color, observed=observed, image=image, image_embeds=image_embeds)
        given = seen.condition(self.geometry_encoder)
        geometry = given.geometry_latents
        if prior_kept is not None and geometry is not None:
            geometry = geometry * prior_kept.view(-1, 1, 1, 1, 1)
        dtype = self.transformer.compute_dtype
        output = self.transformer(
            hidden_states=torch.cat([noisy, given.image_latents], dim=1).to(dtype),
            timestep=NUM_TRAIN_TIMESTEPS * sigmas,
            encoder_hidden_states=text.to(dtype),
            encoder_hidden_states_image=None if image_embeds is None else image_embeds.to(dtype),
            geometry_latents=geometry,
            return_dict=False,
        )[0]
        return output.clone()  # FSDP2 may not be given a view


def new_lora(transformer: EX4DTransformer3DModel, *, rank: int, alpha: float, seed: int) -> Lora:
    """A LoRA that adds nothing yet: A uniform in ±1/√in (PEFT's choice), B zero; float32 on the CPU."""
    tensors: dict[str, Tensor] = {}
    for name, shape in lora_shapes(transformer, rank).items():
        if ".lora_B." in name:
            tensors[name] = torch.zeros(shape)
            continue
        generator = torch.Generator().manual_seed(int(make_rng(seed, "lora", name).integers(2**63)))
        tensors[name] = (torch.rand(shape, generator=generator) * 2 - 1) / math.sqrt(shape[1])
    return Lora(tensors=tensors, rank=rank, alpha=alpha)


def new_encoder(transformer: EX4DTransformer3DModel, *, seed: int, **changes: Any) -> GeometryEncoder:
    """A geometry encoder that adds nothing yet (its last convolution is zero), float32 on the CPU."""
    width = transformer.config["num_attention_heads"] * transformer.config["attention_head_dim"]
    sizes = {"in_channels": transformer.config["out_channels"], "patch_size": transformer.config["patch_size"]}
    config = {**shipped_config("geometry_encoder"), **sizes, "out_channels": width, **changes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(make_rng(seed, "geometry encoder").integers(2**63)))
        return GeometryEncoder(**{key: value for key, value in config.items() if not key.startswith("_")})


def train_adapter(model: TrainedModel, lora: Lora) -> None:
    """Let the geometry encoder and the LoRA change, in float32, and nothing else.

    Args:
        model: its transformer has the LoRA attached, in whatever precision.
        lora: the values to start from.
    """
    model.requires_grad_(False)
    for name, tensor in lora.tensors.items():
        module, _, kind = name.rpartition(".")
        owner = model.transformer.get_submodule(f"{module}.{ADAPTER_NAME}")
        device = getattr(owner, kind).device
        setattr(owner, kind, nn.Parameter(tensor.detach().float().to(device, copy=True)))
    model.geometry_encoder.float().requires_grad_(True)


def compute_in(model: TrainedModel, precision: Precision, device: torch.device) -> None:
    """Matrices of the blocks are multiplied in this precision, whatever that of their LoRA; the rest is as stored."""
    if precision == "bf16":
        autocast = torch.autocast(device.type, dtype=torch.bfloat16)
        for block in model.transformer.blocks:
            block.forward = autocast(block.forward)


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name → parameter of all that may change, in a fixed order."""
    return {name: value for name, value in sorted(model.named_parameters()) if value.requires_grad}


def adapter_of(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Trained tensors by their names in `TrainedModel` → (geometry encoder's, LoRA's) by the names of an adapter.

    Raises:
        WeightsError: tensors of neither: the run trained more than an adapter.
    """
    encoder: dict[str, Tensor] = {}
    lora: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.startswith(_ENCODER):
            encoder[name.removeprefix(_ENCODER)] = tensor
        elif ".lora_" in name:
            lora[name.removeprefix(_TRANSFORMER).replace(f".{ADAPTER_NAME}.", ".")] = tensor
        else:
            raise WeightsError("a run that trained an adapter", f"the base weight {name}", "only adapters are exported")
    return encoder, lora


def count_trained(model: nn.Module) -> tuple[int, int]:
    """Trained parameters of the geometry encoder and of everything else."""
    sizes = [(name.startswith(_ENCODER), value.numel()) for name, value in trained_parameters(model).items()]
    return sum(size for inside, size in sizes if inside), sum(size for inside, size in sizes if not inside)


def check_counts(model: TrainedModel) -> bool:
    """Whether as many parameters are trained as the release has; False for models and ranks that it has not.

    Raises:
        WeightsError: the release's model and rank, and another number: a layer was added or left out.
    """
    config, full = model.transformer.config, shipped_config("transformer")
    ranks = {value.shape[0] for name, value in trained_parameters(model).items() if ".lora_A." in name}
    sizes = ("num_layers", "num_attention_heads", "attention_head_dim", "ffn_dim")
    if any(config[name] != full[name] for name in sizes) or ranks != {shipped_config("lora")["rank"]}:
        return False
    counts = count_trained(model)
    if counts != FULL_SIZE_PARAMS:
        raise WeightsError(f"{FULL_SIZE_PARAMS} trained parameters in encoder and LoRA", str(counts))
    return True


def fingerprint(model: TrainedModel, hashes: Mapping[str, str]) -> str:
    """Hex digest of what a checkpoint belongs to: names and shapes of all weights, and the frozen ones' files.

    Args:
        model: before it is shared out.
        hashes: file → SHA-256 of the base's files; {} for a base that is made from a seed.
    """
    shapes = list(_shapes(model))
    return hashlib.sha256(json.dumps([shapes, sorted(hashes.items())]).encode()).hexdigest()


def _shapes(model: nn.Module) -> Iterator[tuple[str, list[int], bool]]:
    for name, value in sorted(model.named_parameters()):
        yield name, list(value.shape), value.requires_grad
