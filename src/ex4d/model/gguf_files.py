"""GGUF files of the transformer: written tensor by tensor, read strictly. The only file that touches gguf."""

import json
import math
import shutil
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from diffusers.models.model_loading_utils import load_gguf_checkpoint
from diffusers.quantizers.quantization_config import GGUFQuantizationConfig
from torch import Tensor, nn

from ex4d.errors import ConfigError, MissingDependencyError, OutputError, WeightsError
from ex4d.io.atomic import atomic_path
from ex4d.model.components import expected_shapes, make_component
from ex4d.model.transformer import EX4DTransformer3DModel
from ex4d.weights.files import read_tensors
from ex4d.weights.headers import check_not_a_page, read_json
from ex4d.weights.strict import check_tensors

GgufKind = Literal["Q4_0", "Q5_0", "Q8_0"]
KINDS: tuple[GgufKind, ...] = ("Q4_0", "Q5_0", "Q8_0")
"""What the gguf package can write: 4.5, 5.5 and 8.5 bits a weight. Any type that diffusers knows can be read."""

_ARCHITECTURE = "wan"
_UNUSED = "norm_added_q"
"""Stored in stock folders, but used by no layer."""


def write_gguf(
    folder: Path, output: Path, *, kind: GgufKind = "Q4_0", on_tensor: Callable[[int, int], None] | None = None
) -> None:
    """Write a transformer folder as one GGUF file, with one tensor in memory at a time.

    The matrices of the blocks are quantised. Everything else is kept in float32: embeddings, time projection,
    norms, biases, tables and head; diffusers would take a bfloat16 vector of such a file for quantised bytes.

    Args:
        folder: a diffusers transformer folder (safetensors and ``config.json``).
        output: the file; replaced if it is there.
        kind: of the blocks' matrices.
        on_tensor: called with the number of tensors written so far and their total.

    Raises:
        MissingDependencyError: no gguf.
        ConfigError: another kind, or rows that cannot be cut into blocks of 32.
        WeightsError: tensors of the folder that do not fit.
        OutputError: no space, or the name cannot be written.
    """
    gguf = _import_gguf()
    if kind not in KINDS:
        raise ConfigError(f"a GGUF type that can be written: {', '.join(KINDS)}", repr(kind))
    config = read_json(folder / "config.json")
    expected = expected_shapes(make_component("transformer", config))
    tensors = {name: tensor for name, tensor in read_tensors(folder).items() if _UNUSED not in name}
    check_tensors({n: tuple(t.shape) for n, t in tensors.items()}, expected, what=f"transformer in {folder}")
    types = {name: _stored_type(gguf, name, shape, kind) for name, shape in expected.items()}
    total = sum(_num_bytes(gguf, shape, types[name]) for name, shape in expected.items())
    _check_space(output, total)
    with atomic_path(output) as temporary, closing(gguf.GGUFWriter(temporary, _ARCHITECTURE)) as writer:
        writer.add_string("ex4d.config", json.dumps(config))
        writer.add_quantization_version(2)
        for name, shape in expected.items():
            num_bytes = _num_bytes(gguf, shape, types[name])
            writer.add_tensor_info(name, shape, np.dtype(np.float32), num_bytes, raw_dtype=types[name])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for index, name in enumerate(expected):
            data = tensors.pop(name).float().numpy()
            writer.write_tensor_data(gguf.quants.quantize(data, types[name]))
            if on_tensor is not None:
                on_tensor(index + 1, len(expected))


def load_gguf(
    path: Path, config_folder: Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.bfloat16
) -> EX4DTransformer3DModel:
    """The transformer of a GGUF file of any type that diffusers reads, with diffusers' or Wan's own tensor names.

    Matrices stay quantised and are unpacked while they are used. A LoRA can be attached to it, but not fused.

    Args:
        path: the file.
        config_folder: transformer folder with ``config.json``; nothing is fetched.
        device: where the weights go, tensor by tensor.
        dtype: of computation and of what is not quantised; norms, time embedding and tables become float32.

    Raises:
        MissingDependencyError: no gguf.
        WeightsError: not a GGUF file, damaged, of an unknown type, or not this transformer's tensors.
    """
    tensors = _read_gguf(path)
    expected = expected_shapes(make_component("transformer", read_json(config_folder / "config.json")))
    if tensors.keys() != expected.keys():
        tensors = cast(dict[str, Tensor], convert_wan_transformer_to_diffusers(tensors))
    tensors = {name: _plain_if_bf16(tensor) for name, tensor in tensors.items() if _UNUSED not in name}
    shapes = {name: tuple(getattr(tensor, "quant_shape", tensor.shape)) for name, tensor in tensors.items()}
    check_tensors(shapes, expected, what=f"transformer in {path}")
    transformer = EX4DTransformer3DModel.from_single_file(
        tensors,  # pyright: ignore[reportArgumentType]
        config=str(config_folder),
        quantization_config=GGUFQuantizationConfig(compute_dtype=dtype),
        torch_dtype=dtype,
        device=str(device),
        local_files_only=True,
    )
    packed = [name for name, p in transformer.named_parameters() if _is_packed(p) and not _is_linear(transformer, name)]
    if packed:
        raise WeightsError(
            f"only matrices quantised in {path}", f"also {', '.join(packed[:5])}", "use another file, or write_gguf"
        )
    return transformer.requires_grad_(False)


def _import_gguf() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise MissingDependencyError("gguf", "quant", "GGUF files (--plan gguf)") from error
    return gguf


def _stored_type(gguf: Any, name: str, shape: tuple[int, ...], kind: GgufKind) -> Any:
    if not (name.startswith("blocks.") and name.endswith(".weight") and len(shape) == 2):
        return gguf.GGMLQuantizationType.F32
    quantized = gguf.GGMLQuantizationType[kind]
    block_size = gguf.GGML_QUANT_SIZES[quantized][0]
    if shape[-1] % block_size:
        raise ConfigError(f"rows in multiples of {block_size} for {kind}", f"{name} with rows of {shape[-1]}")
    return quantized


def _num_bytes(gguf: Any, shape: tuple[int, ...], kind: Any) -> int:
    block_size, type_size = gguf.GGML_QUANT_SIZES[kind]
    return math.prod(shape) // block_size * type_size


def _check_space(output: Path, num_bytes: int) -> None:
    if not output.parent.is_dir():
        raise OutputError(f"to be able to write {output}", f"no folder {output.parent}", "create it")
    free = shutil.disk_usage(output.parent).free
    if free < num_bytes:
        got = f"{free / 1e9:.1f} GB free"
        raise OutputError(f"{num_bytes / 1e9:.1f} GB of disk space for {output}", got, "free some, or write elsewhere")


def _read_gguf(path: Path) -> dict[str, Tensor]:
    _import_gguf()
    check_not_a_page(path)
    try:
        return cast(dict[str, Tensor], load_gguf_checkpoint(path))
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, OSError, MemoryError, struct.error) as error:
        got = f"{type(error).__name__}: {str(error).strip()[:200]}"
        raise WeightsError(
            f"a readable GGUF file at {path}", got, "check which file this is, or get it again"
        ) from error


def _plain_if_bf16(tensor: Tensor) -> Tensor:
    """bfloat16 tensors as such: diffusers keeps them as bytes to unpack, and then takes vectors for bytes."""
    if _is_packed(tensor) and cast(Any, tensor).quant_type.name == "BF16":
        return cast(Any, tensor).as_tensor().view(torch.bfloat16)
    return tensor


def _is_packed(tensor: Tensor) -> bool:
    return hasattr(tensor, "quant_type")


def _is_linear(transformer: nn.Module, parameter: str) -> bool:
    return isinstance(transformer.get_submodule(parameter.rpartition(".")[0]), nn.Linear)


def gguf_gib(path: Path) -> float:
    """Size of a GGUF file, for `Machine.gguf_gib`."""
    return path.stat().st_size / 2**30
