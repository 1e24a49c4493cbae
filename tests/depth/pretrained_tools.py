"""Tiny networks of the Depth Anything family: weights as a pull leaves them, made by a formula; small clips."""

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: spinning threads steal other workers' cores

import cv2
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from ex4d.core.arrays import UInt8
from ex4d.core.clip import ArrayClip
from ex4d.core.video import Video
from ex4d.depth.pretrained.network import stored_shapes
from ex4d.depth.pretrained.official_names import MOTION_POSITIONS, da3_metric_names, vda_names
from ex4d.depth.pretrained.sizes import NetworkSizes
from ex4d.depth.pretrained.vda_network import VideoDepthAnythingNetwork, temporal_positions
from ex4d.weights.manifest import manifest_of, write_manifest
from ex4d.weights.registry import find_entry

TINY = NetworkSizes(channels=32, layers=4, heads=2, taps=(1, 2, 3, 4), neck=(8, 16, 32, 64), fusion=32, grid=5)


def formula_weight(salt: str, name: str, shape: Any) -> Tensor:
    """What a parameter of this name holds by the rule of the Video Depth Anything oracle's README."""
    random = torch.randn(list(shape), generator=torch.Generator().manual_seed(zlib.crc32((salt + name).encode())))
    last = name.rpartition(".")[2]
    if ("norm" in name and name.endswith("weight")) or name.endswith("gamma"):
        return 1 + 0.1 * random
    if name.endswith("bias"):
        return 0.05 * random
    if random.ndim >= 2 and "embed" not in last and "token" not in name:
        return random / random[0].numel() ** 0.5
    return 0.1 * random


def vda_file(sizes: NetworkSizes = TINY, salt: str = "a") -> dict[str, Tensor]:
    """The content of a release's .pth, position codes included."""
    shapes = stored_shapes(VideoDepthAnythingNetwork(sizes), vda_names(sizes))
    weights = {name: formula_weight(salt, name, shape) for name, shape in shapes.items()}
    channels = (sizes.neck[2], sizes.neck[3], sizes.fusion, sizes.fusion)
    for index, count in enumerate(channels):
        for block in range(2):
            stem = f"head.motion_modules.{index}.temporal_transformer.transformer_blocks.0.attention_blocks.{block}"
            weights[stem + MOTION_POSITIONS] = temporal_positions(count)[None].clone()
    return weights


def da3_file(sizes: NetworkSizes = TINY, salt: str = "a") -> dict[str, Tensor]:
    """The content of a release's model.safetensors."""
    from ex4d.depth.pretrained.da3_network import Da3MetricNetwork

    shapes = stored_shapes(Da3MetricNetwork(sizes), da3_metric_names(sizes))
    return {name: formula_weight(salt, name, shape) for name, shape in shapes.items()}


def da2_file(sizes: NetworkSizes = TINY, salt: str = "a", *, old_names: bool = True) -> dict[str, Tensor]:
    """The content of model.safetensors on the hub."""
    from ex4d.depth.pretrained.da2_network import DepthAnything2Network

    renamed = {"q_proj": "attention.query", "k_proj": "attention.key", "v_proj": "attention.value",
               "o_proj": "output.dense"}  # fmt: skip
    weights: dict[str, Tensor] = {}
    for name, tensor in DepthAnything2Network(sizes, None).state_dict().items():
        stored = name.removeprefix("base.")
        for new, old in renamed.items() if old_names else ():
            stored = stored.replace(f"attention.{new}", f"attention.{old}")
        weights[stored] = formula_weight(salt, stored.replace("lambda1", "gamma"), tensor.shape)
    return weights


def da2_config(max_depth_m: int | None = None) -> bytes:
    """config.json on the hub, as far as it is looked at."""
    metric = {} if max_depth_m is None else {"depth_estimation_type": "metric", "max_depth": max_depth_m}
    return json.dumps({"model_type": "depth_anything", "neck_hidden_sizes": [48, 96, 192, 384], **metric}).encode()


def put_weights(root: Path, name: str, files: Mapping[str, Mapping[str, Tensor] | bytes]) -> Path:
    """A folder as `ex4d weights pull NAME` leaves it, under EX4D_WEIGHTS=`root`."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        if isinstance(content, bytes):
            (folder / file).write_bytes(content)
        elif file.endswith(".safetensors"):
            save_file(dict(content), folder / file)
        else:
            torch.save(dict(content), folder / file)
    write_manifest(folder, manifest_of(folder, sources={}))
    assert all(find_entry(name).wants(file) for file in files), "a file that no pull fetches"
    return folder


def moving_frames(num_frames: int, height: int = 60, width: int = 84, seed: int = 0) -> UInt8:
    """A soft random texture that moves 1 px a frame to the left, uint8 [T,H,W,3]."""
    rng = np.random.default_rng(seed)
    wide = rng.random((height + 8, width + num_frames + 8, 3)).astype(np.float32)
    wide = cv2.GaussianBlur(wide, (0, 0), 2.0)
    wide = np.clip((wide - wide.mean()) / wide.std() * 55 + 128, 0, 255).astype(np.uint8)
    return np.stack([wide[4 : 4 + height, 4 + i : 4 + i + width] for i in range(num_frames)])


def clip_of(frames: UInt8) -> ArrayClip[Video]:
    """A clip in memory, 24 frames a second."""
    return ArrayClip(Video(frames=frames, timestamps_s=np.arange(len(frames)) / 24))
