"""The chain on tiny clips: what a run writes, means and repeats."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ex4d.core.geometry import project, unproject
from ex4d.depth.result import DepthConfig
from ex4d.errors import CameraPathError, ConfigError, DepthError, OutputError
from ex4d.io.encode_delivery import DeliveryWriter
from ex4d.io.prior import close_prior, open_prior
from ex4d.io.video import probe_video
from ex4d.mesh.config import GeometryConfig
from ex4d.pipeline.config import CameraConfig, ClipConfig, RunConfig, config_from_dict, config_to_dict
from ex4d.pipeline.ingest import official_size
from ex4d.pipeline.run import run
from ex4d.scene.clip import scene_clip
from ex4d.scene.generate import make_scene

HEIGHT, WIDTH, NUM = 48, 64, 5


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A procedural clip as mp4 and its exact depth as npz."""
    folder = tmp_path_factory.mktemp("media")
    clip = scene_clip(make_scene(0), num_frames=NUM, fps=24.0, height=HEIGHT, width=WIDTH)
    video = clip.read(0, NUM)
    with DeliveryWriter(folder / "clip.mp4", height=HEIGHT, width=WIDTH, fps=Fraction(24)) as writer:
        writer.write(video.frames, video.timestamps_s)
    np.savez(folder / "depth.npz", depth=clip.depth.read(0, NUM).depth)
    return folder / "clip.mp4", folder / "depth.npz"


def _config(media: tuple[Path, Path], **changes: object) -> RunConfig:
    values: dict[str, object] = {
        "input": str(media[0]),
        "camera": CameraConfig(cam=("orbit-right:20",)),
        "depth": DepthConfig(depth=str(media[1])),
    }
    return RunConfig(**{**values, **changes})  # pyright: ignore[reportArgumentType]


def test_prior_folder_is_complete_and_reads_back(media: tuple[Path, Path], tmp_path: Path) -> None:
    run(_config(media), tmp_path / "out")
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert names == {
        "color.mkv", "mask.mkv", "depth.mkv", "source.mkv", "source_depth.mkv", "cameras.json",
        "source_cameras.json", "prior.json", "timings.json", "preview.mp4", "sheet.png", "result.mp4",
        "meshes/frame_000000.ply",
    }  # fmt: skip
    prior = open_prior(tmp_path / "out")
    view, source = prior.view.read(0, NUM), prior.source.read(0, NUM)
    assert np.array_equal(view.rgb[0], source.frames[0])
    assert view.observed[0].all()
    assert prior.coverage == pytest.approx(view.observed.mean(axis=(1, 2)))
    assert 0.3 < prior.coverage[-1] < 0.9
    assert not view.rgb[~view.observed].any()
    close_prior(prior)


def test_stored_depths_agree_with_each_other(media: tuple[Path, Path], tmp_path: Path) -> None:
    """A point of the target view, seen from the source, lies at the source's depth."""
    run(_config(media, generator="none"), tmp_path / "out")
    prior = open_prior(tmp_path / "out")
    view, maps = prior.view.read(NUM - 1, NUM), prior.source_depth.read(NUM - 1, NUM)
    target, source = prior.path[NUM - 1], prior.source_path[NUM - 1]
    rows, cols = np.nonzero(view.observed[0])
    pixels = np.stack([cols + 0.5, rows + 0.5], axis=1).astype(np.float64)
    points = unproject(target, pixels, view.depth[0][rows, cols].astype(np.float64))
    back, z = project(source, points)
    x, y = np.clip(back.astype(int), 0, [[WIDTH - 1, HEIGHT - 1]]).T
    error = np.abs(maps.depth[0][y, x] / z - 1)
    assert np.median(error) < 0.01
    assert (error < 0.1).mean() > 0.95
    close_prior(prior)


def test_equal_runs_give_equal_bytes(media: tuple[Path, Path], tmp_path: Path) -> None:
    run(_config(media), tmp_path / "a")
    run(_config(media), tmp_path / "b")
    for path in sorted((tmp_path / "a").rglob("*")):
        if path.is_file() and path.name != "timings.json":
            other = tmp_path / "b" / path.relative_to(tmp_path / "a")
            assert path.read_bytes() == other.read_bytes(), path.name


def test_several_cameras_get_a_folder_each(media: tuple[Path, Path], tmp_path: Path) -> None:
    config = _config(media, camera=CameraConfig(cam=("30", "full")), generator="none")
    result = run(config, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["30", "full"]
    for folder in result.folders:
        close_prior(open_prior(folder))
    sources = [(folder / "source.mkv").read_bytes() for folder in result.folders]
    assert sources[0] == sources[1]


def test_config_survives_json(media: tuple[Path, Path]) -> None:
    config = _config(media, clip=ClipConfig(frames="1:4"), geometry=GeometryConfig(tear_angle_deg=9))
    again = config_from_dict(RunConfig, json.loads(json.dumps(config_to_dict(config))))
    assert again == config
    with pytest.raises(ConfigError, match=r"config\.camera"):
        config_from_dict(RunConfig, {"input": "a", "camera": {"speed": 3}})


def test_freeze_holds_one_moment(media: tuple[Path, Path], tmp_path: Path) -> None:
    camera = CameraConfig(cam=("orbit-left:10",), freeze=2, num_frames=7)
    result = run(_config(media, camera=camera, generator="none"), tmp_path / "out")
    prior = open_prior(tmp_path / "out")
    assert prior.path.source_index.tolist() == [2] * 7
    assert len(result.info[0]["coverage"]) == 7
    assert np.array_equal(prior.view.read(0, 1).rgb[0], prior.source.read(2, 3).frames[0])
    close_prior(prior)


def test_selected_frames_take_their_own_depth(media: tuple[Path, Path], tmp_path: Path) -> None:
    run(_config(media, clip=ClipConfig(frames="2:4"), generator="none"), tmp_path / "out")
    prior = open_prior(tmp_path / "out")
    want = np.load(media[1])["depth"][2:4]
    got = prior.source_depth.read(0, 2).depth
    assert np.abs(got / want - 1).max() < 0.01
    close_prior(prior)


def test_official_geometry_keeps_frame_0_and_given_depth(media: tuple[Path, Path], tmp_path: Path) -> None:
    config = _config(media, geometry=GeometryConfig(name="official"), generator="none", official_files=True)
    run(config, tmp_path / "out")
    prior = open_prior(tmp_path / "out")
    first = prior.view.read(0, 1)
    assert first.observed.all()
    assert np.array_equal(first.rgb[0], prior.source.read(0, 1).frames[0])
    assert (prior.view.height, prior.view.width) == (HEIGHT, WIDTH)
    assert prior.source_path.K[0, 0, 0] == 500.0
    close_prior(prior)
    for name in ("color_orbit-right_20.mp4", "mask_orbit-right_20.mp4"):
        assert probe_video(tmp_path / "out" / name).num_frames == NUM
    assert (tmp_path / "out" / "DW-Mesh.ply").is_file()


def test_official_size_follows_the_release() -> None:
    assert official_size(512, 512) == (512, 512)
    assert official_size(480, 854) == (512, 832)
    assert official_size(720, 1280) == (576, 1024)
    assert official_size(1080, 1920) == (576, 1024)


def test_bad_input_leaves_nothing_behind(media: tuple[Path, Path], tmp_path: Path) -> None:
    np.savez(tmp_path / "short.npz", depth=np.ones((2, HEIGHT, WIDTH), np.float32))
    config = _config(media, depth=DepthConfig(depth=str(tmp_path / "short.npz")))
    with pytest.raises(DepthError, match="depth frames"):
        run(config, tmp_path / "out")
    with pytest.raises(CameraPathError, match="camera preset"):
        run(_config(media, camera=CameraConfig(cam=("orbit-rihgt",))), tmp_path / "out")
    with pytest.raises(ConfigError, match="--freeze below 5"):
        run(_config(media, camera=CameraConfig(cam=("30",), freeze=99)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_full_folder_is_refused_and_strangers_survive(media: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="empty or new folder"):
        run(_config(media, generator="none"), out)
    run(_config(media, generator="none"), out, overwrite=True)
    assert (out / "thesis.txt").read_text() == "mine"
    assert (out / "prior.json").is_file()


def test_resume_refuses_another_request(media: tuple[Path, Path], tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    class Stopper:
        def note(self, text: str) -> None: ...
        def advance(self, count: int = 1) -> None: ...
        def end(self) -> None: ...

        def begin(self, stage: str, total: int | None, unit: str = "frames") -> None:
            if stage.startswith("render"):
                raise Stop

    with pytest.raises(Stop):
        run(_config(media), tmp_path / "out", reporter=Stopper())
    with pytest.raises(OutputError, match=r"config\.seed"):
        run(_config(media, seed=7), tmp_path / "out", resume=True)
    run(_config(media), tmp_path / "out", resume=True)
    run(_config(media), tmp_path / "fresh")
    for path in sorted((tmp_path / "fresh").rglob("*")):
        if path.is_file() and path.name != "timings.json":
            other = tmp_path / "out" / path.relative_to(tmp_path / "fresh")
            assert path.read_bytes() == other.read_bytes(), path.name
    assert not (tmp_path / "out" / ".ex4d-work").exists()
    assert run(_config(media), tmp_path / "out", resume=True).was_complete
