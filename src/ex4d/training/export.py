"""From a run to weights that can be used and given away: our adapter folder, and the release's flat file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from ex4d.errors import WeightsError
from ex4d.model.adapter import Lora, write_adapter
from ex4d.model.geometry_encoder import GeometryEncoder
from ex4d.model.key_maps import original_lora_name
from ex4d.training.checkpoint import read_tensors_of
from ex4d.training.folder import RUN, list_checkpoints, read_run, run_config, step_of
from ex4d.training.model import adapter_of
from ex4d.weights.files import sha256_file
from ex4d.weights.folders import output_errors, staged_folder
from ex4d.weights.manifest import manifest_of, write_manifest

OFFICIAL = "official"
OfficialFormat = Literal["safetensors", "ckpt"]


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes:
        step: of the checkpoint.
        averaged: running averages of the weights, not those of the step itself.
    """

    step: int
    averaged: bool


def export_run(
    run: Path,
    output: Path,
    *,
    step: int | None = None,
    averaged: bool = True,
    official: tuple[OfficialFormat, ...] = (),
    overwrite: bool = False,
) -> Exported:
    """Write a run's adapter; nothing appears under the final name before it is whole.

    Args:
        run: folder of `ex4d train`.
        output: a new or empty folder; what ``ex4d generate --adapter`` takes.
        step: of the checkpoint; None = the newest.
        averaged: the running averages if the run has them, else the weights of the last step.
        official: also ``official/ex4d.*`` in the layout of the release's checkpoint.
        overwrite: replace the weights that are there.

    Raises:
        WeightsError: no run, no such checkpoint, or one that trained more than an adapter.
        OutputError: the folder is in the way, or cannot be written.
    """
    config = run_config(read_run(run))
    checkpoint = _find(run, step)
    averages = read_tensors_of(checkpoint, "ema") if averaged else {}
    tensors = averages or read_tensors_of(checkpoint, "model")
    encoder_tensors, lora_tensors = adapter_of(tensors)
    encoder = make_encoder(encoder_tensors)
    lora = Lora(tensors=lora_tensors, rank=config.model.rank, alpha=config.model.alpha)
    with staged_folder(output, overwrite=overwrite) as staged, output_errors(output):
        write_adapter(staged, encoder, lora)
        if official:
            (staged / OFFICIAL).mkdir()
            flat = official_tensors(encoder_tensors, lora)
            for kind in official:
                _write_flat(flat, staged / OFFICIAL / f"ex4d.{kind}", kind)
        write_manifest(staged, manifest_of(staged, sources={RUN: sha256_file(run / RUN)}))
    return Exported(step_of(checkpoint), bool(averages))


def official_tensors(encoder: Mapping[str, Tensor], lora: Lora) -> dict[str, Tensor]:
    """The flat ``ex4d.ckpt`` of the release: 8 tensors of the encoder, 20 a block of the LoRA (808 at full size).

    Its loaders take alpha / rank to be 1, so that another scale is put into the second matrices.
    """
    scale = lora.alpha / lora.rank
    flat = {name: tensor.contiguous() for name, tensor in encoder.items()}
    for name, tensor in lora.tensors.items():
        scaled = tensor * scale if ".lora_B." in name and scale != 1 else tensor
        flat[original_lora_name(name, ())] = scaled.contiguous()
    return flat


def make_encoder(tensors: Mapping[str, Tensor]) -> GeometryEncoder:
    """The geometry encoder that these tensors belong to; its sizes are theirs.

    Raises:
        WeightsError: tensors missing or left over.
    """
    try:
        hidden, channels = tensors["latent_encoder.0.weight"].shape[:2]
        width, _, *patch = tensors["latent_patch_embedding.weight"].shape
        encoder = GeometryEncoder(channels // 2, hidden, width, (patch[0], patch[1], patch[2]))
        encoder.load_state_dict(dict(tensors))
    except (KeyError, RuntimeError, ValueError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError("the tensors of a geometry encoder", reason, "use another checkpoint") from error
    return encoder


def _find(run: Path, step: int | None) -> Path:
    found = {step_of(path): path for path in list_checkpoints(run)}
    if not found or (step is not None and step not in found):
        wanted = "a checkpoint" if step is None else f"a checkpoint of step {step}"
        there = ", ".join(map(str, sorted(found))) or "none"
        raise WeightsError(f"{wanted} in {run}", there, "train further, or choose one that is there")
    return found[max(found) if step is None else step]


def _write_flat(tensors: Mapping[str, Tensor], path: Path, kind: OfficialFormat) -> None:
    if kind == "safetensors":
        save_file(dict(tensors), path, metadata={"format": "pt"})
    else:
        torch.save(dict(tensors), path)
