"""`da2-small` and its metric variants from a pulled folder: the real network at a tiny size, and bad folders."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import DepthAnythingForDepthEstimation

from depth.pretrained_tools import TINY, clip_of, da2_config, da2_file, moving_frames, put_weights
from ex4d.depth.estimator import DepthEstimator, EstimateRequest
from ex4d.depth.pretrained.depth_anything import DepthAnythingEstimator
from ex4d.depth.pretrained.network import ReleasedEmbeddings, depth_anything_config
from ex4d.depth.pretrained.pictures import prepare_pictures
from ex4d.errors import DepthError, WeightsError

FILE, CONFIG = "model.safetensors", "config.json"
RELATIVE: DepthEstimator = DepthAnythingEstimator(name="da2-small", sizes=TINY)
INDOOR: DepthEstimator = DepthAnythingEstimator(name="da2-metric-indoor", max_depth_m=20, sizes=TINY)
REQUEST = EstimateRequest(short_side=56, device="cpu")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EX4D_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("EX4D_CACHE", str(tmp_path / "cache"))
    return tmp_path / "weights"


@pytest.mark.parametrize("old_names", [True, False])
def test_disparity_is_that_of_transformers_network(root: Path, old_names: bool) -> None:
    put_weights(root, "da2-small", {FILE: da2_file(old_names=old_names), CONFIG: da2_config()})
    assert RELATIVE.ready().ready
    frames = moving_frames(1, 70, 70)  # the stored grid: no positions are resampled
    depth = RELATIVE.estimate(clip_of(frames), EstimateRequest(short_side=70, device="cpu"))
    assert (depth.kind, depth.scale, depth.height, depth.width) == ("disparity", "relative", 70, 70)
    theirs = DepthAnythingForDepthEstimation(depth_anything_config(TINY, mask_token=True))
    weights = da2_file(old_names=False) if not old_names else {}
    if old_names:  # the same numbers under the names of today
        for name, tensor in da2_file().items():
            for new, old in {"q_proj": "attention.query", "k_proj": "attention.key", "v_proj": "attention.value",
                             "o_proj": "output.dense"}.items():  # fmt: skip
                name = name.replace(f"attention.{old}", f"attention.{new}")
            weights[name] = tensor
    theirs.load_state_dict(weights)
    with torch.inference_mode():
        expected = theirs.eval()(torch.from_numpy(prepare_pictures(frames, (70, 70)))).predicted_depth.numpy()
    found = depth.read(0, 1)
    assert expected.std() > 0.005
    assert np.abs(found.values - expected).max() < 1e-5
    assert found.sky is None


def test_positions_are_resampled_as_the_release_does() -> None:
    torch.manual_seed(0)
    config = depth_anything_config(TINY, mask_token=True)
    embeddings = ReleasedEmbeddings(config.backbone_config)  # pyright: ignore[reportArgumentType]
    square = embeddings.interpolate_pos_encoding(torch.zeros(1, 26, 32), 70, 70)
    assert torch.equal(square, embeddings.position_embeddings)
    found = embeddings.interpolate_pos_encoding(torch.zeros(1, 25, 32), 56, 84)
    stock = super(ReleasedEmbeddings, embeddings).interpolate_pos_encoding(torch.zeros(1, 25, 32), 56, 84)
    assert found.shape == stock.shape == (1, 25, 32)
    assert torch.equal(found[:, 0], stock[:, 0])
    grid = embeddings.position_embeddings[:, 1:].reshape(1, 5, 5, 32).permute(0, 3, 1, 2)
    scale = torch.nn.functional.interpolate(grid, scale_factor=(4.1 / 5, 6.1 / 5), mode="bicubic")
    assert torch.allclose(found[:, 1:], scale.permute(0, 2, 3, 1).reshape(1, 24, 32))
    assert (found - stock).abs().max() > 0.01


def test_metres_stay_below_the_network_s_limit(root: Path) -> None:
    put_weights(root, "da2-metric-indoor", {FILE: da2_file(), CONFIG: da2_config(20)})
    advanced: list[int] = []
    request = EstimateRequest(short_side=56, device="cpu", advance=advanced.append)
    depth = INDOOR.estimate(clip_of(moving_frames(18)), request)
    assert (depth.kind, depth.scale) == ("depth", "metric")
    values = np.concatenate([depth.read(i, i + 6).values for i in (0, 6, 12)])
    assert values.shape == (18, 56, 84)
    assert sum(advanced) == 18
    assert values.min() > 0
    assert 2 < values.mean() < 18, "a sigmoid times 20"


def test_a_clip_of_disparity(root: Path) -> None:
    put_weights(root, "da2-small", {FILE: da2_file(), CONFIG: da2_config()})
    depth = RELATIVE.estimate(clip_of(moving_frames(30)), REQUEST)
    values = np.concatenate([depth.read(i, i + 10).values for i in (0, 10, 20)])
    assert values.shape == (30, 56, 84)
    assert values.min() >= 0
    assert np.isfinite(values).all()


def test_sizes(root: Path) -> None:
    put_weights(root, "da2-small", {FILE: da2_file(), CONFIG: da2_config()})
    put_weights(root, "da2-metric-indoor", {FILE: da2_file(), CONFIG: da2_config(20)})
    source = clip_of(moving_frames(1, 72, 128))
    for estimator, size in ((RELATIVE, (294, 518)), (INDOOR, (518, 924))):
        depth = estimator.estimate(source, EstimateRequest(device="cpu"))
        assert (depth.height, depth.width) == size


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (da2_config(20), "da2-small.*depth_anything, relative.*got depth_anything, metric, up to 20 m"),
        (b'{"model_type": "dpt"}', "got dpt, relative"),
        (b"{", "JSON in"),
        (b"[]", "a JSON object"),
    ],
)
def test_configs_of_other_networks(root: Path, config: bytes, said: str) -> None:
    put_weights(root, "da2-small", {FILE: da2_file(), CONFIG: config})
    with pytest.raises(WeightsError, match=said):
        RELATIVE.estimate(clip_of(moving_frames(1)), REQUEST)


def test_metric_weights_in_the_wrong_place(root: Path) -> None:
    put_weights(root, "da2-metric-indoor", {FILE: da2_file(), CONFIG: da2_config(80)})
    with pytest.raises(WeightsError, match="metric, up to 20 m; got depth_anything, metric, up to 80 m"):
        INDOOR.estimate(clip_of(moving_frames(1)), REQUEST)


def test_bad_weights(root: Path) -> None:
    weights = da2_file()
    del weights["neck.convs.0.weight"]
    folder = put_weights(root, "da2-small", {FILE: weights, CONFIG: da2_config()})
    with pytest.raises(WeightsError, match=r"1 missing \(neck\.convs\.0\.weight\)"):
        RELATIVE.estimate(clip_of(moving_frames(1)), REQUEST)
    (folder / FILE).write_bytes((folder / FILE).read_bytes()[:-5])
    with pytest.raises(WeightsError, match="cut off"):
        RELATIVE.estimate(clip_of(moving_frames(1)), REQUEST)
    (folder / FILE).unlink()
    with pytest.raises(WeightsError, match=r"model\.safetensors; got nothing"):
        RELATIVE.estimate(clip_of(moving_frames(1)), REQUEST)
    put_weights(root, "da2-small", {FILE: da2_file() | {"more": torch.ones(1)}, CONFIG: da2_config()})
    with pytest.raises(WeightsError, match=r"1 not known \(more\)"):
        RELATIVE.estimate(clip_of(moving_frames(1)), REQUEST)


def test_nan_of_the_network_names_the_frame(root: Path) -> None:
    weights = da2_file()
    weights["head.conv3.bias"][:] = torch.nan
    put_weights(root, "da2-small", {FILE: weights, CONFIG: da2_config()})
    with pytest.raises(DepthError, match="finite numbers from da2-small in frame 0"):
        RELATIVE.estimate(clip_of(moving_frames(2)), REQUEST).read(0, 1)


def test_cuts_are_said(root: Path) -> None:
    put_weights(root, "da2-small", {FILE: da2_file(), CONFIG: da2_config()})
    frames = np.concatenate([np.repeat(moving_frames(1, seed=seed), 4, axis=0) for seed in range(8)])
    depth = RELATIVE.estimate(clip_of(frames), REQUEST)
    for index in range(len(frames)):
        depth.read(index, index + 1)
    text = "no scale is carried over into frame 4, 8, 12, 16, 20 and 2 more, unlike the one before (a cut?)"
    assert depth.notices == (f"da2-small: {text}",)
