"""`depthcrafter` from pulled folders to disparity: the real classes at a tiny size, and weights that are no good."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ex4d.core.arrays import Float32
from ex4d.core.clip import ArrayClip
from ex4d.core.video import Video
from ex4d.depth.cache import cached_estimate
from ex4d.depth.estimator import DepthEstimator, EstimateRequest
from ex4d.depth.mapping import MappedDepthClip, measure_disparity
from ex4d.depth.pretrained.depthcrafter import DepthCrafterEstimator, network_size
from ex4d.depth.pretrained.depthcrafter_networks import load_depthcrafter, memory_errors
from ex4d.errors import ConfigError, DepthError, OutOfMemoryError, WeightsError
from parity.tiny_svd import save_weights

# diffusers' Euler scheduler hands a tensor to np.array (scheduling_euler_discrete.py, set_timesteps)
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

ESTIMATOR: DepthEstimator = DepthCrafterEstimator()
UNET = "depthcrafter/diffusion_pytorch_model.safetensors"
VAE = "svd/vae/diffusion_pytorch_model.fp16.safetensors"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EX4D_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("EX4D_CACHE", str(tmp_path / "cache"))
    return tmp_path / "weights"


class Recorded(ArrayClip[Video]):
    """A clip that remembers how many frames were asked for at once."""

    most = 0

    def read(self, start: int, stop: int) -> Video:
        self.most = max(self.most, stop - start)
        return super().read(start, stop)


def clip(num_frames: int, height: int = 60, width: int = 70) -> Recorded:
    frames = np.random.default_rng(num_frames).integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)
    return Recorded(Video(frames=frames, timestamps_s=np.arange(num_frames) / 24))


def estimate(source: ArrayClip[Video], request: EstimateRequest | None = None) -> Float32:
    depth = ESTIMATOR.estimate(source, request or EstimateRequest(device="cpu"))
    num = source.num_frames
    return np.concatenate([depth.read(i, min(i + 3, num)).values for i in range(0, num, 3)])


def test_facts(root: Path) -> None:
    state = ESTIMATOR.ready()
    assert not state.ready
    assert "ex4d weights pull depthcrafter && ex4d weights pull svd" in state.fix
    assert ESTIMATOR.version == "1-none"
    with pytest.raises(WeightsError, match="ex4d weights pull depthcrafter"):
        estimate(clip(1))
    save_weights(root)
    assert ESTIMATOR.ready().ready
    first = ESTIMATOR.version
    preprocessor = root / "svd" / "feature_extractor" / "preprocessor_config.json"
    preprocessor.write_text(preprocessor.read_text().replace("0.481", "0.482"))
    assert ESTIMATOR.version != first
    assert (ESTIMATOR.is_instant, ESTIMATOR.is_preview, ESTIMATOR.brings_cameras) == (False, False, False)
    assert "academic, research and education" in ESTIMATOR.licence


def test_importing_it_loads_no_torch() -> None:
    code = "import sys, ex4d.depth.pretrained.depthcrafter; assert not {'torch', 'diffusers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_disparity_of_a_clip(root: Path) -> None:
    save_weights(root)
    source, finished = clip(10), list[int]()
    depth = ESTIMATOR.estimate(source, EstimateRequest(device="cpu", advance=finished.append))
    assert (depth.kind, depth.scale, depth.height, depth.width) == ("disparity", "relative", 64, 64)
    values = np.concatenate([depth.read(0, 4).values, depth.read(4, 10).values])
    assert values.shape == (10, 64, 64)
    assert values.dtype == np.float32
    assert 0 <= values.min() < values.max() <= 1
    assert finished == [8, 2]
    assert source.most == 8
    assert (depth.K, depth.path) == (None, None)
    assert [ESTIMATOR.licence in notice for notice in depth.notices] == [True]


def test_seeds(root: Path) -> None:
    save_weights(root)
    first, again, other = (estimate(clip(2), EstimateRequest(device="cpu", seed=seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-2


def test_the_official_mapping_stretches_it_over_the_clip(root: Path, tmp_path: Path) -> None:
    """What the release does: d = (x − min)/(max − min) over the clip, z = 10000 / (3900 d)."""
    save_weights(root)
    raw, _ = cached_estimate(ESTIMATOR, clip(3), EstimateRequest(device="cpu"), scratch=tmp_path)
    mapped = MappedDepthClip(raw=raw, statistics=measure_disparity(raw), mapping="official")
    values = raw.read(0, 3).values
    stretched = (values - values.min()) / (values.max() - values.min())
    want = np.clip(10000 / np.maximum(stretched * np.float32(3900), np.float32(1e-5)), 1e-4, 1e4)
    np.testing.assert_allclose(mapped.read(0, 3).depth, want, rtol=1e-6)
    assert any(ESTIMATOR.licence in notice for notice in raw.notices)


@pytest.mark.parametrize(
    ("sides", "want"),
    [
        ((576, 1024), (576, 1024)),
        ((1080, 1920), (576, 1024)),
        ((1920, 1080), (1024, 576)),
        ((480, 640), (512, 640)),  # each side by itself, half to even
        ((590, 1050), (576, 1024)),  # rounded first, so no scaling
        ((20, 700), (64, 704)),
        ((720, 2000), (384, 1024)),
    ],
)
def test_size_as_released(sides: tuple[int, int], want: tuple[int, int]) -> None:
    assert network_size(*sides) == want


def test_size_on_request() -> None:
    assert network_size(1080, 1920, 256) == (256, 448)
    assert network_size(1000, 4000, 512) == (512, 2048)
    with pytest.raises(ConfigError, match="at least 64 px"):
        network_size(1080, 1920, 63)


def test_nan_names_the_frame(root: Path) -> None:
    save_weights(root)
    model = load_depthcrafter(root / "depthcrafter", root / "svd", torch.device("cpu"))
    latents = torch.randn(3, 4, 8, 8)
    assert np.isfinite(model.decode(latents, 8)).all()
    latents[:] = torch.nan
    with pytest.raises(DepthError, match="in frame 8; got NaN"):
        model.decode(latents, 8)
    tensors = load_file(root / UNET)
    tensors["conv_out.bias"][0] = torch.inf
    save_file(tensors, root / UNET)
    with pytest.raises(DepthError, match="in frame 0; got NaN or infinity"):
        estimate(clip(2))


def _lose_a_tensor(root: Path) -> None:
    tensors = load_file(root / UNET)
    del tensors["conv_out.bias"]
    save_file(tensors, root / UNET)


def _change_a_shape(root: Path) -> None:
    tensors = load_file(root / VAE)
    tensors["quant_conv.bias"] = torch.zeros(3)
    save_file(tensors, root / VAE)


def _cut_off(root: Path) -> None:
    (root / UNET).write_bytes((root / UNET).read_bytes()[:-1000])


def _other_network(root: Path) -> None:
    (root / "svd/vae/config.json").write_bytes((root / "svd/image_encoder/config.json").read_bytes())


def _no_config(root: Path) -> None:
    (root / "depthcrafter/config.json").unlink()


def _no_mean(root: Path) -> None:
    (root / "svd/feature_extractor/preprocessor_config.json").write_text(json.dumps({"image_mean": None}))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_lose_a_tensor, r"1 missing \(conv_out\.bias\)"),
        (_change_a_shape, r"quant_conv\.bias 3, not 8"),
        (_cut_off, "cut off"),
        (_other_network, "svd.vae"),
        (_no_config, r"config\.json"),
        (_no_mean, "image_mean"),
    ],
)
def test_weights_that_are_no_good(root: Path, damage: Callable[[Path], None], says: str) -> None:
    save_weights(root)
    damage(root)
    with pytest.raises(WeightsError, match=says):
        ESTIMATOR.estimate(clip(1), EstimateRequest(device="cpu"))


def test_a_full_gpu_is_said() -> None:
    with pytest.raises(OutOfMemoryError, match=r"1024x576.*smaller size"), memory_errors("depthcrafter at 1024x576"):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nmore")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_no_cuda_is_said(root: Path) -> None:
    save_weights(root)
    with pytest.raises(ConfigError, match="CUDA"):
        ESTIMATOR.estimate(clip(1), EstimateRequest(device="cuda"))
