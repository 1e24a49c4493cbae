"""Original files → weight folders: Wan's shards and .pth files → a diffusers folder, ``ex4d.ckpt`` → an adapter."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ex4d.errors import WeightsError
from ex4d.model.adapter import read_official_adapter, write_adapter
from ex4d.model.components import (
    BASE_COMPONENTS,
    TIED_EMBEDDING,
    TOKENIZER_FILES,
    ComponentName,
    expected_shapes,
    make_component,
    match_tensors,
    shipped_config,
    take,
)
from ex4d.model.key_maps import Kind, Source, recognise
from ex4d.model.transformer import EX4DTransformer3DModel
from ex4d.weights.files import read_tensors

Configs = Mapping[str, Mapping[str, Any]]
SHARD_BYTES = 5 * 10**9
TOKENIZER_FOLDER = "google/umt5-xxl"
"""Where Wan's own repository keeps umT5's tokenizer, beside its weights."""

_WHAT = {"transformer": "Wan's DiT", "vae": "Wan2.1_VAE.pth", "text_encoder": "umT5", "image_encoder": "CLIP"}


def convert_files(
    paths: Sequence[Path], output: Path, *, tokenizer: Path | None = None, configs: Configs | None = None
) -> tuple[str, ...]:
    """Convert original files, recognised by the names of their tensors.

    Everything is checked before anything is written. The four files of Wan2.1-I2V-14B make a base folder,
    ``ex4d.ckpt`` an adapter folder, all five a folder with both.

    Args:
        paths: files, or folders whose files are all taken.
        output: a new folder; on an error it may hold parts.
        tokenizer: umT5's tokenizer folder; default: ``google/umt5-xxl`` beside one of the files.
        configs: component (or ``lora``) → config; default: the shipped, full-size ones.

    Returns:
        The components written.

    Raises:
        WeightsError: files of no known kind, incomplete sets, or tensors that do not fit.
    """
    found = _read_all(paths)
    configs = {
        **{name: shipped_config(name) for name in (*BASE_COMPONENTS, "geometry_encoder", "lora")},
        **(configs or {}),
    }
    base: dict[ComponentName, dict[str, Tensor]] = {name: found[name] for name in BASE_COMPONENTS if name in found}
    missing = [_WHAT[name] for name in BASE_COMPONENTS if name not in found]
    if base and missing:
        raise WeightsError("all four parts of Wan2.1-I2V-14B", f"no {', no '.join(missing)}", "add those files")
    matched: dict[ComponentName, tuple[nn.Module, dict[str, Source]]] = {}
    for name, tensors in base.items():
        matched[name] = match_tensors(name, tensors, configs[name])
    adapter = None
    if "adapter" in found:
        meta = make_component("transformer", configs["transformer"])
        assert isinstance(meta, EX4DTransformer3DModel)
        adapter = read_official_adapter(
            found["adapter"], meta, encoder_config=configs["geometry_encoder"], lora_config=configs["lora"]
        )
    if base:
        folder = _find_tokenizer(paths, tokenizer)
        for name, (module, sources) in matched.items():
            _write_component(name, module, base[name], sources, output / name, configs[name])
        shutil.copytree(folder, output / "tokenizer")
        _write_index(output)
    if adapter is not None:
        write_adapter(output, *adapter)
    return (*base, *(("adapter",) if adapter else ()))


def _read_all(paths: Sequence[Path]) -> dict[Kind, dict[str, Tensor]]:
    """Kind → tensors of all its files (shards are joined)."""
    found: dict[Kind, dict[str, Tensor]] = {}
    for path in _files(paths):
        tensors = read_tensors(path)
        kind = recognise(tensors)
        if kind is None:
            some = ", ".join(sorted(tensors)[:3]) or "no tensors"
            raise WeightsError(f"weights of Wan2.1-I2V-14B or EX-4D in {path}", some, "check which file it is")
        known = found.setdefault(kind, {})
        twice = sorted(set(known) & set(tensors))
        if twice:
            raise WeightsError(f"every tensor once ({kind})", f"{twice[0]} again in {path}", "pass one set of files")
        known.update(tensors)
    return found


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix in (".safetensors", ".pth", ".ckpt", ".pt"))
            if not inside:
                raise WeightsError(f"weight files in {path}", "none", "name the files, or their folder")
            yield from inside
        else:
            yield path


def _find_tokenizer(paths: Sequence[Path], tokenizer: Path | None) -> Path:
    roots = [path if path.is_dir() else path.parent for path in paths]
    candidates = [tokenizer] if tokenizer else [root / TOKENIZER_FOLDER for root in roots]
    for folder in candidates:
        if any((folder / name).is_file() for name in TOKENIZER_FILES):
            return folder
    where = ", ".join(map(str, candidates))
    raise WeightsError(f"umT5's tokenizer ({TOKENIZER_FOLDER})", f"none in {where}", "pass its folder with --tokenizer")


def _write_component(
    name: ComponentName,
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    sources: Mapping[str, Source],
    folder: Path,
    config: Mapping[str, Any],
) -> None:
    """Shards of at most 5 GB, one in memory at a time, with config and index as diffusers and transformers expect."""
    folder.mkdir(parents=True)
    shapes = expected_shapes(module)
    stem = "model" if name in ("text_encoder", "image_encoder") else "diffusion_pytorch_model"
    shards = _plan_shards(name, tensors, {to: source for to, source in sources.items() if to != TIED_EMBEDDING})
    where: dict[str, str] = {}
    total = 0
    for number, shard in enumerate(shards, start=1):
        file = f"{stem}.safetensors" if len(shards) == 1 else f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors"
        state = {
            to: take(tensors, source, shapes[to]).to(_dtype(name, to, tensors[source.name])).contiguous().clone()
            for to, source in shard.items()
        }
        save_file(state, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(state, file)
        total += sum(tensor.nbytes for tensor in state.values())
    (folder / "config.json").write_text(json.dumps(dict(config), indent=2) + "\n", "utf-8")
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": where}
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")


def _plan_shards(
    name: ComponentName, tensors: Mapping[str, Tensor], sources: Mapping[str, Source]
) -> list[dict[str, Source]]:
    shards: list[dict[str, Source]] = [{}]
    size = 0
    for to, source in sources.items():
        tensor = tensors[source.name]
        num_bytes = tensor.numel() * _dtype(name, to, tensor).itemsize // (1 if source.third is None else 3)
        if shards[-1] and size + num_bytes > SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][to] = source
        size += num_bytes
    return shards


def _dtype(name: ComponentName, target: str, tensor: Tensor) -> torch.dtype:
    """The transformer is stored as it is used: bfloat16, but for what diffusers keeps in float32."""
    if name != "transformer":
        return tensor.dtype
    kept: Sequence[str] = EX4DTransformer3DModel._keep_in_fp32_modules or ()  # pyright: ignore[reportAssignmentType]
    return torch.float32 if any(part in target.split(".") for part in kept) else torch.bfloat16


def _write_index(output: Path) -> None:
    """``model_index.json``: the folder is a pipeline of diffusers, for stock Wan and for `EX4DPipeline`."""
    index = {
        "_class_name": "WanImageToVideoPipeline",
        "image_encoder": ["transformers", "CLIPVisionModel"],
        "image_processor": [None, None],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLWan"],
    }
    (output / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")
    scheduler = output / "scheduler"
    scheduler.mkdir()
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 5.0}
    (scheduler / "scheduler_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
