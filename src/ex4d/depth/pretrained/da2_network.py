"""Depth Anything V2 from a folder of transformers' format, as its own release runs it. Imports torch."""

from pathlib import Path

from torch import Tensor, nn
from transformers import DepthAnythingForDepthEstimation

from ex4d.depth.pretrained.network import depth_anything_config, fill, make_base
from ex4d.depth.pretrained.official_names import Names
from ex4d.depth.pretrained.sizes import NetworkSizes
from ex4d.errors import WeightsError
from ex4d.weights.files import read_tensors
from ex4d.weights.headers import read_json

_OLD_NAMES = {
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
}
"""transformers' names → those that its releases before 5 stored, and that lie on the hub."""


class DepthAnything2Network(nn.Module):
    """Disparity, or depth in metres, of single pictures."""

    def __init__(self, sizes: NetworkSizes, max_depth_m: int | None) -> None:
        super().__init__()
        config = depth_anything_config(sizes, mask_token=True)
        if max_depth_m is not None:
            config.depth_estimation_type, config.max_depth = "metric", max_depth_m
        self.base: DepthAnythingForDepthEstimation = make_base(config)

    def forward(self, pictures: Tensor) -> tuple[Tensor, None]:
        """float32 [n,h,w] of pictures [n,3,h,w] (ImageNet-normalised RGB, sides multiples of 14): disparity >= 0
        (affine in 1/z), or depth in (0, max_depth_m) metres; and that nothing is known of the sky."""
        return self.base(pictures).predicted_depth, None


def load_depth_anything_2(folder: Path, sizes: NetworkSizes, max_depth_m: int | None) -> DepthAnything2Network:
    """The network with the weights of a folder, float32.

    Args:
        folder: ``config.json`` and ``model.safetensors``.
        sizes: of the network.
        max_depth_m: what ``config.json`` must say of the metric network; None: of the relative one.

    Raises:
        WeightsError: another network's config; lists all tensors missing, unknown or of another shape.
    """
    config = read_json(folder / "config.json")
    found = (config.get("model_type"), config.get("depth_estimation_type", "relative"))
    limit = config.get("max_depth") if found[1] == "metric" else None
    expected = ("depth_anything", "relative" if max_depth_m is None else "metric")
    if found != expected or limit != max_depth_m:
        raise WeightsError(
            f"{folder / 'config.json'} of {expected[0]}, {expected[1]}, up to {max_depth_m} m",
            f"{found[0]}, {found[1]}, up to {limit} m",
            "pull these weights again",
        )
    network = DepthAnything2Network(sizes, max_depth_m)
    file = folder / "model.safetensors"
    tensors = read_tensors(file)
    old = any(".attention.attention." in name for name in tensors)
    names: Names = {_stored_name(name, old=old): (name,) for name in network.state_dict()}
    fill(network, tensors, names, what=f"{file} (Depth Anything V2)")
    return network


def _stored_name(name: str, *, old: bool) -> str:
    name = name.removeprefix("base.")
    for new, stored in _OLD_NAMES.items() if old else ():
        name = name.replace(new, stored)
    return name
