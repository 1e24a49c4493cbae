"""The demo: a scene as a clip, the chain on it, figures against the truth."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ex4d.cli.main import main
from ex4d.core.camera import Camera
from ex4d.demo.film import film
from ex4d.demo.splat import splat_points
from ex4d.demo.truth import METHODS, format_rows, measure
from ex4d.io.depth.files import open_depth
from ex4d.io.video import VideoReader
from ex4d.pipeline.progress import SilentReporter
from ex4d.scene.clip import scene_clip
from ex4d.scene.generate import make_scene
from helpers import random_rgbd, source_camera


def test_splat_from_the_source_view_is_the_frame() -> None:
    frame, depth, valid = random_rgbd(0, 24, 31)
    camera = source_camera(24, 31)
    rgb, observed = splat_points(frame, depth, valid, camera, camera)
    assert np.array_equal(observed, valid)
    assert np.array_equal(rgb, np.where(valid[..., None], frame, 0))


def test_splat_shows_the_nearest_point() -> None:
    """The same view at half the size: of four points that fall together the nearest is shown."""
    rng = np.random.default_rng(3)
    frame, depth = rng.integers(1, 256, (16, 20, 3), np.uint8), rng.uniform(1, 5, (16, 20)).astype(np.float32)
    camera = source_camera(16, 20)
    half = Camera(K=np.diag([0.5, 0.5, 1]) @ camera.K, world_to_camera=np.eye(4), height=8, width=10)
    rgb, observed = splat_points(frame, depth, np.ones((16, 20), np.bool_), camera, half)
    assert observed.all()
    blocks = depth.reshape(8, 2, 10, 2).transpose(0, 2, 1, 3).reshape(8, 10, 4)
    colors = frame.reshape(8, 2, 10, 2, 3).transpose(0, 2, 1, 3, 4).reshape(8, 10, 4, 3)
    nearest = blocks.argmin(axis=2)
    assert np.array_equal(rgb, np.take_along_axis(colors, nearest[..., None, None], axis=2)[:, :, 0])


def test_film_is_a_clip_and_its_depth(tmp_path: Path) -> None:
    clip = scene_clip(make_scene(1), num_frames=3, fps=24.0, height=48, width=64)
    video, depth_file = film(clip, tmp_path, fps=Fraction(24), reporter=SilentReporter())
    with VideoReader(video) as reader:
        frames = np.concatenate([chunk.frames for chunk in reader])
        assert reader.info.fps == 24
    exact = clip.read(0, 3).frames
    assert np.abs(frames.astype(int) - exact).mean() < 6, "coded, not another picture"
    depth = open_depth(depth_file)
    assert np.array_equal(depth.read(0, 3).values, clip.depth.read(0, 3).depth)
    assert depth.K is not None
    assert np.array_equal(depth.K, clip.path.K[0])


def test_truth_ranks_the_methods() -> None:
    rows = measure(0, (30.0, 60.0), size=128)
    assert [(row.yaw_deg, row.method) for row in rows] == [(yaw, name) for yaw in (30.0, 60.0) for name in METHODS]
    by = {(row.yaw_deg, row.method): row for row in rows}
    for yaw in (30.0, 60.0):
        ours, official, splat = (by[yaw, name] for name in METHODS)
        assert ours.iou > official.iou > splat.iou
        assert ours.iou > 0.9
        assert ours.visible_share > 0.98
        assert ours.psnr_db > official.psnr_db + 3
        assert 0 < splat.recall < ours.recall <= 1
    assert measure(0, (30.0,), size=128) == rows[:3], "the same scene, the same figures"
    assert len(format_rows(rows).splitlines()) == 1 + len(rows) + 2


def test_small_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo"
    assert main(["demo", "--small", "-o", str(out)]) == 0
    seen = capsys.readouterr()
    for name in ("scene.mp4", "scene_depth.npz", "views/result.mp4", "views/sheet.png", "views/prior.json"):
        assert (out / name).is_file()
    for text in ("default", "official", "point splat", "try next", f"--depth {out / 'scene_depth.npz'}"):
        assert text in seen.out
    assert "PREVIEW DEPTH" not in seen.out
    assert main(["demo", "--small", "-o", str(out)]) == 2
    assert capsys.readouterr().err.startswith(f"error: expected an empty or new folder at {out}")


def test_demo_refuses_a_bad_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--seed", "-1", "-o", str(tmp_path / "demo")]) == 2
    assert "--seed" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()
