"""What the networks of the Depth Anything family share: transformers' classes, the releases' position embedding,
strict filling, and the device. Imports torch: import this file inside functions only."""

import contextlib
import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from torch.nn.functional import interpolate
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config
from transformers.models.dinov2.modeling_dinov2 import Dinov2Embeddings

from ex4d.core.arrays import Bool, Float32
from ex4d.depth.estimator import Device
from ex4d.depth.pretrained.official_names import Names
from ex4d.depth.pretrained.sizes import PATCH_PX, NetworkSizes
from ex4d.errors import ConfigError
from ex4d.weights.strict import check_tensors

_OFFSET = 0.1
"""DINOv2 adds this to the number of patches before it divides: its bicubic resampling is that much finer, and the
released weights were trained so (dinov2/models/vision_transformer.py, ``interpolate_offset``)."""


class ReleasedEmbeddings(Dinov2Embeddings):
    """DINOv2's embeddings with its own resampling of positions; transformers' differs by 1e-3 off the square."""

    def interpolate_pos_encoding(self, embeddings: Tensor, height: int, width: int) -> Tensor:
        """Positions [1, 1 + patches, C] for a picture of height×width px."""
        stored = self.position_embeddings
        rows, columns = height // PATCH_PX, width // PATCH_PX
        grid = round((stored.shape[1] - 1) ** 0.5)
        if rows == columns == grid:
            return stored
        patches = stored[:, 1:].float().reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
        factor = ((rows + _OFFSET) / grid, (columns + _OFFSET) / grid)
        patches = interpolate(patches, scale_factor=factor, mode="bicubic")
        assert patches.shape[2:] == (rows, columns), (patches.shape, rows, columns)
        flat = patches.permute(0, 2, 3, 1).flatten(1, 2)
        return torch.cat((stored[:, :1], flat.to(stored.dtype)), dim=1)


def depth_anything_config(sizes: NetworkSizes, *, mask_token: bool) -> DepthAnythingConfig:
    """transformers' config of these sizes; `mask_token`: whether the file holds that (unused) tensor."""
    backbone: dict[str, Any] = {
        "hidden_size": sizes.channels,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "image_size": sizes.grid * PATCH_PX,
        "patch_size": PATCH_PX,
        "out_indices": list(sizes.taps),
        "reshape_hidden_states": False,
        "use_mask_token": mask_token,
    }
    return DepthAnythingConfig(
        backbone_config=Dinov2Config(**backbone),
        reassemble_hidden_size=sizes.channels,
        neck_hidden_sizes=list(sizes.neck),
        fusion_hidden_size=sizes.fusion,
        patch_size=PATCH_PX,
    )


def make_base(config: DepthAnythingConfig) -> DepthAnythingForDepthEstimation:
    """transformers' network without memory behind its parameters, with `ReleasedEmbeddings`."""
    with init_empty_weights(include_buffers=False):
        base = DepthAnythingForDepthEstimation(config)
        base.backbone.embeddings = ReleasedEmbeddings(cast(Dinov2Config, config.backbone_config))
    return base


def fill(module: nn.Module, tensors: Mapping[str, Tensor], names: Names, *, what: str) -> None:
    """Give a module its weights (float32), in place; every tensor of the file is used exactly once.

    Args:
        module: whose parameters have no memory yet.
        tensors: of the file, by its names.
        names: name in the file → names in `module`, all of them.
        what: the file and its role, for the message.

    Raises:
        WeightsError: lists everything missing, unknown or of another shape.
    """
    targets = [target for many in names.values() for target in many]
    own = module.state_dict().keys()
    assert sorted(targets) == sorted(own), set(targets) ^ set(own)
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    check_tensors(found, stored_shapes(module, names), what=what)
    state = {
        target: part.float()
        for name, many in names.items()
        for target, part in zip(many, tensors[name].chunk(len(many)) if len(many) > 1 else [tensors[name]], strict=True)
    }
    module.load_state_dict(state, assign=True)
    module.requires_grad_(False).eval()


def stored_shapes(module: nn.Module, names: Names) -> dict[str, tuple[int, ...]]:
    """Name in the file → shape; what maps to several stands for them on top of each other."""
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    stored: dict[str, tuple[int, ...]] = {}
    for name, many in names.items():
        shape = shapes[many[0]]
        stored[name] = shape if len(many) == 1 else (len(many) * shape[0], *shape[1:])
    return stored


def pick_device(device: Device) -> torch.device:
    """The device that `EstimateRequest.device` means here.

    Raises:
        ConfigError: CUDA was asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("a CUDA device for the depth network", "none that torch can use", "--device cpu, or auto")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def half_on_cuda(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """fp16 autocast on CUDA; on the CPU everything stays float32."""
    return torch.autocast("cuda", torch.float16) if device.type == "cuda" else contextlib.nullcontext()


class FrameRunner:
    """A network of single pictures on a device, from NumPy to NumPy; satisfies `frames.FrameNetwork`.

    Float32 throughout. `network` returns (values, sky score or None) of pictures.
    """

    def __init__(
        self, network: nn.Module, device: torch.device, *, factor: float = 1.0, sky_from: float = math.inf
    ) -> None:
        self._network, self._device = network.to(device), device
        self._factor, self._sky_from = factor, sky_from

    @torch.inference_mode()
    def run(self, pictures: Float32) -> tuple[Float32, Bool | None]:
        """Of pictures [n,3,h,w]: values × factor float32 [n,h,w], and sky bool [n,h,w], score >= `sky_from`."""
        at_once = len(pictures) if self._device.type == "cuda" else 1  # on a CPU more are no faster, but larger
        parts = [self._network(some.to(self._device)) for some in torch.from_numpy(pictures).split(at_once)]
        values = torch.cat([values for values, _ in parts]) * self._factor
        skies = [sky >= self._sky_from for _, sky in parts if sky is not None]
        return values.cpu().numpy(), torch.cat(skies).cpu().numpy() if skies else None
