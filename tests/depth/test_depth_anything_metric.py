"""`da3metric-large`: against outputs of the release's own network (tests/data/da3_metric), and as an estimator."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from depth.pretrained_tools import TINY, clip_of, da3_file, formula_weight, moving_frames, put_weights
from ex4d.core.camera import pinhole
from ex4d.depth.estimator import DepthEstimator, EstimateRequest
from ex4d.depth.pretrained.da3_network import Da3MetricNetwork, load_da3_metric
from ex4d.depth.pretrained.depth_anything_metric import Da3MetricEstimator
from ex4d.depth.pretrained.network import stored_shapes
from ex4d.depth.pretrained.official_names import da3_metric_names
from ex4d.depth.pretrained.pictures import prepare_pictures
from ex4d.depth.pretrained.sizes import VIT_LARGE, NetworkSizes
from ex4d.errors import DepthError, WeightsError

ORACLE = Path(__file__).parents[1] / "data/da3_metric"
FACTS: dict[str, Any] = json.loads((ORACLE / "da3_tiny.json").read_text())
FILE, CONFIG = "model.safetensors", "config.json"
ESTIMATOR: DepthEstimator = Da3MetricEstimator(sizes=TINY)
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EX4D_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("EX4D_CACHE", str(tmp_path / "cache"))
    return tmp_path / "weights"


@pytest.fixture(scope="module")
def network() -> Da3MetricNetwork:
    facts: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in FACTS["sizes"].items()}
    sizes = NetworkSizes(**facts)
    names = FACTS["parameters"].items()
    weights = {name: formula_weight(FACTS["salt"], name, shape) for name, shape in names}
    return load_da3_metric(weights, sizes, "the oracle")


def test_epsilon_of_the_last_norm(network: Da3MetricNetwork) -> None:
    backbone = network.base.backbone
    assert (backbone.layernorm.eps, backbone.encoder.layer[0].norm1.eps) == (1e-5, 1e-6), "as in the release's modules"


@pytest.mark.parametrize("size", FACTS["inputs"])
def test_depth_and_sky_are_the_release_s(network: Da3MetricNetwork, size: str) -> None:
    expected = load_file(ORACLE / "da3_tiny.safetensors")
    seed = zlib.crc32(f"{FACTS['salt']}input_{size}".encode())
    pictures = torch.randn(FACTS["inputs"][size], generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        depth, sky = network(pictures)
    for found, name in ((depth, "depth"), (sky, "sky")):
        want = expected[f"{name}_{size}"]
        assert want.std() > 0.05, "an oracle that says something"
        largest = float((found - want).abs().max())
        print(f"{name}_{size}: largest difference {largest:.1e}")  # noqa: T201
        assert largest <= TOLERANCE


def test_names_of_the_full_size() -> None:
    stored = stored_shapes(Da3MetricNetwork(VIT_LARGE), da3_metric_names(VIT_LARGE))
    assert len(stored) == 406, "tensors of the release's network built by its own config"
    assert sum(int(np.prod(shape)) for shape in stored.values()) == 334_171_394


def test_metres_follow_the_focal_length(root: Path) -> None:
    weights = da3_file()
    put_weights(root, "da3metric-large", {FILE: weights, CONFIG: b"{}"})
    frames = moving_frames(1, 60, 84)
    network = load_da3_metric(weights, TINY, "test")
    with torch.inference_mode():
        canonical = network(torch.from_numpy(prepare_pictures(frames, (56, 84))))[0][0].numpy()
    K = pinhole(focal_px=90.0, height=60, width=84)
    known = ESTIMATOR.estimate(clip_of(frames), EstimateRequest(short_side=56, device="cpu", K=K))
    assert (known.kind, known.scale, known.notices, known.K) == ("depth", "metric", (), None)
    seen_focal_px = (90 + 90 * 56 / 60) / 2
    assert np.allclose(known.read(0, 1).values[0], canonical * seen_focal_px / 300, rtol=1e-5)
    guessed = ESTIMATOR.estimate(clip_of(frames), EstimateRequest(short_side=56, device="cpu"))
    assert guessed.notices == ("da3metric-large: metres assume a focal length of 76 px (0.9 of the longer side)",)
    ratio = guessed.read(0, 1).values[0] / (canonical * seen_focal_px / 300)
    assert np.allclose(ratio, 0.9 * 84 / 90, rtol=1e-4)


def test_sky_is_where_its_score_says(root: Path) -> None:
    weights = da3_file()
    put_weights(root, "da3metric-large", {FILE: weights, CONFIG: b"{}"})
    frames = moving_frames(16)
    depth = ESTIMATOR.estimate(clip_of(frames), EstimateRequest(short_side=56, device="cpu"))
    network = load_da3_metric(weights, TINY, "test")
    chunk = depth.read(0, 16)
    with torch.inference_mode():
        score = network(torch.from_numpy(prepare_pictures(frames, (56, 84))))[1].numpy()
    assert chunk.sky is not None
    assert 0 < chunk.sky.mean() < 1
    unsure = np.abs(score - 0.3) < 1e-4
    assert np.array_equal(chunk.sky | unsure, (score >= 0.3) | unsure)
    assert chunk.values.min() > 0


def test_default_size_is_the_release_s(root: Path) -> None:
    put_weights(root, "da3metric-large", {FILE: da3_file(), CONFIG: b"{}"})
    for (height, width), size in {(288, 512): (280, 504), (640, 480): (504, 378)}.items():
        depth = ESTIMATOR.estimate(clip_of(np.zeros((1, height, width, 3), np.uint8)), EstimateRequest(device="cpu"))
        assert (depth.height, depth.width) == size


def test_bad_weights_and_nan(root: Path) -> None:
    source, request = clip_of(moving_frames(2)), EstimateRequest(short_side=56, device="cpu")
    with pytest.raises(WeightsError, match="ex4d weights pull da3metric-large"):
        ESTIMATOR.estimate(source, request)
    weights = da3_file()
    del weights["model.head.scratch.sky_output_conv2.0.bias"]
    folder = put_weights(root, "da3metric-large", {FILE: weights, CONFIG: b"{}"})
    with pytest.raises(WeightsError, match=r"1 missing \(model\.head\.scratch\.sky_output_conv2\.0\.bias\)"):
        ESTIMATOR.estimate(source, request)
    (folder / FILE).write_bytes((folder / FILE).read_bytes()[:-9])
    with pytest.raises(WeightsError, match="cut off"):
        ESTIMATOR.estimate(source, request)
    weights = da3_file()
    weights["model.head.scratch.output_conv2.2.bias"][:] = 1000.0
    put_weights(root, "da3metric-large", {FILE: weights, CONFIG: b"{}"})
    with pytest.raises(DepthError, match="finite numbers from da3metric-large in frame 0; got 4704 of 4704"):
        ESTIMATOR.estimate(source, request).read(0, 1)
