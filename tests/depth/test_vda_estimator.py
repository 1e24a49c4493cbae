"""`vda-small` from a pulled folder to disparity: the real network at a tiny size, and weights that are no good."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from depth.pretrained_tools import TINY, clip_of, moving_frames, put_weights, vda_file
from ex4d.core.arrays import Float32
from ex4d.depth.cache import cached_estimate
from ex4d.depth.estimator import DepthEstimator, EstimateRequest
from ex4d.depth.pretrained.pictures import network_size, prepare_pictures
from ex4d.depth.pretrained.vda_network import VideoDepthAnythingNetwork, fill_vda
from ex4d.depth.pretrained.video_depth_anything import VideoDepthAnythingEstimator
from ex4d.errors import ConfigError, DepthError, MissingDependencyError, WeightsError

FILE = "video_depth_anything_vits.pth"
ESTIMATOR: DepthEstimator = VideoDepthAnythingEstimator(sizes=TINY)
REQUEST = EstimateRequest(short_side=56, device="cpu")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EX4D_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("EX4D_CACHE", str(tmp_path / "cache"))
    return tmp_path / "weights"


def estimated(num_frames: int, request: EstimateRequest = REQUEST) -> Float32:
    frames = moving_frames(num_frames)
    depth = ESTIMATOR.estimate(clip_of(frames), request)
    return np.concatenate([depth.read(i, min(i + 7, num_frames)).values for i in range(0, num_frames, 7)])


def test_facts(root: Path) -> None:
    state = ESTIMATOR.ready()
    assert not state.ready
    assert state.fix.startswith("ex4d weights pull vda-small")
    assert ESTIMATOR.version == "1-none"
    put_weights(root, "vda-small", {FILE: vda_file()})
    assert ESTIMATOR.ready().ready
    first = ESTIMATOR.version
    assert len(first) > 60
    put_weights(root, "vda-small", {FILE: vda_file(salt="b")})
    assert ESTIMATOR.version != first
    assert (ESTIMATOR.name, ESTIMATOR.licence, ESTIMATOR.weights) == ("vda-small", "apache-2.0", ("vda-small",))
    assert (ESTIMATOR.is_instant, ESTIMATOR.is_preview, ESTIMATOR.brings_cameras) == (False, False, False)


def test_importing_it_loads_no_torch() -> None:
    code = (
        "import sys; from ex4d.depth.pretrained import video_depth_anything, depth_anything, depth_anything_metric;"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_short_clip_is_the_network_s_disparity(root: Path) -> None:
    weights = vda_file()
    put_weights(root, "vda-small", {FILE: weights})
    frames = moving_frames(5)
    advanced: list[int] = []
    request = EstimateRequest(short_side=56, device="cpu", advance=advanced.append)
    depth = ESTIMATOR.estimate(clip_of(frames), request)
    assert (depth.kind, depth.scale, depth.K, depth.path) == ("disparity", "relative", None, None)
    assert (depth.num_frames, depth.height, depth.width) == (5, 56, 84)
    chunk = depth.read(0, 5)
    assert sum(advanced) == 5
    assert chunk.sky is None
    assert depth.notices == ()
    network = VideoDepthAnythingNetwork(TINY)
    fill_vda(network, weights, TINY, "test")
    padded = np.concatenate([frames, np.repeat(frames[-1:], 27, axis=0)])
    with torch.inference_mode():
        whole = network(torch.from_numpy(prepare_pictures(padded, (56, 84)))).numpy()
    assert whole.std() > 0.01
    assert np.abs(chunk.values - whole[:5]).max() < 1e-4


def test_a_long_clip_streams_and_can_be_cached(root: Path, tmp_path: Path) -> None:
    put_weights(root, "vda-small", {FILE: vda_file()})
    found = estimated(49)
    assert found.shape == (49, 56, 84)
    assert found.min() >= 0
    assert np.isfinite(found).all()
    assert found.std(axis=(1, 2)).min() > 0
    source = clip_of(moving_frames(49))
    stored, _ = cached_estimate(ESTIMATOR, source, REQUEST, scratch=tmp_path / "s", folder=tmp_path / "c")
    assert np.abs(stored.read(0, 49).values - found).max() < 1e-5


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((288, 512), 294, (294, 518)),
        ((288, 512), 196, (196, 350)),
        ((1080, 1920), 518, (518, 924)),
        ((512, 288), 294, (518, 294)),
        ((480, 480), 300, (294, 294)),
        ((480, 640), 60, (56, 70)),
    ],
)
def test_network_sizes(size: tuple[int, int], short_side: int, expected: tuple[int, int]) -> None:
    assert network_size(*size, short_side) == expected


def test_default_sizes_on_the_cpu(root: Path) -> None:
    put_weights(root, "vda-small", {FILE: vda_file()})
    request = EstimateRequest(device="cpu")
    for (height, width), expected in {(72, 128): (294, 518), (100, 300): (168, 504)}.items():
        depth = ESTIMATOR.estimate(clip_of(np.zeros((1, height, width, 3), np.uint8)), request)
        assert (depth.height, depth.width) == expected


def test_sizes_and_devices_that_cannot_be_had(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_weights(root, "vda-small", {FILE: vda_file()})
    source = clip_of(moving_frames(1))
    for side in (7, 5000):
        with pytest.raises(ConfigError, match=rf"56 to 2044 px.*got {side}"):
            ESTIMATOR.estimate(source, EstimateRequest(short_side=side, device="cpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="CUDA device"):
        ESTIMATOR.estimate(source, EstimateRequest(device="cuda"))


def _without_a_block(weights: dict[str, Tensor]) -> None:
    for name in [name for name in weights if ".blocks.3." in name]:
        del weights[name]


def _renamed(weights: dict[str, Tensor]) -> None:
    weights["head.projects.0.weigth"] = weights.pop("head.projects.0.weight")


def _wider(weights: dict[str, Tensor]) -> None:
    weights["pretrained.norm.weight"] = torch.ones(33)


def _other_codes(weights: dict[str, Tensor]) -> None:
    name = next(name for name in weights if name.endswith("attention_blocks.1.pos_encoder.pe"))
    weights[name] = weights[name] + 0.01


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_without_a_block, r"14 missing \(pretrained\.blocks\.3\.attn\.proj\.bias.*download the file again"),
        (_renamed, r"1 missing.*1 not known \(head\.projects\.0\.weigth \(meant: head\.projects\.0\.weight\?\)"),
        (_wider, r"pretrained\.norm\.weight 33, not 32.*another size of the model"),
        (_other_codes, r"position codes of 32 frames.*pos_encoder\.pe of another kind"),
    ],
)
def test_partial_and_wrong_weights(root: Path, spoil: Callable[[dict[str, Tensor]], None], said: str) -> None:
    weights = vda_file()
    spoil(weights)
    put_weights(root, "vda-small", {FILE: weights})
    with pytest.raises(WeightsError, match=said):
        ESTIMATOR.estimate(clip_of(moving_frames(2)), REQUEST)


def test_a_file_that_is_cut_off(root: Path) -> None:
    file = put_weights(root, "vda-small", {FILE: vda_file()}) / FILE
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(WeightsError, match=rf"{FILE}.*cut off.*download it again"):
        ESTIMATOR.estimate(clip_of(moving_frames(2)), REQUEST)


def test_no_weights_at_all(root: Path) -> None:
    with pytest.raises(WeightsError, match="ex4d weights pull vda-small"):
        ESTIMATOR.estimate(clip_of(moving_frames(2)), REQUEST)


def test_without_torch_the_extra_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_weights(root, "vda-small", {FILE: vda_file()})
    monkeypatch.setitem(sys.modules, "torch", None)
    state = ESTIMATOR.ready()
    assert (state.ready, state.reason, state.fix) == (False, "not installed: torch", "pip install 'ex4d[gen]'")
    with pytest.raises(MissingDependencyError, match=r"'torch' for --depth vda-small.*ex4d\[gen\]"):
        ESTIMATOR.estimate(clip_of(moving_frames(1)), REQUEST)


def test_weights_of_every_size_fit_their_network_only(root: Path) -> None:
    put_weights(root, "vda-small", {FILE: vda_file()})
    with pytest.raises(WeightsError, match=r"exactly .* tensors .*Video Depth Anything\)"):
        VideoDepthAnythingEstimator().estimate(clip_of(moving_frames(2)), REQUEST)


def test_nan_of_the_network_names_the_frame(root: Path) -> None:
    weights = vda_file()
    weights["head.scratch.output_conv2.2.bias"][:] = torch.nan
    put_weights(root, "vda-small", {FILE: weights})
    depth = ESTIMATOR.estimate(clip_of(moving_frames(3)), REQUEST)
    with pytest.raises(DepthError, match=r"from vda-small in frame 0; got 4704 of 4704.*ex4d weights verify"):
        depth.read(0, 1)


def test_pictures_are_normalised() -> None:
    frames = np.full((2, 60, 80, 3), (0, 128, 255), np.uint8)
    for size in ((56, 70), (112, 140)):
        pictures = prepare_pictures(frames, size)
        assert pictures.shape == (2, 3, *size)
        assert pictures.flags.c_contiguous
        expected = [(0 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225]
        assert np.allclose(pictures.mean(axis=(0, 2, 3)), expected, atol=1e-4)


def test_shrinking_does_not_alias() -> None:
    stripes = np.zeros((1, 112, 168, 3), np.uint8)
    stripes[:, :, ::2] = 255
    assert prepare_pictures(stripes, (56, 84)).std(axis=(0, 2, 3)).max() < 1e-5
