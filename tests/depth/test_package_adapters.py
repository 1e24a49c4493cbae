"""`moge` and `depth-anything-3` against stand-ins for their packages, with the signatures of the real source.

microsoft/MoGe: moge/model/v2.py (``MoGeModel.from_pretrained``, ``infer``); ByteDance-Seed/Depth-Anything-3:
src/depth_anything_3/api.py (``DepthAnything3.inference``), specs.py (``Prediction``), utils/io/input_processor.py
(what it does to pictures). The stand-ins answer from a known scene: a picture's grey level is its frame's number.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ex4d.core.arrays import Float32, Float64
from ex4d.core.camera import invert_rigid, rebase
from ex4d.core.clip import ArrayClip
from ex4d.core.video import Video
from ex4d.depth.cache import cached_estimate
from ex4d.depth.estimator import DepthEstimator, EstimateRequest
from ex4d.depth.pretrained.depth_anything_3 import DepthAnything3Estimator
from ex4d.depth.pretrained.moge import MogeEstimator
from ex4d.errors import ConfigError, DepthError, InputError, WeightsError
from ex4d.io.depth.raw import RawDepthSource
from ex4d.weights.manifest import manifest_of, write_manifest

MOGE: DepthEstimator = MogeEstimator()
DA3: DepthEstimator = DepthAnything3Estimator()
REQUEST = EstimateRequest(device="cpu")

MOGE_SOURCE = """
import torch

CALLS = []
FRAME = {"nan": None, "no surface": None}

class MoGeModel(torch.nn.Module):
    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, model_kwargs=None, **hf_kwargs):
        checkpoint = torch.load(pretrained_model_name_or_path, map_location="cpu", weights_only=True)
        model = cls()
        model.load_state_dict(checkpoint["model"])
        print("loaded")
        return model

    def __init__(self):
        super().__init__()
        self.focal = torch.nn.Parameter(torch.zeros(1))

    @torch.inference_mode()
    def infer(self, image, num_tokens=None, resolution_level=9, force_projection=True, apply_mask=True, fov_x=None,
              use_fp16=True):
        assert image.dtype == torch.float32 and image.ndim == 3 and image.shape[0] == 3 and 0 <= image.max() <= 1
        CALLS.append((tuple(image.shape), num_tokens, resolution_level, fov_x, use_fp16))
        _, height, width = image.shape
        frame = round(float(image.mean()) * 255)
        depth = 1 + frame + torch.arange(width).expand(height, width) / width
        mask = (torch.arange(height) >= height // 4)[:, None].expand(height, width).clone()
        fx = self.focal[0] + 0.01 * ((frame * 7) % 5 - 2)
        if fov_x is not None:
            fx = 0.5 / torch.tan(torch.deg2rad(torch.tensor(fov_x)) / 2)
        intrinsics = torch.tensor([[float(fx), 0, 0.5], [0, float(fx) * width / height, 0.5], [0, 0, 1]])
        if frame == FRAME["no surface"]:
            mask[:] = False
            intrinsics[0, 0] = torch.nan
        if frame == FRAME["nan"]:
            depth[-1, -1] = torch.nan
        print("inferred")
        depth = torch.where(mask, depth, torch.inf)
        return {"points": torch.stack([depth] * 3, -1), "intrinsics": intrinsics, "depth": depth, "mask": mask}
"""

DA3_SOURCE = """
from dataclasses import dataclass
from pathlib import Path
import numpy as np
import torch
from safetensors.torch import load_file

CALLS = []
SAYS = {"nan": None, "extrinsics": True, "noise": 0.0, "tilt": 0.0, "sky": False, "focal": 1.0}

@dataclass
class Prediction:
    depth: np.ndarray
    is_metric: int
    sky: np.ndarray | None = None
    conf: np.ndarray | None = None
    extrinsics: np.ndarray | None = None
    intrinsics: np.ndarray | None = None
    processed_images: np.ndarray | None = None
    gaussians: object | None = None
    aux: dict | None = None
    scale_factor: float | None = None

class DepthAnything3(torch.nn.Module):
    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        model = cls()
        model.load_state_dict(load_file(Path(pretrained_model_name_or_path) / "model.safetensors"))
        return model

    def __init__(self, model_name="da3-large", **kwargs):
        super().__init__()
        self.scene = torch.nn.Parameter(torch.zeros(200, 4, 4, dtype=torch.float64))

    def inference(self, image, extrinsics=None, intrinsics=None, align_to_input_ext_scale=True, infer_gs=False,
                  use_ray_pose=False, ref_view_strategy="saddle_balanced", render_exts=None, render_ixts=None,
                  render_hw=None, process_res=504, process_res_method="upper_bound_resize", export_dir=None,
                  export_format="mini_npz", export_feat_layers=None, conf_thresh_percentile=40.0,
                  num_max_points=1_000_000, show_cameras=True, feat_vis_fps=15, export_kwargs={}):
        assert isinstance(image, list) and all(i.dtype == np.uint8 and i.shape[2] == 3 for i in image)
        height, width, _ = image[0].shape
        assert max(height, width) == process_res and height % 14 == width % 14 == 0, "the package would resize"
        frames = [round(float(picture.mean())) for picture in image]
        CALLS.append(frames)
        print("[INFO] inference")
        rng = np.random.default_rng(len(CALLS))
        scale = (1.0, 3.7, 0.2, 11.0)[len(CALLS) % 4]
        world = np.eye(4)
        world[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        world[:3, :3] *= np.sign(np.linalg.det(world[:3, :3]))
        world[:3, 3] = rng.normal(size=3)
        poses = self.scene.numpy()[frames] @ np.linalg.inv(world)
        poses[:, :3, 3] *= scale
        depth = np.stack([2 + np.sin(f / 9) + np.arange(width) / width + np.zeros((height, 1)) for f in frames])
        depth *= 1 + SAYS["tilt"] * (len(CALLS) % 2) * (np.arange(width) / width - 0.5)
        outlier = rng.random(depth.shape) < SAYS["noise"] * (len(CALLS) % 2)
        depth[outlier] = rng.uniform(0.1, 50, outlier.sum())
        depth = (depth * scale).astype(np.float32)
        if SAYS["nan"] in frames:
            depth[frames.index(SAYS["nan"]), 3, 4] = np.nan
        K = np.zeros((len(image), 3, 3), np.float32)
        K[:, 0, 0] = SAYS["focal"] * (100 + np.array(frames) % 3)
        K[:, 1, 1], K[:, 0, 2], K[:, 1, 2], K[:, 2, 2] = 90, width / 2, height / 2, 1
        return Prediction(
            depth=depth, is_metric=0, conf=np.ones_like(depth), intrinsics=K,
            sky=(np.arange(height) < np.array(frames)[:, None] % 5)[..., None] & np.ones((1, 1, width), bool)
            if SAYS["sky"] else None,
            extrinsics=poses[:, :3].astype(np.float32) if SAYS["extrinsics"] else None)
"""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights of both, and an empty folder ``packages`` on the path."""
    monkeypatch.setenv("EX4D_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("EX4D_CACHE", str(tmp_path / "cache"))
    (tmp_path / "packages").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    for name in ("moge", "moge.model", "moge.model.v2", "depth_anything_3", "depth_anything_3.api"):
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def pulled(root: Path, name: str, file: str, save: Any) -> None:
    folder = root / "weights" / name
    folder.mkdir(parents=True)
    save(folder / file)
    write_manifest(folder, manifest_of(folder, sources={}))


@pytest.fixture
def moge(root: Path) -> Any:
    """The stand-in's module."""
    write(root / "packages" / "moge", {"__init__.py": "", "model/__init__.py": "", "model/v2.py": MOGE_SOURCE})
    pulled(root, "moge", "model.pt", lambda path: torch.save({"model": {"focal": torch.tensor([0.8])}}, path))
    import moge.model.v2 as module  # pyright: ignore[reportMissingImports]

    return module


def true_path(num_frames: int) -> Float64:
    """world_to_camera float64 [N,4,4] of a camera that turns and moves."""
    camera_to_world = np.tile(np.eye(4), (num_frames, 1, 1))
    for index in range(num_frames):
        turn = 0.01 * index
        camera_to_world[index, :3, :3] = [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
        camera_to_world[index, :3, 3] = (0.02 * index, np.sin(index / 20), 0.01 * index)
    return invert_rigid(camera_to_world)


def true_depth(num_frames: int, width: int) -> Float64:
    """The stand-in's scene, [N,1,W]."""
    return 2 + np.sin(np.arange(num_frames) / 9)[:, None, None] + np.arange(width) / width


@pytest.fixture
def da3(root: Path) -> Any:
    """The stand-in's module."""
    from safetensors.torch import save_file

    write(root / "packages" / "depth_anything_3", {"__init__.py": "", "api.py": DA3_SOURCE})
    scene = torch.from_numpy(true_path(200))
    pulled(root, "depth-anything-3", "model.safetensors", lambda path: save_file({"scene": scene}, path))
    import depth_anything_3.api as module  # pyright: ignore[reportMissingImports]

    return module


def clip(num_frames: int, height: int = 90, width: int = 160) -> ArrayClip[Video]:
    """Frame i is grey of level i."""
    frames = np.broadcast_to(np.arange(num_frames, dtype=np.uint8)[:, None, None, None], (num_frames, height, width, 3))
    return ArrayClip(Video(frames=frames.copy(), timestamps_s=np.arange(num_frames) / 24))


def read_all(depth: RawDepthSource) -> Float32:
    num = depth.num_frames
    return np.concatenate([depth.read(i, min(i + 7, num)).values for i in range(0, num, 7)])


# both


@pytest.mark.parametrize(
    ("estimator", "repository"), [(MOGE, "microsoft/MoGe"), (DA3, "ByteDance-Seed/Depth-Anything-3")]
)
def test_without_the_package(root: Path, estimator: DepthEstimator, repository: str) -> None:
    state = estimator.ready()
    assert not state.ready
    assert f"git+https://github.com/{repository}.git" in state.fix
    with pytest.raises(WeightsError, match=rf"not installed: .*pip install 'ex4d\[gen\]'.*{repository}"):
        estimator.estimate(clip(1), REQUEST)
    assert estimator.brings_cameras
    assert not estimator.is_preview
    assert not estimator.is_instant
    assert estimator.licence in ("mit", "apache-2.0")


def test_importing_them_loads_no_torch() -> None:
    code = (
        "import sys, ex4d.depth.pretrained.moge, ex4d.depth.pretrained.depth_anything_3\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_weights(moge: Any, root: Path) -> None:
    (root / "weights" / "moge" / "weights.json").unlink()
    with pytest.raises(WeightsError, match="ex4d weights pull moge"):
        MOGE.estimate(clip(1), REQUEST)


def test_another_package_of_that_name(root: Path, moge: Any) -> None:
    del moge.MoGeModel
    with pytest.raises(WeightsError, match=r"MoGeModel in the package moge.*git\+https"):
        MOGE.estimate(clip(1), REQUEST)


@pytest.mark.parametrize("content", [b"", b"\x80\x02no", b"PK\x03\x04"])
def test_weights_that_do_not_load(root: Path, moge: Any, content: bytes) -> None:
    (root / "weights" / "moge" / "model.pt").write_bytes(content)
    with pytest.raises(WeightsError, match=r"model\.pt.*download it again"):
        MOGE.estimate(clip(1), REQUEST)


def test_weights_of_another_network(root: Path, moge: Any) -> None:
    torch.save({"model": {"other": torch.zeros(1)}}, root / "weights" / "moge" / "model.pt")
    with pytest.raises(WeightsError, match="ex4d weights verify moge"):
        MOGE.estimate(clip(1), REQUEST)


# MoGe


def test_moge(moge: Any, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished: list[int] = []
    depth = MOGE.estimate(clip(5), EstimateRequest(device="cpu", advance=finished.append))
    assert (depth.kind, depth.scale, depth.height, depth.width) == ("depth", "metric", 90, 160)
    parts = [depth.read(0, 2), depth.read(2, 5)]
    values = np.concatenate([part.values for part in parts])
    sky = np.concatenate([part.sky for part in parts if part.sky is not None])
    np.testing.assert_array_equal(sky[:, :, 0], np.tile(np.arange(90) < 22, (5, 1)))
    want = 1 + np.arange(5)[:, None, None] + np.arange(160) / 160
    np.testing.assert_allclose(values, np.where(sky, 0, want), rtol=1e-6)
    # the five frames say 0.78 to 0.82 of the width
    np.testing.assert_allclose(np.asarray(depth.K), [[128, 0, 80], [0, 128, 45], [0, 0, 1]], rtol=1e-6)
    assert depth.path is None
    assert finished == [1] * 5
    assert [call[1:] for call in moge.CALLS] == [(None, 0, None, False)] * 5
    assert "the median of 5 frames" in depth.notices[0]
    assert capsys.readouterr().out == ""
    cached, _ = cached_estimate(MOGE, clip(5), REQUEST, scratch=root)
    np.testing.assert_allclose(cached.read(0, 5).values, values)
    np.testing.assert_allclose(np.asarray(cached.K), np.asarray(depth.K))


def test_moge_is_told_the_focal_length_and_the_size(moge: Any) -> None:
    K = np.array([[200.0, 0, 70], [0, 200, 40], [0, 0, 1]])
    depth = MOGE.estimate(clip(2), EstimateRequest(device="cpu", K=K, short_side=56))
    assert read_all(depth).shape == (2, 56, 100)
    shape, tokens, _, fov, _ = moge.CALLS[0]
    assert (shape, tokens) == ((3, 56, 100), round(56 * 100 / 196))
    assert fov == pytest.approx(np.degrees(2 * np.arctan(0.4)))
    np.testing.assert_allclose(np.asarray(depth.K), [[125, 0, 50], [0, 125, 28], [0, 0, 1]], rtol=1e-5)
    assert "as given" in depth.notices[0]
    with pytest.raises(ConfigError, match="56 px"):
        MOGE.estimate(clip(2), EstimateRequest(device="cpu", short_side=55))


def test_moge_frames_without_surface_have_no_say_in_K(moge: Any) -> None:
    moge.FRAME["no surface"] = 1
    depth = MOGE.estimate(clip(3), REQUEST)
    values = read_all(depth)
    assert not values[1].any()
    # frames 0 and 2 say 0.78 and 0.82
    np.testing.assert_allclose(np.asarray(depth.K)[0, 0], 160 * 0.8, rtol=1e-5)
    assert "the median of 2 frames" in depth.notices[0]


def test_moge_nan_names_the_frame(moge: Any) -> None:
    moge.FRAME["nan"] = 2
    depth = MOGE.estimate(clip(4), REQUEST)
    depth.read(0, 2)
    with pytest.raises(DepthError, match="moge in frame 2"):
        depth.read(2, 4)


# Depth Anything 3


def test_da3_of_one_chunk(da3: Any, capsys: pytest.CaptureFixture[str]) -> None:
    finished: list[int] = []
    depth = DA3.estimate(clip(5), EstimateRequest(device="cpu", advance=finished.append))
    assert (depth.kind, depth.scale, depth.height, depth.width) == ("depth", "relative", 280, 504)
    values = read_all(depth)
    ratio = values / true_depth(5, 504)
    assert np.ptp(ratio) < 1e-5 * ratio.mean()
    assert depth.path is not None
    np.testing.assert_array_equal(depth.path.world_to_camera[0], np.eye(4))
    want = rebase(true_path(5))
    want[:, :3, 3] *= ratio.mean()
    np.testing.assert_allclose(depth.path.world_to_camera, want, atol=1e-5)
    # 100, 101, 102, 100, 101: one K
    np.testing.assert_allclose(depth.path.K, np.tile([[101, 0, 252], [0, 90, 140], [0, 0, 1]], (5, 1, 1)))
    np.testing.assert_array_equal(np.asarray(depth.K), depth.path.K[0])
    assert (depth.path.height, depth.path.width) == (280, 504)
    assert sum(finished) == 5
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("num_frames", [16, 17, 64, 65, 113, 150])
def test_da3_joins_chunks_of_any_scale_and_world(da3: Any, num_frames: int) -> None:
    depth = DA3.estimate(clip(num_frames), EstimateRequest(device="cpu", short_side=56))
    values = read_all(depth)
    assert values.shape == (num_frames, 56, 98)
    ratio = values / true_depth(num_frames, 98)
    np.testing.assert_allclose(ratio, ratio[0, 0, 0], rtol=1e-4)
    want = rebase(true_path(num_frames))
    want[:, :3, 3] *= ratio[0, 0, 0]
    assert depth.path is not None
    np.testing.assert_allclose(depth.path.world_to_camera, want, atol=1e-3)
    assert sorted({frame for call in da3.CALLS for frame in call}) == list(range(num_frames))
    assert max(map(len, da3.CALLS)) <= 64
    assert ("drift" in " ".join(depth.notices)) == (num_frames > 64)


def test_da3_scale_of_a_joint_is_robust(da3: Any) -> None:
    da3.SAYS["noise"] = 0.2
    values = read_all(DA3.estimate(clip(113), EstimateRequest(device="cpu", short_side=56)))
    ratio = np.median(values / true_depth(113, 98), axis=(1, 2))
    np.testing.assert_allclose(ratio, ratio[0], rtol=0.02)


def test_da3_chunks_are_cross_faded(da3: Any) -> None:
    """Every other chunk is tilted by 17 %; over 16 shared frames that is 1 % a frame."""
    da3.SAYS["tilt"] = 0.17
    values = read_all(DA3.estimate(clip(113), EstimateRequest(device="cpu", short_side=56)))
    ratio = (values / true_depth(113, 98))[:, 0]
    steps = np.abs(np.diff(ratio / ratio[0].mean(), axis=0)).max(axis=1)
    assert 0.004 < steps.max() < 0.006
    assert (steps > 1e-4).sum() == 2 * 17


def test_da3_sky_goes_over_in_the_middle_of_a_joint(da3: Any) -> None:
    da3.SAYS["sky"] = True
    depth = DA3.estimate(clip(70), EstimateRequest(device="cpu", short_side=56))
    sky = depth.read(0, 70).sky
    assert sky is not None
    np.testing.assert_array_equal(sky[:, :, 0].sum(axis=1), np.arange(70) % 5)


def test_da3_nan_names_the_frame_of_the_clip(da3: Any) -> None:
    da3.SAYS["nan"] = 67
    with pytest.raises(DepthError, match="depth-anything-3 in frame 67"):
        read_all(DA3.estimate(clip(70), EstimateRequest(device="cpu", short_side=56)))


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [("extrinsics", False, "without them"), ("focal", 0.0, "in frame 0"), ("focal", np.nan, "in frame 0")],
)
def test_da3_without_usable_cameras(da3: Any, key: str, value: Any, says: str) -> None:
    da3.SAYS[key] = value
    with pytest.raises(InputError, match=says):
        read_all(DA3.estimate(clip(2), EstimateRequest(device="cpu", short_side=56)))
