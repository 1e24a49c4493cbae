"""Video Depth Anything Small against the release's own network: formula-made weights, square and not.

`EX4D_VDA_ORACLE=<folder>` runs it against another folder with a ``vda_small.json`` (salt, sizes, shapes) and
``vda_small.safetensors`` (inputs, outputs).
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from depth.pretrained_tools import formula_weight
from ex4d.depth.pretrained.sizes import VIT_SMALL
from ex4d.depth.pretrained.vda_network import VideoDepthAnythingNetwork, fill_vda
from parity.oracle import difference

FOLDER = Path(os.environ.get("EX4D_VDA_ORACLE", Path(__file__).parents[1] / "data/vda"))
FACTS: dict[str, Any] = json.loads((FOLDER / "vda_small.json").read_text())
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def network() -> VideoDepthAnythingNetwork:
    network = VideoDepthAnythingNetwork()
    weights = {name: formula_weight(FACTS["salt"], name, shape) for name, shape in FACTS["parameters"].items()}
    fill_vda(network, weights, VIT_SMALL, "the oracle")
    return network


@pytest.mark.parametrize("size", FACTS["sizes"])
def test_disparity_is_the_release_s(network: VideoDepthAnythingNetwork, size: str) -> None:
    oracle = load_file(FOLDER / "vda_small.safetensors")
    with torch.inference_mode():
        found = network(oracle[f"input_{size}"])
    assert difference(found, oracle[f"depth_{size}"]) <= TOLERANCE
