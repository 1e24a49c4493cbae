"""The whole stack with random weights, at full size or as the miniature; nothing is downloaded.

Weights are drawn where they are used, one tensor at a time, and pass through the same `place_transformer` as real
ones. They are random numbers and not constants, because the speed of matrix products depends on them.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ex4d.model.adapter import Lora, attach_lora, lora_shapes
from ex4d.model.components import TIED_EMBEDDING, ComponentName, expected_shapes, make_component, shipped_config
from ex4d.model.estimates import MemoryPlan
from ex4d.model.gguf_files import load_gguf, write_gguf
from ex4d.model.placement import place_transformer
from ex4d.model.presets import Acceleration
from ex4d.model.tiny import CONFIGS
from ex4d.model.transformer import EX4DTransformer3DModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where the stack is built.

    Attributes:
        device: where it computes.
        tiny: the miniature.
        scratch: folder for files.
    """

    device: torch.device
    tiny: bool
    scratch: Path

    def config(self, name: str) -> dict[str, Any]:
        """Of a component or of ``lora``."""
        return dict(CONFIGS[name]) if self.tiny else shipped_config(name)

    def draw(self, name: str, shape: tuple[int, ...], dtype: torch.dtype = torch.bfloat16) -> Tensor:
        """Random values for a parameter, scaled so that activations stay near 1."""
        owner, _, leaf = name.rpartition(".")
        if leaf == "bias":
            return torch.zeros(shape, device=self.device, dtype=dtype)
        if leaf == "gamma" or "norm" in owner.rpartition(".")[2]:
            return torch.ones(shape, device=self.device, dtype=dtype)
        fan_in = max(int(np.prod(shape[1:])), 1)
        return torch.empty(shape, device=self.device, dtype=dtype).normal_(0.0, fan_in**-0.5)


def random_component(name: ComponentName, site: Site, *, dtype: torch.dtype = torch.bfloat16) -> Any:
    """A component on the site's device."""
    module = make_component(name, site.config(name))
    for key, parameter in list(module.named_parameters(remove_duplicate=False)):
        if key == TIED_EMBEDDING:
            continue
        owner, _, leaf = key.rpartition(".")
        value = site.draw(key, tuple(parameter.shape), dtype)
        setattr(module.get_submodule(owner), leaf, nn.Parameter(value, requires_grad=False))
    if name == "text_encoder":
        cast(Any, module).tie_weights()
    return module.to(site.device).eval()


def random_transformer(
    site: Site,
    plan: MemoryPlan,
    acceleration: Acceleration,
    *,
    prepare: Callable[[EX4DTransformer3DModel], None],
    gguf: Path | None = None,
) -> EX4DTransformer3DModel:
    """The transformer under a memory plan, as `ex4d generate` would place it.

    A fused LoRA leaves no trace in random weights; one beside them is there.

    Args:
        site: where.
        plan: of `choose_plan`.
        acceleration: of `resolve_acceleration`.
        prepare: called before weights are placed and blocks compiled.
        gguf: the file of plan ``gguf``, of `write_random_gguf`.
    """
    if plan.precision == "gguf":
        assert gguf is not None
        transformer = load_gguf(gguf, gguf.parent, device=site.device)
    else:
        transformer = cast(EX4DTransformer3DModel, make_component("transformer", site.config("transformer")))
    if not acceleration.fuse_lora:
        _attach_random_lora(transformer, site)
    prepare(transformer)
    read = None if plan.precision == "gguf" else site.draw
    return place_transformer(transformer, plan, site.device, read=read, compiled=acceleration.compile)


def _attach_random_lora(transformer: EX4DTransformer3DModel, site: Site) -> None:
    """Where the transformer has no weights yet (meta), the LoRA's are drawn with them."""
    settings = site.config("lora")
    tensors = {name: site.draw(name, shape) for name, shape in lora_shapes(transformer, settings["rank"]).items()}
    attach_lora(transformer, Lora(tensors=tensors, rank=settings["rank"], alpha=settings["alpha"]))


def random_encoders(site: Site, *, exact: bool = True) -> dict[str, nn.Module]:
    """VAE, image encoder and geometry encoder, waiting on the CPU as `load_stack` leaves them.

    Made before the transformer: they are drawn on the site's device, which must not add to what the load needs there.

    Args:
        site: where.
        exact: VAE and geometry encoder in float32; the release has them in bfloat16.
    """
    exact_dtype = torch.float32 if exact else torch.bfloat16
    dtypes: dict[ComponentName, torch.dtype] = {
        "vae": exact_dtype,
        "image_encoder": torch.bfloat16,
        "geometry_encoder": exact_dtype,
    }
    return {name: random_component(name, site, dtype=dtype).to("cpu") for name, dtype in dtypes.items()}


def write_random_gguf(site: Site) -> Path:
    """A Q4_0 file of the transformer; one random block is quantised and written for every block.

    Quantising all blocks would take minutes of CPU time. Equal blocks change neither size nor speed.
    """
    config = site.config("transformer")
    single = _save_transformer(site, site.scratch / "one_block", config | {"num_layers": 1})
    write_gguf(single, single / "one.gguf")
    output = site.scratch / "transformer.gguf"
    (site.scratch / "config.json").write_text(json.dumps(_named(config)), "utf-8")
    _repeat_block(single / "one.gguf", output, config)
    return output


def _save_transformer(site: Site, folder: Path, config: Mapping[str, Any]) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(_named(config)), "utf-8")
    shapes = expected_shapes(make_component("transformer", config))
    tensors = {name: site.draw(name, shape).cpu() for name, shape in shapes.items()}
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors")
    return folder


def _named(config: Mapping[str, Any]) -> dict[str, Any]:
    return {"_class_name": "EX4DTransformer3DModel"} | dict(config)


def _repeat_block(source: Path, output: Path, config: Mapping[str, Any]) -> None:
    """Write a GGUF file of one block once more, with the block as often as the config says."""
    import gguf

    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(source).tensors}
    shapes = expected_shapes(make_component("transformer", config))
    origins = {name: _in_block_0(name) for name in shapes}
    with closing(gguf.GGUFWriter(output, "wan")) as writer:
        writer.add_string("ex4d.config", json.dumps(dict(config)))
        writer.add_quantization_version(2)
        for name, shape in shapes.items():
            tensor = stored[origins[name]]
            dtype = np.dtype(np.float32)
            writer.add_tensor_info(name, shape, dtype, int(tensor.n_bytes), raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for origin in origins.values():
            writer.write_tensor_data(stored[origin].data)


def _in_block_0(name: str) -> str:
    parts = name.split(".")
    return ".".join(["blocks", "0", *parts[2:]]) if parts[0] == "blocks" else name
