"""What a file of weights says about itself, read without torch and without its data: kind, names, shapes."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ex4d.errors import WeightsError

SAFETENSORS = ".safetensors"
PICKLED = (".pth", ".ckpt", ".pt", ".bin")
"""Suffixes of what `torch.save` wrote."""

_MAX_HEADER_BYTES = 100_000_000
"""As the safetensors format itself limits it."""
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
_AGAIN = "download it again"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """One tensor of a safetensors header: its type there (``BF16`` …) and shape."""

    dtype: str
    shape: tuple[int, ...]


def check_not_a_page(path: Path) -> None:
    """Refuse what downloads leave instead of weights: nothing, an LFS pointer, a web page, a JSON error.

    Raises:
        WeightsError: says which.
    """
    if not path.is_file():
        raise WeightsError(f"a file of weights at {path}", "a folder" if path.is_dir() else "nothing", "check the path")
    try:
        with path.open("rb") as file:
            start = file.read(512).lstrip().lower()
    except OSError as error:
        raise WeightsError(f"to be able to read {path}", error.strerror or str(error), "check permissions") from error
    expected = f"weights in {path}"
    if not start:
        raise WeightsError(expected, "an empty file", _AGAIN)
    if start.startswith(b"version https://git-lfs"):
        raise WeightsError(expected, "a Git LFS pointer to them", "run `git lfs pull`, or download the file itself")
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise WeightsError(expected, "a web page", f"{_AGAIN}: the link led to a page, not to the file")
    if start.startswith((b'{"error', b"{'error", b"not found", b"invalid username")):
        raise WeightsError(expected, "an error message of a server", f"{_AGAIN}, logged in if the file needs it")


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Names, types and shapes of a safetensors file, checked against each other and against the file's size.

    Raises:
        WeightsError: not such a file, cut off, or damaged.
    """
    check_not_a_page(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length) if length <= _MAX_HEADER_BYTES else b""
    if not text.startswith(b"{"):
        raise WeightsError(f"the safetensors format in {path}", "another kind of file", "check which file this is")
    if len(text) < length:
        raise WeightsError(f"{length} bytes of header in {path}", f"{len(text)} (the file is cut off)", _AGAIN)
    try:
        content = json.loads(text)
        content.pop("__metadata__", None)
        return _check_entries(path, content, size - 8 - length)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"a readable safetensors header in {path}", f"a damaged one ({error})", _AGAIN) from error


def _check_entries(path: Path, content: Mapping[str, Any], data_bytes: int) -> dict[str, TensorInfo]:
    entries: dict[str, TensorInfo] = {}
    end = 0
    for name, entry in content.items():
        info = TensorInfo(dtype=str(entry["dtype"]), shape=tuple(int(side) for side in entry["shape"]))
        start, stop = (int(offset) for offset in entry["data_offsets"])
        bits = _BITS.get(info.dtype)
        fits = bits is None or 8 * (stop - start) == bits * math.prod(info.shape)
        if start < 0 or min(info.shape, default=0) < 0 or not fits:
            raise ValueError(f"{name}: {info.dtype} {list(info.shape)} in bytes {start} to {stop}")
        entries[name] = info
        end = max(end, stop)
    if end != data_bytes:
        got = f"{data_bytes} (the file is cut off)" if data_bytes < end else f"{data_bytes}"
        raise WeightsError(f"{end} bytes of tensors in {path}", got, _AGAIN)
    return entries


def read_index(path: Path) -> dict[str, str]:
    """Tensor name → shard's file name, from a ``*.index.json``.

    Raises:
        WeightsError: no such file, or nothing of that kind in it.
    """
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not all(
        isinstance(shard, str) and Path(shard).name == shard for shard in weight_map.values()
    ):
        raise WeightsError(f'"weight_map" (tensor: shard) in {path}', "something else", _AGAIN)
    return weight_map


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a weights folder.

    Raises:
        WeightsError: no such file, or no JSON object in it.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise WeightsError(f"a readable {path}", error.strerror or str(error), "download the folder again") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"JSON in {path}", str(error), f"delete this file and {_AGAIN}") from error
    if not isinstance(content, dict):
        raise WeightsError(f"a JSON object in {path}", f"a {type(content).__name__}", f"delete this file and {_AGAIN}")
    return content
