"""What a stranger's folder, a second process or a slip of the pen must not do."""

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ex4d.depth.result import DepthConfig
from ex4d.errors import ConfigError, InputError, OutputError
from ex4d.io.encode_delivery import DeliveryWriter
from ex4d.io.prior import close_prior, open_prior
from ex4d.mesh.watertight import build_mesh
from ex4d.pipeline.config import CameraConfig, ClipConfig, RunConfig
from ex4d.pipeline.run import run
from ex4d.pipeline.workspace import open_workspace
from ex4d.scene.clip import scene_clip
from ex4d.scene.generate import make_scene
from helpers import source_camera

HEIGHT, WIDTH, NUM = 32, 48, 3


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A tiny procedural clip filmed by a moving camera, with depth, K and cameras."""
    folder = tmp_path_factory.mktemp("media")
    clip = scene_clip(make_scene(0), num_frames=NUM, fps=24.0, height=HEIGHT, width=WIDTH, camera_motion="dolly")
    video = clip.read(0, NUM)
    with DeliveryWriter(folder / "clip.mp4", height=HEIGHT, width=WIDTH, fps=Fraction(24)) as writer:
        writer.write(video.frames, video.timestamps_s)
    path = clip.path
    np.savez(folder / "depth.npz", depth=clip.depth.read(0, NUM).depth, K=path.K, world_to_camera=path.world_to_camera)
    return RunConfig(
        input=str(folder / "clip.mp4"),
        camera=CameraConfig(cam=("orbit-right:15",)),
        depth=DepthConfig(depth=str(folder / "depth.npz")),
        generator="none",
    )


def _with_camera(config: RunConfig, *cam: str) -> RunConfig:
    return RunConfig(input=config.input, depth=config.depth, generator="none", camera=CameraConfig(cam=cam))


def _edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    info = json.loads((folder / "prior.json").read_text("utf-8"))
    change(info)
    (folder / "prior.json").write_text(json.dumps(info), "utf-8")


def test_overwrite_deletes_nothing_that_a_prior_json_names(config: RunConfig, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(config, out)
    (out / "color_x").mkdir()
    (tmp_path / "victim.mp4").write_text("precious")
    _edit(out, lambda info: info.update(camera="x/../../victim"))
    run(config, out, overwrite=True)
    assert (tmp_path / "victim.mp4").read_text() == "precious"


def test_recorded_moves_stay_inside_the_output(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "victim.txt").write_text("precious")
    workspace = open_workspace(tmp_path / "out", {}, resume=False, overwrite=False)
    workspace.finish("publish", {"names": [], "outdated": ["../victim.txt"]})
    with pytest.raises(OutputError, match="names inside"):
        workspace.publish_pending()
    workspace.unlock()
    assert (tmp_path / "victim.txt").exists()


def test_two_runs_do_not_share_a_folder(config: RunConfig, tmp_path: Path) -> None:
    workspace = open_workspace(tmp_path / "out", {"a": 1}, resume=False, overwrite=False)
    with pytest.raises(OutputError, match="no other run at work"):
        open_workspace(tmp_path / "out", {"a": 1}, resume=True, overwrite=False)
    workspace.unlock()
    open_workspace(tmp_path / "out", {"a": 1}, resume=True, overwrite=False).unlock()


def test_input_and_output_are_kept_apart(config: RunConfig, tmp_path: Path) -> None:
    clip = tmp_path / "io" / "result.mp4"
    clip.parent.mkdir()
    clip.write_bytes(Path(config.input).read_bytes())
    same = RunConfig(input=str(clip), depth=config.depth, camera=config.camera, generator="none")
    with pytest.raises(OutputError, match="apart from"):
        run(same, tmp_path / "io", overwrite=True)
    assert clip.read_bytes() == Path(config.input).read_bytes()


def test_own_cameras_on_a_moving_source_give_the_same_view(config: RunConfig, tmp_path: Path) -> None:
    run(config, tmp_path / "a")
    prior = open_prior(tmp_path / "a")
    assert np.abs(prior.source_path.world_to_camera[-1] - np.eye(4)).max() > 1e-3
    close_prior(prior)
    run(_with_camera(config, str(tmp_path / "a" / "cameras.json")), tmp_path / "b")
    assert (tmp_path / "a" / "color.mkv").read_bytes() == (tmp_path / "b" / "color.mkv").read_bytes()


def test_resume_notices_another_camera_file(config: RunConfig, tmp_path: Path) -> None:
    run(config, tmp_path / "a")
    cameras = tmp_path / "mine.json"
    cameras.write_bytes((tmp_path / "a" / "cameras.json").read_bytes())
    mine = _with_camera(config, str(cameras))
    run(mine, tmp_path / "b")
    assert run(mine, tmp_path / "b", resume=True).was_complete
    cameras.write_text(cameras.read_text("utf-8") + "\n", "utf-8")
    with pytest.raises(OutputError):
        run(mine, tmp_path / "b", resume=True)


def test_resume_makes_a_lost_file_again_or_says_so(config: RunConfig, tmp_path: Path) -> None:
    run(config, tmp_path / "a")
    (tmp_path / "a" / "color.mkv").unlink()
    with pytest.raises(OutputError, match="--overwrite"):
        run(config, tmp_path / "a", resume=True)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ClipConfig(start_s=float("nan")),
        lambda: ClipConfig(end_s=float("inf")),
        lambda: ClipConfig(fps=float("nan")),
        lambda: CameraConfig(fov_deg=float("nan")),
        lambda: CameraConfig(focal_px=float("inf")),
        lambda: CameraConfig(fov_deg=60, focal_px=300),
        lambda: CameraConfig(pivot="foo"),
        lambda: CameraConfig(pivot="nan"),
    ],
)
def test_impossible_numbers_stop_before_any_work(make: Callable[[], object]) -> None:
    with pytest.raises(ConfigError):
        make()


@pytest.mark.parametrize(
    "change",
    [
        lambda info: info["z_min"].update(source_depth=0),
        lambda info: info["z_min"].update(depth=-1),
        lambda info: info["z_min"].update(depth="2"),
        lambda info: info["z_min"].update(depth=True),
        lambda info: info["z_min"].update(depth=1e308),
        lambda info: info["timestamps_s"].__setitem__(1, -5),
        lambda info: info["timestamps_s"].pop(),
        lambda info: info.update(fps="1e999999"),
        lambda info: info.update(fps="0"),
        lambda info: info.update(config=3),
        lambda info: info["config"].update(geometry=3),
        lambda info: info.update(schema_version=2),
        lambda info: info.pop("coverage"),
    ],
)
def test_tampered_prior_is_refused(
    config: RunConfig, tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    run(config, tmp_path / "a")
    _edit(tmp_path / "a", change)
    with pytest.raises(InputError, match=r"prior\.json"):
        open_prior(tmp_path / "a")


def test_mesh_refuses_arrays_of_another_shape_or_type() -> None:
    camera = source_camera(8, 10)
    frame, depth, valid = np.zeros((8, 10, 3), np.uint8), np.ones((8, 10), np.float32), np.ones((8, 10), bool)
    build_mesh(frame, depth, valid, camera)
    bad = (frame[:4], depth, valid), (frame, depth[:, :5], valid), (frame, depth, np.ones((80, 10), bool))
    for arrays in (*bad, (frame, depth.astype(np.float64), valid), (frame, depth * np.float32(np.nan), valid)):
        with pytest.raises(ValueError, match="build_mesh"):
            build_mesh(*arrays, camera)
