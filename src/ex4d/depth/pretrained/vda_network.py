"""Video Depth Anything: Depth Anything's network with four modules that attend over time.

The modules stand after the two coarse reassembled maps and after the two coarse fusions; each is GroupNorm → Linear →
2 × (LayerNorm → attention over the frames of one place, with sinusoidal positions) → GEGLU → Linear, added to its
input. Structure from the release's video_depth_anything/dpt_temporal.py and motion_module/motion_module.py.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate, scaled_dot_product_attention
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation

from ex4d.core.arrays import Float32
from ex4d.depth.pretrained.network import depth_anything_config, fill, half_on_cuda, make_base
from ex4d.depth.pretrained.official_names import MOTION_POSITIONS, vda_names
from ex4d.depth.pretrained.sizes import PATCH_PX, VIT_SMALL, NetworkSizes
from ex4d.depth.pretrained.vda_windows import WINDOW_FRAMES
from ex4d.errors import WeightsError
from ex4d.weights.files import read_tensors

_HEADS = 8
_GROUPS = 32
_FF_FACTOR = 4
_FRAMES_AT_ONCE = 4
"""What does not look at other frames runs in so many; more is no faster."""
_PLACES_AT_ONCE = 4096
"""Places whose frames attend at once: bounds memory, and keeps below CUDA's limit of 65535 attention batches."""

Maps = tuple[Tensor, Tensor, Tensor, Tensor]
"""The four reassembled maps [T, channels, h, w], finest first."""


def temporal_positions(channels: int) -> Tensor:
    """float32 [32, channels]: sine and cosine in turn, wavelengths from 2π to 10000·2π frames."""
    frame = torch.arange(WINDOW_FRAMES)[:, None]
    frequency = torch.exp(torch.arange(0, channels, 2) * (-math.log(10000.0) / channels))
    return torch.stack((torch.sin(frame * frequency), torch.cos(frame * frequency)), dim=2).flatten(1)


class TemporalAttention(nn.Module):
    """Each place attends over its frames; [places, frames, channels] in and out, residual included."""

    positions: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels, bias=False)
        self.key = nn.Linear(channels, channels, bias=False)
        self.value = nn.Linear(channels, channels, bias=False)
        self.out = nn.Linear(channels, channels)
        self.register_buffer("positions", temporal_positions(channels), persistent=False)

    def forward(self, places: Tensor) -> Tensor:
        normed = self.norm(places)
        normed = normed + self.positions[: places.shape[1]].to(normed.dtype)
        query, key, value = (
            part(normed).unflatten(2, (_HEADS, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        attended = scaled_dot_product_attention(query, key, value)
        return places + self.out(attended.transpose(1, 2).flatten(2))


class TemporalModule(nn.Module):
    """Maps [frames, channels, h, w] in and out; frames are of one window, at most 32."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_GROUPS, channels, eps=1e-6)
        self.enter = nn.Linear(channels, channels)
        self.attentions = nn.ModuleList([TemporalAttention(channels) for _ in range(2)])
        self.ff_norm = nn.LayerNorm(channels)
        self.ff_gate = nn.Linear(channels, 2 * _FF_FACTOR * channels)
        self.ff_out = nn.Linear(_FF_FACTOR * channels, channels)
        self.leave = nn.Linear(channels, channels)

    def forward(self, maps: Tensor) -> Tensor:
        height, width = maps.shape[2:]
        places = self.norm(maps).flatten(2).permute(2, 0, 1)
        changed = torch.cat([self._attend(some) for some in places.split(_PLACES_AT_ONCE)])
        return maps + changed.permute(1, 2, 0).unflatten(2, (height, width))

    def _attend(self, places: Tensor) -> Tensor:
        places = self.enter(places)
        for attention in self.attentions:
            places = attention(places)
        hidden, gate = self.ff_gate(self.ff_norm(places)).chunk(2, dim=-1)
        return self.leave(places + self.ff_out(hidden * gelu(gate)))


class VideoDepthAnythingNetwork(nn.Module):
    """Disparity of a window of frames.

    `encode` looks at frames one by one, so that windows that share frames share that work; `decode` joins them.
    """

    def __init__(self, sizes: NetworkSizes = VIT_SMALL) -> None:
        super().__init__()
        config: DepthAnythingConfig = depth_anything_config(sizes, mask_token=True)
        self.base: DepthAnythingForDepthEstimation = make_base(config)
        with init_empty_weights(include_buffers=False):
            channels = (sizes.neck[2], sizes.neck[3], sizes.fusion, sizes.fusion)
            self.motion = nn.ModuleList([TemporalModule(count) for count in channels])

    def encode(self, pictures: Tensor) -> Maps:
        """The maps of pictures [n,3,h,w] (ImageNet-normalised RGB, sides multiples of 14), any n."""
        size = _patches(pictures)
        stage = self.base.neck.reassemble_stage
        parts = [stage(self.base.backbone(some).feature_maps, *size) for some in pictures.split(_FRAMES_AT_ONCE)]
        return cast(Maps, tuple(torch.cat(level) for level in zip(*parts, strict=True)))

    def decode(self, maps: Maps, *, wanted: int | None = None) -> Tensor:
        """Disparity float32 [wanted,h,w] ≥ 0 of the first `wanted` frames (None: all) of a window of at most 32."""
        neck = self.base.neck
        third, fourth = self.motion[0](maps[2]), self.motion[1](maps[3])
        third, fourth = neck.convs[2](third), neck.convs[3](fourth)
        fuse = neck.fusion_stage.layers
        path = self.motion[2](fuse[0](fourth, size=third.shape[2:]))
        path = self.motion[3](fuse[1](path, third, size=maps[1].shape[2:]))
        num, size = len(path) if wanted is None else wanted, tuple(PATCH_PX * side for side in maps[2].shape[2:])
        return torch.cat(
            [
                self._finish(path[some], maps[0][some], maps[1][some], size)
                for some in (slice(i, min(i + _FRAMES_AT_ONCE, num)) for i in range(0, num, _FRAMES_AT_ONCE))
            ]
        )

    def _finish(self, path: Tensor, first: Tensor, second: Tensor, size: tuple[int, ...]) -> Tensor:
        """The fine half of the head: frame by frame."""
        neck, head = self.base.neck, self.base.head
        path = neck.fusion_stage.layers[2](path, neck.convs[1](second), size=first.shape[2:])
        path = neck.fusion_stage.layers[3](path, neck.convs[0](first))
        path = interpolate(head.conv1(path), size, mode="bilinear", align_corners=True)
        with torch.autocast(path.device.type, enabled=False):  # the last layers in full precision, as the release
            return head.conv3(head.conv2(path.float()).relu()).relu().squeeze(1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Disparity float32 [T,h,w] ≥ 0 of one window of pictures [T,3,h,w], T ≤ 32."""
        return self.decode(self.encode(pictures))


def _patches(pictures: Tensor) -> tuple[int, int]:
    height, width = pictures.shape[2:]
    return height // PATCH_PX, width // PATCH_PX


def fill_vda(network: VideoDepthAnythingNetwork, tensors: Mapping[str, Tensor], sizes: NetworkSizes, what: str) -> None:
    """Give the network the release's tensors. Its stored position codes are constants: compared, not loaded.

    Raises:
        WeightsError: lists everything missing, unknown or of another shape; position codes of another network.
    """
    weights = {name: tensor for name, tensor in tensors.items() if not name.endswith(MOTION_POSITIONS)}
    fill(network, weights, vda_names(sizes), what=what)
    for name in tensors.keys() - weights.keys():
        index, block = name.split(".motion_modules.")[-1][0], name.removesuffix(MOTION_POSITIONS)[-1]
        own = dict(network.named_buffers()).get(f"motion.{index}.attentions.{block}.positions")
        code = tensors[name].float()
        if own is None or code.shape != (1, *own.shape) or not torch.allclose(code[0], own, atol=1e-4):
            raise WeightsError(
                f"position codes of {WINDOW_FRAMES} frames in {what}",
                f"{name} of another kind",
                "use the weights that `ex4d weights pull vda-small` fetches",
            )


class VdaRunner:
    """The network on a device, from NumPy to NumPy; satisfies `vda_windows.WindowNetwork`."""

    def __init__(self, file: Path, *, sizes: NetworkSizes, device: torch.device) -> None:
        self._network, self._device = VideoDepthAnythingNetwork(sizes), device
        fill_vda(self._network, read_tensors(file), sizes, f"{file} (Video Depth Anything)")
        self._network.to(device)

    @torch.inference_mode()
    def encode(self, pictures: Float32) -> list[Any]:
        """The maps of each of the pictures float32 [n,3,h,w]."""
        with half_on_cuda(self._device):
            levels = self._network.encode(torch.from_numpy(np.ascontiguousarray(pictures)).to(self._device))
        return list(zip(*levels, strict=True))

    @torch.inference_mode()
    def decode(self, window: Sequence[Any], wanted: int) -> Float32:
        """Disparity float32 [wanted,h,w] ≥ 0 of the first frames of a window of maps."""
        maps = cast(Maps, tuple(torch.stack(level) for level in zip(*window, strict=True)))
        with half_on_cuda(self._device):
            return self._network.decode(maps, wanted=wanted).float().cpu().numpy()
