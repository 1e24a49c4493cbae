"""`write_depth_folder` on tiny clips: what its files mean, that they read back, repeat, resume and replace."""

import json
import os
import sys
from collections.abc import Generator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: spinning threads steal other workers' cores

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import save

from depth.pretrained_tools import TINY, da2_config, da2_file, moving_frames, put_weights
from ex4d.core.clip import ArrayClip
from ex4d.core.depth import DepthVideo
from ex4d.core.video import Video
from ex4d.depth import registry, source
from ex4d.depth.layout import LayoutEstimator
from ex4d.depth.pretrained.depth_anything import DepthAnythingEstimator
from ex4d.depth.pretrained.moge import MogeEstimator
from ex4d.depth.result import DepthConfig
from ex4d.errors import ConfigError, DepthError, InputError, MissingDependencyError, OutputError, WeightsError
from ex4d.io.cameras.files import read_cameras
from ex4d.io.encode_delivery import DeliveryWriter
from ex4d.io.video import VideoReader, probe_video
from ex4d.pipeline import depth_job, depth_weights, ingest
from ex4d.pipeline.config import ClipConfig, RunConfig, config_from_dict
from ex4d.pipeline.depth_files import FlickerMeter, color_disparity, measure_depth
from ex4d.pipeline.depth_job import DepthFormat, write_depth_folder
from ex4d.pipeline.depth_weights import fetch_missing
from ex4d.pipeline.progress import SilentReporter
from ex4d.scene.clip import scene_clip
from ex4d.scene.generate import make_scene
from hub_server import FakeHub, serving

HEIGHT, WIDTH, NUM = 48, 64, 5
DA2 = DepthAnythingEstimator(name="da2-small", sizes=TINY)
INDOOR = DepthAnythingEstimator(name="da2-metric-indoor", max_depth_m=20, sizes=TINY)
ALL: tuple[DepthFormat, ...] = ("npz", "exr", "mkv")
FILES = {"depth.npz", "preview.mp4", "source_cameras.json", "stats.json", "timings.json"}


@pytest.fixture(autouse=True)
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """EX4D_WEIGHTS of each test."""
    torch.set_num_threads(1)
    monkeypatch.setenv("EX4D_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("EX4D_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return tmp_path / "weights"


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of the Depth Anything family at a tiny size, under their names."""
    estimators = (DA2, INDOOR, LayoutEstimator())
    for module in (registry, source, depth_weights, depth_job):
        monkeypatch.setattr(module, "ESTIMATORS", estimators)
    monkeypatch.setattr(ingest, "ESTIMATOR_NAMES", tuple(estimator.name for estimator in estimators))
    for module in (registry, source, depth_weights):
        monkeypatch.setattr(module, "AUTO", ("da2-small", "layout"))
        monkeypatch.setattr(module, "METRIC", ("da2-metric-indoor",))


def write_video(path: Path, frames: np.ndarray) -> Path:
    with DeliveryWriter(path, height=frames.shape[1], width=frames.shape[2], fps=Fraction(24)) as writer:
        writer.write(frames, np.arange(len(frames)) / 24)
    return path


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """clip.mp4, filmed by a moving camera, and depth.npz, exact but for one hole, with its cameras."""
    folder = tmp_path_factory.mktemp("media")
    clip = scene_clip(make_scene(0), num_frames=NUM, fps=24.0, height=HEIGHT, width=WIDTH, camera_motion="dolly")
    write_video(folder / "clip.mp4", clip.read(0, NUM).frames)
    depth, path = clip.depth.read(0, NUM).depth.copy(), clip.path
    depth[:, 5:9, 20:30] = 0
    np.savez(folder / "depth.npz", depth=depth, K=path.K, world_to_camera=path.world_to_camera)
    return folder


@pytest.fixture(scope="module")
def soft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A texture that moves, for networks."""
    return write_video(tmp_path_factory.mktemp("soft") / "clip.mp4", moving_frames(4, 56, 84))


def config(media: Path, **changes: Any) -> RunConfig:
    values: dict[str, Any] = {"depth": DepthConfig(depth=str(media / "depth.npz")), "generator": "none"}
    return RunConfig(input=str(media / "clip.mp4"), **{**values, **changes})


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def stats_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "stats.json").read_text("utf-8"))


def test_files_read_back_to_the_same_depth_and_cameras(media: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = write_depth_folder(config(media), out, formats=ALL)
    images = {f"depth/{i:06d}.exr" for i in range(NUM)}
    assert names(out) == FILES | images | {"depth.mkv", "depth.json"}
    with np.load(media / "depth.npz") as truth, np.load(out / "depth.npz") as written:
        assert np.array_equal(written["depth"], truth["depth"])
        assert np.allclose(written["K"], truth["K"], rtol=1e-12)
        assert np.allclose(written["world_to_camera"], truth["world_to_camera"], atol=1e-12)
        depth, cameras = written["depth"], written["world_to_camera"]
    assert np.ptp(cameras[:, :3, 3]) > 0.01, "the camera moves"
    assert np.array_equal(read_cameras(out / "source_cameras.json").path.world_to_camera, cameras)
    tolerance = {"depth.npz": 0.0, "depth": 0.0, "depth.mkv": 1e-3}
    for given, relative in tolerance.items():
        again = tmp_path / f"again {given}"
        write_depth_folder(config(media, depth=DepthConfig(depth=str(out / given))), again)
        with np.load(again / "depth.npz") as written:
            assert np.array_equal(written["depth"] > 0, depth > 0)
            assert np.abs(written["depth"] - depth).max() <= relative * depth.max()
            if given == "depth.npz":
                assert np.allclose(written["world_to_camera"], cameras, atol=1e-12)
    assert json.loads(json.dumps(made.stats)) == stats_of(out)


def test_stats_are_those_of_the_maps(media: Path, tmp_path: Path) -> None:
    write_depth_folder(config(media), tmp_path / "out")
    stats = stats_of(tmp_path / "out")
    with np.load(media / "depth.npz") as file:
        depth = file["depth"]
    assert [frame["time_s"] for frame in stats["frames"]] == pytest.approx(np.arange(NUM) / 24)
    for one, frame in zip(depth, stats["frames"], strict=True):
        known = one[one > 0]
        assert [frame[name] for name in ("min", "median", "max")] == pytest.approx(
            [known.min(), np.median(known), known.max()]
        )
        assert frame["valid_share"] == pytest.approx(1 - 40 / (HEIGHT * WIDTH))
    assert [frame["flicker"] is None for frame in stats["frames"]] == [True] + [False] * (NUM - 1)
    assert (stats["nearest"], stats["farthest"]) == pytest.approx((depth[depth > 0].min(), depth.max()))
    for name in ("min", "median", "max", "valid_share", "flicker"):
        assert stats["mean"][name] == pytest.approx(np.mean([f[name] for f in stats["frames"] if f[name] is not None]))
    assert stats["depth"]["source"] == "file"
    assert stats["depth"]["licence"] is None
    assert stats["depth"]["scale"] == "relative"
    assert stats["source_cameras"]["origin"] == "depth"
    assert "verdict" in stats["source_cameras"]["motion"]
    assert stats["intrinsics"].startswith("K came with the depth")
    assert stats["intrinsics"] in stats["notices"]
    again = config_from_dict(RunConfig, stats["config"])
    assert (again.input, again.depth) == (config(media).input, config(media).depth)


def test_equal_runs_give_equal_bytes_with_and_without_the_cache(
    soft: Path, weights: Path, tmp_path: Path, tiny: None
) -> None:
    put_weights(weights, "da2-small", {"model.safetensors": da2_file(), "config.json": da2_config()})
    depth = DepthConfig(depth="da2-small", short_side=56, device="cpu")
    settings = RunConfig(input=str(soft), depth=depth)
    write_depth_folder(settings, tmp_path / "a", formats=("npz", "mkv"))
    assert list((tmp_path / "cache" / "depth").iterdir())
    write_depth_folder(settings, tmp_path / "b", formats=("mkv", "npz"))
    write_depth_folder(replace(settings, depth=replace(depth, cache=False)), tmp_path / "c", formats=("npz", "mkv"))
    stats = stats_of(tmp_path / "a")
    assert (stats["depth"]["source"], stats["depth"]["licence"]) == ("da2-small", "apache-2.0")
    for name in names(tmp_path / "a") - {"timings.json"}:
        for other in ("b", "c"):
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / other / name).read_bytes(), name


def test_measured_depth_of_a_recording(tmp_path: Path) -> None:
    folder = tmp_path / "kitchen"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        name = f"frame-{i:06d}"
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).save(folder / f"{name}.color.png")
        codes = np.full((24, 32), 1500 + 10 * i, np.uint16)
        codes[:4] = 0
        Image.fromarray(codes).save(folder / f"{name}.depth.png")
        pose = np.eye(4)
        pose[0, 3] = 0.1 * i
        np.savetxt(folder / f"{name}.pose.txt", pose)
    write_depth_folder(RunConfig(input=str(folder), clip=ClipConfig(frames="1:3")), tmp_path / "out")
    stats = stats_of(tmp_path / "out")
    assert (stats["depth"]["source"], stats["depth"]["scale"]) == ("rgbd", "metric")
    with np.load(tmp_path / "out" / "depth.npz") as written:
        assert written["depth"][:, 10, 10] == pytest.approx([1.51, 1.52])
        assert not written["depth"][:, :4].any()
        assert written["is_metric"] == 1
        assert written["world_to_camera"][1, 0, 3] == pytest.approx(-0.1)
        assert written["K"][0, 0, 0] == pytest.approx(585 / 640 * 32)


def test_a_picture_is_a_clip_of_one_frame(media: Path, tmp_path: Path) -> None:
    Image.fromarray(moving_frames(1)[0]).save(tmp_path / "one.png")
    write_depth_folder(RunConfig(input=str(tmp_path / "one.png"), depth=DepthConfig(depth="layout")), tmp_path / "out")
    stats = stats_of(tmp_path / "out")
    assert stats["num_frames"] == 1
    assert stats["mean"]["flicker"] is None
    assert stats["depth"]["is_preview"]
    assert probe_video(tmp_path / "out" / "preview.mp4").num_frames == 1


def test_interrupted_then_resumed_is_the_same(media: Path, tmp_path: Path) -> None:
    class Stopping(SilentReporter):
        def begin(self, stage: str, total: int | None, unit: str = "frames") -> None:
            if stage == "depth video":
                raise KeyboardInterrupt

    out, formats = tmp_path / "out", ALL
    with pytest.raises(KeyboardInterrupt):
        write_depth_folder(config(media), out, formats=formats, reporter=Stopping())
    assert [path.name for path in out.iterdir()] == [".ex4d-work"]
    with pytest.raises(OutputError, match="--resume"):
        write_depth_folder(config(media), out, formats=formats)
    made = write_depth_folder(config(media), out, formats=formats, resume=True)
    assert "write depth" not in made.timings_s
    write_depth_folder(config(media), tmp_path / "whole", formats=formats)
    assert names(out) == names(tmp_path / "whole")
    for name in names(out) - {"timings.json"}:
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert write_depth_folder(config(media), out, formats=formats, resume=True).timings_s == {}


def test_overwrite_replaces_what_depth_wrote_and_nothing_else(media: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_depth_folder(config(media), out, formats=("exr", "mkv"))
    (out / "mine.txt").write_text("keep")
    (out / "depth" / "mine.exr").write_text("keep")
    short = config(media, clip=ClipConfig(frames="0:2"))
    write_depth_folder(short, out, formats=("exr",), overwrite=True)
    images = {"depth/000000.exr", "depth/000001.exr"}
    assert names(out) == (FILES - {"depth.npz"}) | images | {"mine.txt", "depth/mine.exr"}


def test_a_prior_folder_is_not_written_into(media: Path, tmp_path: Path) -> None:
    """Its preview.mp4 and source_cameras.json have the same names."""
    (tmp_path / "prior.json").write_text("{}")
    with pytest.raises(OutputError, match=r"prior\.json"):
        write_depth_folder(config(media), tmp_path, overwrite=True)
    assert names(tmp_path) == {"prior.json"}


@pytest.mark.parametrize("formats", [(), ("npz", "npz"), ("png",)])
def test_formats_that_are_none(formats: Any, media: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--format npz, exr, mkv"):
        write_depth_folder(config(media), tmp_path / "out", formats=formats)


def test_exr_without_its_package_is_refused_first(media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    with pytest.raises(MissingDependencyError, match=r"ex4d\[exr\]"):
        write_depth_folder(config(media), tmp_path / "out", formats=("exr",))
    assert not (tmp_path / "out").exists()


def test_damage_in_a_depth_file_leaves_nothing(media: Path, tmp_path: Path) -> None:
    with np.load(media / "depth.npz") as file:
        depth = file["depth"]
    depth[3, 2, 2] = np.nan
    np.savez(tmp_path / "nan.npz", depth=depth)
    with pytest.raises(DepthError, match="finite numbers in depth frame 3"):
        write_depth_folder(config(media, depth=DepthConfig(depth=str(tmp_path / "nan.npz"))), tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Listener(SilentReporter):
    """Keeps notes and the names of stages."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.stages: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def begin(self, stage: str, total: int | None, unit: str = "frames") -> None:
        self.stages.append(stage)


def point_to(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does before the client is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def hub(tiny: None, monkeypatch: pytest.MonkeyPatch) -> Generator[FakeHub, None, None]:
    """The hub with the tiny `da2-small`."""
    from ex4d.weights.registry import find_entry

    files = {"model.safetensors": save(da2_file()), "config.json": da2_config(), "README.md": b"text"}
    with serving(FakeHub(repo=find_entry("da2-small").repo, files=files)) as served:
        point_to(served.endpoint, monkeypatch)
        yield served


@pytest.mark.parametrize("option", ["da2-small", "auto"])
def test_download_is_announced_then_used(option: str, hub: FakeHub, soft: Path, tmp_path: Path) -> None:
    listener = Listener()
    depth = DepthConfig(depth=option, short_side=56, device="cpu", download=True)
    write_depth_folder(RunConfig(input=str(soft), depth=depth), tmp_path / "out", reporter=listener)
    said = "\n".join(listener.notes[:3])
    size = sum(len(hub.files[name]) for name in ("model.safetensors", "config.json"))
    for part in ("da2-small", hub.repo, f"{size} bytes", "licence apache-2.0"):
        assert part in said
    assert listener.stages[:2] == ["fetch da2-small", "decode"]
    stats = stats_of(tmp_path / "out")
    assert stats["depth"]["source"] == "da2-small"
    assert not any(hub.repo in notice for notice in stats["notices"]), "an equal run later fetches nothing"
    hub.seen.clear()
    write_depth_folder(RunConfig(input=str(soft), depth=depth), tmp_path / "again")
    assert hub.seen == []
    assert (tmp_path / "again" / "stats.json").read_bytes() == (tmp_path / "out" / "stats.json").read_bytes()


def test_without_the_word_nothing_is_downloaded(hub: FakeHub, soft: Path, tmp_path: Path) -> None:
    listener = Listener()
    settings = RunConfig(input=str(soft), depth=DepthConfig(depth="da2-small"))
    with pytest.raises(WeightsError, match=r"ex4d weights pull da2-small"):
        write_depth_folder(settings, tmp_path / "out", reporter=listener)
    assert (listener.stages, hub.tokens) == ([], {})
    assert not (tmp_path / "out").exists()
    write_depth_folder(replace(settings, depth=DepthConfig(depth="auto")), tmp_path / "out")
    assert stats_of(tmp_path / "out")["depth"]["source"] == "layout"
    assert hub.tokens == {}


def test_an_anchor_that_is_not_ready_is_said_before_the_work(hub: FakeHub, soft: Path, tmp_path: Path) -> None:
    listener = Listener()
    depth = DepthConfig(depth="layout", anchor="da2-metric-indoor")
    with pytest.raises(WeightsError, match="ex4d weights pull da2-metric-indoor"):
        write_depth_folder(RunConfig(input=str(soft), depth=depth), tmp_path / "out", reporter=listener)
    with pytest.raises(ConfigError, match="--depth-anchor"):
        write_depth_folder(RunConfig(input=str(soft), depth=replace(depth, anchor="da2")), tmp_path / "out")
    with pytest.raises(WeightsError, match="ex4d weights pull da2-metric-indoor"):  # this hub does not have it
        write_depth_folder(RunConfig(input=str(soft), depth=replace(depth, download=True)), tmp_path / "out")
    assert listener.stages == []
    assert not (tmp_path / "out").exists()


def test_no_network_is_said_with_the_command(
    tiny: None, soft: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_to("http://127.0.0.1:9", monkeypatch)
    settings = RunConfig(input=str(soft), depth=DepthConfig(depth="da2-small", download=True))
    with pytest.raises(WeightsError, match="`ex4d weights pull da2-small`"):
        write_depth_folder(settings, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_package_is_missed_before_any_network(hub: FakeHub) -> None:
    with pytest.raises(WeightsError, match=r"not installed: .*moge.*pip install"):
        fetch_missing(MogeEstimator(), SilentReporter())
    assert hub.tokens == {}


def test_cut_off_and_foreign_weights_are_refused(hub: FakeHub, weights: Path, soft: Path, tmp_path: Path) -> None:
    folder = put_weights(weights, "da2-small", {"model.safetensors": da2_file(), "config.json": da2_config()})
    file = folder / "model.safetensors"
    content = file.read_bytes()
    settings = RunConfig(input=str(soft), depth=DepthConfig(depth="da2-small", short_side=56, device="cpu"))
    listener = Listener()
    file.write_bytes(content[:-100])
    with pytest.raises(WeightsError, match=f"{len(content)} bytes in .*ex4d weights pull da2-small"):
        write_depth_folder(settings, tmp_path / "out", reporter=listener)
    assert listener.stages == []
    file.unlink()
    with pytest.raises(WeightsError, match="no such file"):
        write_depth_folder(settings, tmp_path / "out")
    put_weights(weights, "da2-small", {"model.safetensors": {"other": torch.ones(3)}, "config.json": da2_config()})
    with pytest.raises(WeightsError):
        write_depth_folder(settings, tmp_path / "out")


def test_unknown_name_and_missing_input(media: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="layout"):
        write_depth_folder(config(media, depth=DepthConfig(depth="vda-smal")), tmp_path / "out")
    with pytest.raises(InputError, match="nothing at"):
        write_depth_folder(RunConfig(input=str(tmp_path / "none.mp4")), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_colors_run_from_blue_to_red_and_black_is_unknown() -> None:
    z = np.array([[1.0, 2.0, 4.0, 9.0]], np.float32)
    valid = np.array([[True, True, True, False]])
    near, _, far, unknown = color_disparity(z, valid, (0.25, 1.0))[0].astype(int)
    assert near[0] > near[2] + 50
    assert far[2] > far[0]
    assert unknown.tolist() == [0, 0, 0]
    flat = color_disparity(np.full((2, 2), 3, np.float32), np.ones((2, 2), np.bool_), (1 / 3, 1 / 3))
    assert len(np.unique(flat.reshape(-1, 3), axis=0)) == 1


def test_preview_has_one_color_scale_for_the_whole_clip(tmp_path: Path) -> None:
    """What stands still keeps its colour while something else comes nearer than all before."""
    write_video(tmp_path / "clip.mp4", moving_frames(3, 48, 64))
    depth = np.full((3, 48, 64), 4.0, np.float32)
    for i in range(3):
        depth[i, :, :20] = 3 - i
    np.savez(tmp_path / "depth.npz", depth=depth)
    settings = RunConfig(input=str(tmp_path / "clip.mp4"), depth=DepthConfig(depth=str(tmp_path / "depth.npz")))
    write_depth_folder(settings, tmp_path / "out")
    with VideoReader(tmp_path / "out" / "preview.mp4") as reader:
        frames = np.concatenate([chunk.frames for chunk in reader]).astype(int)
    assert frames.shape == (3, 48, 128, 3)
    still, moving = frames[:, 24, 110], frames[:, 24, 68]
    assert np.abs(still - still[0]).max() < 12
    assert np.abs(moving[2] - moving[0]).max() > 100
    assert np.abs(frames[0, :, :64] - moving_frames(3, 48, 64)[0]).mean() < 20, "the clip stands beside it"


def test_flicker_is_the_change_that_motion_does_not_explain() -> None:
    frames = moving_frames(3, 96, 128)
    x = np.arange(128 + 3, dtype=np.float32)
    wide = np.broadcast_to(2 + x / 200, (96, 131))
    steady = np.stack([wide[:, i : i + 128] for i in range(3)])  # a surface that moves as the picture does
    pumped = steady * np.array([1, 1.05, 1], np.float32)[:, None, None]
    valid = np.ones(steady.shape, np.bool_)
    valid[1, :, 40:60] = False
    found = []
    for depth in (steady, pumped):
        meter = FlickerMeter(96, 128)
        known = np.where(valid, depth, np.float32(0))
        found.append([meter.next(*one) for one in zip(frames, known, valid, strict=True)])
    assert found[0][0] is found[1][0] is None
    assert max(found[0][1:]) < 0.003
    assert found[1][1:] == pytest.approx([np.log(1.05)] * 2, rel=0.08)
    blind = FlickerMeter(96, 128)
    nothing = np.zeros((96, 128), np.bool_)
    assert [blind.next(frame, steady[0], nothing) for frame in frames] == [None] * 3


def test_frames_without_any_depth_have_no_numbers() -> None:
    frames, z = moving_frames(2, 32, 32), np.ones((2, 32, 32), np.float32)
    valid = np.stack([np.ones((32, 32), np.bool_), np.zeros((32, 32), np.bool_)])
    times = np.arange(2) / 24
    depth = ArrayClip(DepthVideo(depth=z * valid, valid=valid, timestamps_s=times, scale="relative"))
    found = measure_depth(ArrayClip(Video(frames=frames, timestamps_s=times)), depth, [], lambda _: None)
    assert [frame["min"] for frame in found["frames"]] == [1.0, None]
    assert [frame["valid_share"] for frame in found["frames"]] == [1.0, 0.0]
    assert json.loads(json.dumps(found)) == found


def test_only_a_depth_folder_names_what_may_be_removed(media: Path, tmp_path: Path) -> None:
    """A stats.json of somebody else: nothing but equal names is replaced."""
    (tmp_path / "stats.json").write_text('{"schema_version": "theirs"}')
    (tmp_path / "depth.npz").write_text("theirs")
    write_depth_folder(config(media), tmp_path, formats=("mkv",), overwrite=True)
    assert (tmp_path / "depth.npz").read_text() == "theirs"
    assert stats_of(tmp_path)["formats"] == ["mkv"]
