"""The transformer put where a memory plan wants it, block by block, so that its peak holds while loading too."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from ex4d.errors import ConfigError
from ex4d.model.acceleration import compile_blocks
from ex4d.model.adapter import ADAPTER_NAME, Lora, attach_lora
from ex4d.model.components import expected_shapes, make_component
from ex4d.model.estimates import GIB, RESERVE_GIB, MemoryPlan, PlanName
from ex4d.model.gguf_files import gguf_gib, load_gguf
from ex4d.model.memory import Machine, available_host_gib
from ex4d.model.quantize import fp8_shortage, quantize_block
from ex4d.model.transformer import EX4DTransformer3DModel
from ex4d.weights.files import read_tensors
from ex4d.weights.headers import read_json
from ex4d.weights.strict import check_tensors

Reader = Callable[[str, tuple[int, ...]], Tensor]
"""The tensor of a name in the transformer's state dict, of this shape, on any device and in any float type."""

_UNUSED = "norm_added_q"
_OFFLOAD_HOOK = "group_offloading"


def inspect_machine(device: torch.device | str, *, gguf: Path | None = None) -> Machine:
    """What there is to compute with; no weights are loaded.

    Args:
        device: ``cuda``, ``cuda:1`` … or ``cpu``.
        gguf: a GGUF file that could be used.
    """
    device = torch.device(device)
    unavailable: dict[PlanName, str] = {}
    if importlib.util.find_spec("torchao") is None:
        unavailable["fp8"] = unavailable["int8"] = "torchao is not installed: pip install 'ex4d[quant]'"
    if gguf is None:
        unavailable["gguf"] = "no GGUF file of the transformer is at hand"
    elif importlib.util.find_spec("gguf") is None:
        unavailable["gguf"] = "gguf is not installed: pip install 'ex4d[quant]'"
    common: dict[str, Any] = {"host_gib": available_host_gib(), "gguf_gib": gguf_gib(gguf) if gguf else None}
    if device.type != "cuda" or not torch.cuda.is_available():
        return Machine(device="cpu", name="CPU", unavailable=unavailable, **common)
    if shortage := fp8_shortage(device):
        unavailable.setdefault("fp8", shortage)
    free, total = torch.cuda.mem_get_info(device)
    name = torch.cuda.get_device_name(device)
    return Machine(
        device="cuda", name=name, total_gib=total / GIB, free_gib=free / GIB, unavailable=unavailable, **common
    )


def limit_vram(max_vram_gib: float, device: torch.device | str) -> None:
    """Make torch fail rather than take more GPU memory than this, CUDA's own share included; for the process's life.

    Args:
        max_vram_gib: GiB.
        device: a CUDA device.
    """
    total = torch.cuda.get_device_properties(torch.device(device)).total_memory / GIB
    torch.cuda.set_per_process_memory_fraction(min(max(max_vram_gib - RESERVE_GIB, 0.0) / total, 1.0), device)


def load_transformer(
    folder: Path,
    plan: MemoryPlan,
    device: torch.device | str,
    *,
    loras: Sequence[Lora] = (),
    fused: bool = True,
    gguf: Path | None = None,
    compiled: bool = False,
) -> EX4DTransformer3DModel:
    """The transformer of a folder under a plan; neither host nor GPU ever holds more than the result and one block.

    Args:
        folder: a diffusers transformer folder, stored in any precision.
        plan: of `memory.choose_plan`.
        device: where it computes.
        loras: EX-4D's, and others that add to it.
        fused: they are added to the weights in float32, before these are rounded or quantised; else computed beside.
        gguf: the file of plan ``gguf``.
        compiled: compile the blocks.

    Raises:
        WeightsError: tensors missing, left over or of another shape.
        ConfigError: plan ``gguf`` without a file, or with LoRAs to fuse or blocks to compile.
    """
    beside = {} if fused else {_adapter_name(i): lora for i, lora in enumerate(loras)}
    if plan.precision == "gguf":
        if gguf is None or (loras and fused):
            got = "no file" if gguf is None else "LoRAs to fuse"
            raise ConfigError("a GGUF file, and LoRAs beside its weights, for --plan gguf", got, "see `write_gguf`")
        transformer = load_gguf(gguf, folder, device=device)
        _attach(transformer, beside)
        return place_transformer(transformer, plan, device, compiled=compiled)
    transformer = cast(EX4DTransformer3DModel, make_component("transformer", read_json(folder / "config.json")))
    tensors = {name: tensor for name, tensor in read_tensors(folder).items() if _UNUSED not in name}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    check_tensors(found, expected_shapes(transformer), what=f"transformer in {folder}")
    _attach(transformer, beside)

    def read(name: str, shape: tuple[int, ...]) -> Tensor:
        module, _, lora = name.rpartition(".lora_")
        if module:
            side, adapter, kind = lora.split(".")
            return beside[adapter].tensors[f"{module}.lora_{side}.{kind}"]
        own = name.replace(".base_layer.", ".")
        return tensors.pop(own) if beside else _fused(own, tensors.pop(own), loras)

    return place_transformer(transformer, plan, device, read=read, compiled=compiled)


def _adapter_name(index: int) -> str:
    return ADAPTER_NAME if index == 0 else f"{ADAPTER_NAME}-{index}"


def _attach(transformer: EX4DTransformer3DModel, loras: Mapping[str, Lora]) -> None:
    """LoRAs beside the weights, all of them active; on the meta device, places for them."""
    for name, lora in loras.items():
        attach_lora(transformer, lora, name=name)
    if loras:
        transformer.set_adapters(list(loras))


def place_transformer(
    transformer: EX4DTransformer3DModel,
    plan: MemoryPlan,
    device: torch.device | str,
    *,
    read: Reader | None = None,
    compiled: bool = False,
) -> EX4DTransformer3DModel:
    """Put a transformer where a plan wants it: all but the blocks first, then block after block.

    LoRAs beside the weights become bfloat16 too, as the release computes them.

    Args:
        transformer: on the CPU, or without weights (meta) if `read` is given; changed in place.
        plan: of `memory.choose_plan`; ``gguf`` takes a transformer of `load_gguf`, already on the device.
        device: where it computes.
        read: where weights come from, each read once; None = those that it has.
        compiled: compile the blocks.

    Raises:
        ConfigError: packed GGUF weights cannot be compiled; or no compiler, or matrices that cannot be quantised.
    """
    device = torch.device(device)
    if plan.precision == "gguf" and compiled:
        raise ConfigError("--compile off with --plan gguf", "on", "use --plan fp8, int8 or offload")
    if plan.precision != "gguf":
        _place_tensors(transformer, _outside_blocks(transformer), plan, device, read)
        for index, block in enumerate(transformer.blocks):
            names = [f"blocks.{index}.{name}" for name, _ in block.named_parameters()]
            _place_tensors(transformer, names, plan, device, read)
            if plan.precision in ("fp8", "int8"):
                quantize_block(cast(nn.Module, block), plan.precision)
    transformer.rope.to(device)
    if compiled:
        compile_blocks(transformer, device)
    if plan.offload:
        _offload_blocks(transformer, plan, device)
    return transformer


def _outside_blocks(transformer: nn.Module) -> list[str]:
    return [name for name, _ in transformer.named_parameters() if not name.startswith("blocks.")]


def _place_tensors(
    transformer: EX4DTransformer3DModel,
    names: Sequence[str],
    plan: MemoryPlan,
    device: torch.device,
    read: Reader | None,
) -> None:
    """Give parameters their values, precision and place, one by one; what they were before is let go."""
    in_float32 = set(transformer._keep_in_fp32_modules or ())
    for name in names:
        owner_name, _, leaf = name.rpartition(".")
        owner = transformer.get_submodule(owner_name)
        parameter = cast(Tensor, getattr(owner, leaf))
        value = parameter.data if read is None else read(name, tuple(parameter.shape))
        # neither `.to(bfloat16)` nor `from_single_file` would keep norms, tables and time embedding in float32
        exact = plan.precision == "fp32" or not in_float32.isdisjoint(name.split("."))
        value = value.to("cpu" if plan.offload else device, torch.float32 if exact else torch.bfloat16)
        if plan.offload and plan.pinned and device.type == "cuda":
            value = value.pin_memory()  # here, because diffusers would pin copies of all blocks at once
        setattr(owner, leaf, nn.Parameter(value, requires_grad=False))


def _offload_blocks(transformer: EX4DTransformer3DModel, plan: MemoryPlan, device: torch.device) -> None:
    """Blocks visit the device one by one, the next one copied meanwhile; everything else moves there for good."""
    transformer.enable_group_offload(
        onload_device=device,
        offload_device=torch.device("cpu"),
        offload_type="block_level",
        num_blocks_per_group=1,
        use_stream=device.type == "cuda",
        # True would let the CPU run ahead: where copying is faster than computing, most blocks would be on the GPU
        record_stream=False,
        low_cpu_mem_usage=not plan.pinned,
    )
    # diffusers would copy all that is outside of the blocks to the device and back in every call
    rest = cast(Any, transformer)._diffusers_hook.get_hook(_OFFLOAD_HOOK).group
    rest.modules, rest.parameters, rest.buffers = [], [], []
    for name in _outside_blocks(transformer):
        parameter = transformer.get_parameter(name)
        parameter.data = parameter.data.to(device)
    transformer.rope.to(device)


def _fused(name: str, tensor: Tensor, loras: Sequence[Lora]) -> Tensor:
    """A weight or bias with the LoRAs' additions, float32 if there are any."""
    module, _, leaf = name.rpartition(".")
    for lora in loras:
        scale = lora.alpha / lora.rank
        down, up, bias = (lora.tensors.get(f"{module}.lora_{key}") for key in ("A.weight", "B.weight", "B.bias"))
        if leaf == "weight" and down is not None and up is not None:
            tensor = tensor.float() + scale * (up.float() @ down.float())
        elif leaf == "bias" and bias is not None:
            tensor = tensor.float() + scale * bias.float()
    return tensor
