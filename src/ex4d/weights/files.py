"""Tensors of local files, read without running code that is in them; and SHA-256 of large files, remembered."""

import contextlib
import hashlib
import os
import pickle
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ex4d.errors import MissingDependencyError, WeightsError
from ex4d.weights.folders import MANIFEST, cache_root
from ex4d.weights.headers import PICKLED, SAFETENSORS, check_not_a_page, read_header, read_index

if TYPE_CHECKING:
    from torch import Tensor

_WRAPPERS = ("state_dict", "module", "model")
"""Keys under which trainers nest the weights of a checkpoint."""
_HASHED_ANEW_BELOW = 1 << 24
"""Smaller files are hashed faster than a note about them is kept."""
_DESCRIBED = (SAFETENSORS, *PICKLED, ".gguf", ".json", ".txt", ".model")


def weight_files(path: Path) -> list[Path]:
    """The files that hold the tensors of one model.

    Args:
        path: a file, or a folder: the shards of its ``*.index.json``, else all its safetensors, else all its
            ``.pth``, ``.ckpt``, ``.pt`` and ``.bin`` (sub-folders are not looked into).

    Raises:
        WeightsError: nothing there, a shard is missing, or several indexes.
    """
    if not path.is_dir():
        check_not_a_page(path)
        return [path]
    indexes = sorted(path.glob(f"*{SAFETENSORS}.index.json"))
    if len(indexes) > 1:
        raise WeightsError(f"one model in {path}", f"{len(indexes)} indexes of shards", "name the files of one")
    if indexes:
        shards = [path / name for name in sorted(set(read_index(indexes[0]).values()))]
        lost = [shard.name for shard in shards if not shard.is_file()]
        if lost:
            raise WeightsError(
                f"{len(shards)} shards in {path}", f"{len(lost)} missing: {', '.join(lost)}", "download them"
            )
        return shards
    for suffixes in ((SAFETENSORS,), PICKLED):
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in suffixes and file.is_file())
        if files:
            return files
    kinds = ", ".join((SAFETENSORS, *PICKLED))
    raise WeightsError(f"files of weights ({kinds}) in {path}", "none", "name the folder that holds them")


def read_tensors(
    paths: str | Path | Iterable[str | Path], *, note: Callable[[str], None] | None = None
) -> dict[str, "Tensor"]:
    """The tensors of a file, of a folder (see `weight_files`) or of several shards.

    They stay on disk until used (memory-mapped; legacy ``torch.save`` files excepted), on the CPU, as stored.

    Args:
        paths: what to read; names must not repeat.
        note: told what was taken from where in a nested checkpoint.

    Raises:
        WeightsError: names the file and what is wrong: code in it, cut off, no weights, values that are no tensors.
        MissingDependencyError: no torch or safetensors.
    """
    tensors: dict[str, Tensor] = {}
    for file in _listed(paths):
        read = _read_safetensors(file) if _is_safetensors(file) else _read_pickled(file, note)
        twice = tensors.keys() & read.keys()
        if twice:
            raise WeightsError(
                "every tensor once",
                f"{len(twice)} a second time in {file}, e.g. {min(twice)}",
                "name the shards of one model only",
            )
        tensors |= read
    return tensors


def tensor_shapes(
    paths: str | Path | Iterable[str | Path], *, note: Callable[[str], None] | None = None
) -> dict[str, tuple[int, ...]]:
    """Shapes by name, without loading data; needs no torch for safetensors. Arguments and errors: `read_tensors`."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in _listed(paths):
        if _is_safetensors(file):
            shapes |= {name: info.shape for name, info in read_header(file).items()}
        else:
            shapes |= {name: tuple(tensor.shape) for name, tensor in _read_pickled(file, note).items()}
    return shapes


def _listed(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    given = [paths] if isinstance(paths, str | Path) else paths
    return [file for path in given for file in weight_files(Path(path))]


def _is_safetensors(path: Path) -> bool:
    """By suffix; anything else is `torch.save`'s or refused.

    Raises:
        WeightsError: another suffix.
    """
    suffix = path.suffix.lower()
    if suffix not in (SAFETENSORS, *PICKLED):
        kinds = ", ".join((SAFETENSORS, *PICKLED))
        raise WeightsError(f"weights as {kinds}", str(path), "name a file of such a kind")
    return suffix == SAFETENSORS


def _read_safetensors(path: Path) -> dict[str, "Tensor"]:
    read_header(path)
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise MissingDependencyError("safetensors", "gen", "reading weights") from error
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"readable tensors in {path}", str(error), "download it again") from error


def _read_pickled(path: Path, note: Callable[[str], None] | None) -> dict[str, "Tensor"]:
    check_not_a_page(path)
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError("torch", "gen", "reading weights") from error
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # a damaged one fails just below
            # only the zip format can be mapped; weights_only refuses whatever would run code
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # of a damaged file torch may raise anything
        raise _load_error(path, error) from error
    return _only_tensors(path, _unwrap(path, content, note))


def _load_error(path: Path, error: Exception) -> WeightsError:
    text = str(error)
    unsafe = isinstance(error, pickle.UnpicklingError) and re.search(r"GLOBAL (\S+)|reduce|instantiate|build", text)
    if unsafe:
        return WeightsError(
            f"nothing but tensors in {path}",
            f"Python objects ({unsafe[1] or 'of unknown kind'}) that could run code when loaded",
            "do not load this file; get the weights as safetensors, or a plain state dict from a source you trust",
        )
    reason = text.partition("WeightsUnpickler error:")[2] or text or type(error).__name__
    got = f"a file that is cut off, damaged or of another kind ({reason.strip().splitlines()[0][:200]})"
    return WeightsError(f"tensors that torch.save wrote in {path}", got, "download it again")


def _unwrap(path: Path, content: Any, note: Callable[[str], None] | None) -> Any:
    """The innermost of nested dicts; `note` hears of it."""
    while isinstance(content, Mapping):
        key = next((key for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if key is None:
            return content
        left = ", ".join(sorted(str(other) for other in content if other != key))
        if note is not None:
            note(f"{path}: took the weights from its {key!r}" + (f", left {left}" if left else ""))
        content = content[key]
    return content


def _only_tensors(path: Path, content: Any) -> dict[str, "Tensor"]:
    import torch

    if not isinstance(content, Mapping):
        raise WeightsError(f"tensors by name in {path}", f"a {type(content).__name__}", "pass a state dict")
    if not content:
        raise WeightsError(f"tensors by name in {path}", "none", "download it again")
    others = [str(name) for name, value in content.items() if not isinstance(value, torch.Tensor)]
    others += [repr(name) for name in content if not isinstance(name, str)]
    if others:
        shown = ", ".join(others[:5]) + (" …" if len(others) > 5 else "")
        raise WeightsError(f"nothing but tensors in {path}", f"other values: {shown}", "pass a plain state dict")
    return dict(content)


def sha256_file(path: Path, *, remembered: bool = True) -> str:
    """Hex SHA-256 of a file.

    Args:
        path: the file.
        remembered: use what was kept for this file, size and time of change (33 GB take a minute to hash); False
            hashes anew.

    Raises:
        WeightsError: it cannot be read.
    """
    try:
        stat = path.stat()
        known = _remembered_at(path, stat)
        if remembered and stat.st_size >= _HASHED_ANEW_BELOW:
            with contextlib.suppress(OSError):
                found = known.read_text("ascii")
                if len(found) == 64:
                    return found
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"to be able to read {path}", error.strerror or str(error), "check the path") from error
    if stat.st_size >= _HASHED_ANEW_BELOW:
        with contextlib.suppress(OSError):  # without a writable cache it is hashed again next time
            known.parent.mkdir(parents=True, exist_ok=True)
            temporary = known.with_suffix(f".{os.getpid()}.tmp")
            temporary.write_text(digest, "ascii")
            temporary.replace(known)
    return digest


def _remembered_at(path: Path, stat: os.stat_result) -> Path:
    # by inode, not by folder: a finished conversion is renamed after it was hashed
    key = f"{path.name}\n{stat.st_dev}\n{stat.st_ino}\n{stat.st_size}\n{stat.st_mtime_ns}"
    return cache_root() / "sha256" / hashlib.blake2b(key.encode(errors="surrogateescape"), digest_size=16).hexdigest()


def describe_weights(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of weights, configuration and tokenizer, for provenance.

    Args:
        folder: a folder of weights, or one file.

    Returns:
        Path relative to the folder, with ``/`` → hex digest, sorted.

    Raises:
        WeightsError: nothing there.
    """
    if folder.is_file():
        return {folder.name: sha256_file(folder)}
    inside = {path.relative_to(folder): path for path in folder.rglob("*") if path.suffix.lower() in _DESCRIBED}
    files = {
        name.as_posix(): path
        for name, path in inside.items()
        if path.is_file() and name.name != MANIFEST and not any(part.startswith(".") for part in name.parts)
    }
    if not files:
        raise WeightsError(f"weights in {folder}", "no such files", "check the path")
    return {name: sha256_file(files[name]) for name in sorted(files)}
