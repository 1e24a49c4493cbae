"""Is a folder of weights whole and of the right kind? Reads headers, and hashes what a manifest lists."""

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ex4d.errors import WeightsError
from ex4d.weights.files import sha256_file, tensor_shapes
from ex4d.weights.folders import MANIFEST
from ex4d.weights.headers import SAFETENSORS, read_header, read_index, read_json
from ex4d.weights.manifest import Manifest, read_manifest

_BASE = "Wan2.1-I2V-14B (480P or 720P)"
_EXPECTED: Mapping[str, Any] = {
    "in_channels": 36, "out_channels": 16, "num_layers": 40, "num_attention_heads": 40, "attention_head_dim": 128,
    "ffn_dim": 13824, "text_dim": 4096, "image_dim": 1280,
}  # fmt: skip
"""Of ``transformer/config.json``; 40 heads of 128 make the width 5120."""
_PARTS_WITH_WEIGHTS = ("transformer", "vae", "text_encoder", "image_encoder")
_PARTS = (*_PARTS_WITH_WEIGHTS, "tokenizer", "scheduler")
_ADAPTER_FILES = (
    "geometry_encoder/config.json",
    "geometry_encoder/diffusion_pytorch_model.safetensors",
    "lora/lora.json",
    "lora/lora.safetensors",
)

Kind = Literal["base", "adapter", "tensors"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What `verify_folder` found.

    Attributes:
        kind: ``base`` (with an adapter in it or not), ``adapter`` or ``tensors`` (single files).
        num_files: files looked at.
        num_tensors: tensors in their safetensors headers.
        num_hashed: files whose SHA-256 was compared with the manifest's.
        problems: what is wrong, a sentence each; empty: all is well.
    """

    kind: Kind
    num_files: int
    num_tensors: int
    num_hashed: int
    problems: tuple[str, ...]


def check_base_config(config: Mapping[str, Any]) -> None:
    """Refuse a transformer other than Wan2.1-I2V-14B's, which EX-4D's adapter does not fit.

    Args:
        config: content of a diffusers ``transformer/config.json``.

    Raises:
        WeightsError: names the model that it is, where it is a known one.
    """
    wrong = {name: config.get(name) for name, value in _EXPECTED.items() if config.get(name) != value}
    # the first-and-last-frame model has the same sizes, and a position embedding for two pictures
    if not wrong and not config.get("pos_embed_seq_len"):
        return
    told = ", ".join(f"{name} {value}" for name, value in wrong.items()) or "two conditioning pictures"
    raise WeightsError(
        f"the transformer of {_BASE}",
        f"{name_model(config)} ({told})",
        "ex4d weights pull 480p, or name a folder of Wan2.1-I2V-14B",
    )


def name_model(config: Mapping[str, Any]) -> str:
    """The model that the config of a Wan transformer belongs to, as its people call it."""
    channels, heads = config.get("in_channels"), config.get("num_attention_heads")
    if channels is None or heads is None:
        return "another kind of model"
    if "vace" in str(config.get("_class_name", "")).lower() or "vace_layers" in config:
        return "a VACE model of Wan2.1"
    if channels == 48 and heads == 24:
        return "the 5B model of Wan2.2 (TI2V-5B)"
    if heads == 12:
        return "a 1.3B model" + (" for text to video (T2V-1.3B)" if channels == 16 else "")
    if channels == 16:
        return "a text-to-video model (T2V-14B)"
    if channels == 36 and config.get("image_dim") is None:
        return "an image-to-video model of Wan2.2 (I2V-A14B)"
    if channels == 36 and config.get("pos_embed_seq_len"):
        return "the first-and-last-frame model (FLF2V-14B)"
    return "another model"


def verify_folder(folder: Path, *, on_file: Callable[[str], None] | None = None) -> Report:
    """Check a folder of weights as thoroughly as can be done without loading it.

    Sizes and SHA-256 of what its manifest lists (hashed anew); every safetensors header against its file's size and
    its index; the parts and the base of a diffusers folder; the parts of an adapter.

    Args:
        folder: a diffusers folder, an adapter folder, any folder of safetensors, or a file of tensors.
        on_file: told the name of each file before it is hashed.

    Raises:
        WeightsError: nothing of that kind there, or an unreadable file. What is wrong in a folder is in the report.
    """
    if folder.is_file():
        return Report(kind="tensors", num_files=1, num_tensors=len(tensor_shapes(folder)), num_hashed=0, problems=())
    shards = [path for path in sorted(folder.rglob(f"*{SAFETENSORS}")) if path.is_file()]
    shards = [path for path in shards if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    if not shards and not (folder / MANIFEST).exists():
        raise WeightsError(f"weights in {folder}", "neither safetensors nor a manifest", "check the path")
    problems: list[str] = []
    manifest = Manifest(files={})
    with _noting(problems):
        manifest = read_manifest(folder) or manifest
    problems += _manifest_problems(folder, manifest, on_file)
    names: dict[Path, set[str]] = {}
    for shard in shards:
        with _noting(problems):
            names[shard] = set(read_header(shard))
    problems += _index_problems(folder, names)
    is_base = (folder / "model_index.json").exists()
    is_adapter = any((folder / name).is_dir() for name in ("geometry_encoder", "lora"))
    problems += [*(_base_problems(folder) if is_base else ()), *(_adapter_problems(folder) if is_adapter else ())]
    return Report(
        kind="base" if is_base else "adapter" if is_adapter else "tensors",
        num_files=len({*shards, *(folder / name for name in manifest.files)}),
        num_tensors=sum(len(tensors) for tensors in names.values()),
        num_hashed=len(manifest.files),
        problems=tuple(dict.fromkeys(problems)),
    )


@contextlib.contextmanager
def _noting(problems: list[str]) -> Generator[None, None, None]:
    """A `WeightsError` of the block becomes a problem of the report."""
    try:
        yield
    except WeightsError as error:
        problems.append(str(error))


def _manifest_problems(folder: Path, manifest: Manifest, on_file: Callable[[str], None] | None) -> Iterator[str]:
    for name, record in manifest.files.items():
        path = folder / name
        if not path.is_file():
            yield f"{path} is missing"
        elif path.stat().st_size != record.size:
            yield f"{path} has {path.stat().st_size} bytes, not {record.size}"
        else:
            if on_file is not None:
                on_file(name)
            if sha256_file(path, remembered=False) != record.sha256:
                yield f"{path} has another content than when it was written (SHA-256 differs)"


def _index_problems(folder: Path, names: Mapping[Path, set[str]]) -> Iterator[str]:
    """Every index names the shards that are there, and exactly the tensors that they hold."""
    for index in sorted(folder.rglob(f"*{SAFETENSORS}.index.json")):
        problems: list[str] = []
        with _noting(problems):
            weight_map = read_index(index)
            for shard in sorted(set(weight_map.values())):
                path = index.with_name(shard)
                listed = {tensor for tensor, holder in weight_map.items() if holder == shard}
                if not path.is_file():
                    problems.append(f"{path}, a shard that {index.name} lists, is missing")
                elif path in names:
                    problems += _difference(path, listed, names[path])
        yield from problems


def _difference(path: Path, listed: set[str], held: set[str]) -> Iterator[str]:
    for text, tensors in (("lacks", listed - held), ("holds unlisted", held - listed)):
        if tensors:
            yield f"{path} {text} {len(tensors)} of the index's tensors, e.g. {min(tensors)}"


def _base_problems(folder: Path) -> Iterator[str]:
    problems: list[str] = []
    with _noting(problems):
        parts = read_json(folder / "model_index.json")
        problems += [f"{folder / 'model_index.json'} names no {part}" for part in _PARTS if not parts.get(part)]
    with _noting(problems):
        check_base_config(read_json(folder / "transformer" / "config.json"))
    for part in _PARTS_WITH_WEIGHTS:
        if not any((folder / part).glob(f"*{SAFETENSORS}")):
            problems.append(f"{folder / part} has no safetensors")
        elif not (folder / part / "config.json").is_file():
            problems.append(f"{folder / part / 'config.json'} is missing")
    if not any((folder / "tokenizer").glob("*")):
        problems.append(f"{folder / 'tokenizer'} is missing or empty")
    yield from problems


def _adapter_problems(folder: Path) -> Iterator[str]:
    for name in _ADAPTER_FILES:
        if not (folder / name).is_file():
            yield f"{folder / name} is missing"
