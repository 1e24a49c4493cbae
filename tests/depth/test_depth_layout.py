"""The layout preview: stable, smooth, honest about what it is, and better than a constant on real rooms."""

from pathlib import Path

import numpy as np
import pytest

from ex4d.core.clip import ArrayClip
from ex4d.core.video import Video
from ex4d.depth.estimator import EstimateRequest
from ex4d.depth.layout import LayoutEstimator, base_disparity, horizon, is_sky, sky_share
from ex4d.io.rgbd.folder import open_rgbd


def clip_of(frames: np.ndarray) -> ArrayClip[Video]:
    return ArrayClip(Video(frames=frames, timestamps_s=np.arange(len(frames)) / 30))


def outdoor(height: int = 90, width: int = 160, horizon_row: int = 40) -> np.ndarray:
    rng = np.random.default_rng(1)
    frame = np.empty((height, width, 3), np.uint8)
    frame[:horizon_row] = (120, 170, 240)
    frame[horizon_row:] = rng.integers(30, 110, (height - horizon_row, width, 1))
    return frame


def room(height: int = 90, width: int = 160) -> np.ndarray:
    rng = np.random.default_rng(2)
    return (np.array([170, 150, 120]) + rng.integers(-20, 20, (height, width, 1))).astype(np.uint8)


def test_sky_is_found_outdoors_only() -> None:
    sky = sky_share(outdoor())
    assert sky[: int(0.35 * len(sky))].min() > 0.95
    assert sky[int(0.55 * len(sky)) :].max() < 0.05
    assert sky_share(room()).max() < 0.05
    white_wall = np.full((90, 160, 3), 235, np.uint8)
    assert sky_share(white_wall).max() < 0.05


def test_sky_behind_a_bar_is_sky_too() -> None:
    frame = outdoor()
    frame[15:20] = (90, 30, 20)
    sky = sky_share(frame)
    assert sky[int(0.33 * len(sky))].min() > 0.8


def test_outlines_before_the_sky_are_sharp() -> None:
    frame = outdoor()
    frame[5:30, 70:74] = (40, 30, 30)
    found = is_sky(frame, sky_share(frame))
    assert found[8:28, :66].mean() > 0.99
    assert not found[8:28, 70:74].any()
    assert not found[50:].any()


def test_horizon_is_where_the_sky_ends() -> None:
    share = horizon(sky_share(outdoor())[None])
    assert share == pytest.approx(40 / 90, abs=0.05)
    assert horizon(np.zeros((2, 5, 5), np.float32)) is None


def test_outdoor_order() -> None:
    raw = LayoutEstimator().estimate(clip_of(np.repeat(outdoor()[None], 3, axis=0)), EstimateRequest())
    depth = raw.read(0, 3).values[1]
    sky, far_ground, near_ground = depth[10, 80], depth[48, 80], depth[88, 80]
    assert sky > far_ground > near_ground
    assert sky == pytest.approx(4 / 0.15, rel=0.02)
    assert near_ground == pytest.approx(1, abs=0.1)


def test_room_is_nearer_at_the_bottom_and_the_sides() -> None:
    base = base_disparity(90, 160, None)
    assert (np.diff(base, axis=0) >= 0).all()
    assert base[89, 80] == pytest.approx(1, abs=0.02)
    assert base[10, 80] == pytest.approx(1 / 1.8, abs=0.01)
    assert base[45, 0] > base[45, 80]
    np.testing.assert_allclose(base, base[:, ::-1], atol=1e-6)


def test_depth_does_not_flicker_or_tear() -> None:
    rng = np.random.default_rng(0)
    frames = np.stack([np.clip(outdoor() + rng.integers(-12, 12, (90, 160, 3)), 0, 255) for _ in range(40)])
    raw = LayoutEstimator().estimate(clip_of(frames.astype(np.uint8)), EstimateRequest())
    depth = raw.read(0, 40).values
    assert np.abs(np.diff(1 / depth, axis=0)).max() < 0.02
    ground = np.log(depth[:, 50:])
    steps = np.abs(np.diff(ground, axis=1)).max(), np.abs(np.diff(ground, axis=2)).max()
    assert max(steps) < 0.3


def test_reading_by_chunks_is_reading_at_once() -> None:
    raw = LayoutEstimator().estimate(clip_of(np.repeat(outdoor()[None], 9, axis=0)), EstimateRequest())
    parts = np.concatenate([raw.read(0, 4).values, raw.read(4, 9).values])
    np.testing.assert_array_equal(parts, raw.read(0, 9).values)


def test_one_frame_and_tiny_frames() -> None:
    raw = LayoutEstimator().estimate(clip_of(np.zeros((1, 2, 2, 3), np.uint8)), EstimateRequest())
    assert raw.read(0, 1).values.shape == (1, 2, 2)
    assert (raw.read(0, 1).values > 0).all()


def test_it_says_that_it_is_a_preview() -> None:
    estimator = LayoutEstimator()
    raw = estimator.estimate(clip_of(room()[None]), EstimateRequest())
    assert estimator.is_preview
    assert estimator.ready().ready
    text = " ".join(raw.notices)
    assert "PREVIEW" in text
    assert "--depth" in text


def abs_rel(estimate: np.ndarray, truth: np.ndarray) -> float:
    """AbsRel of depths after scaling by the ratio of medians."""
    valid = (truth > 0) & (truth < 20)
    scaled = estimate[valid] * np.median(truth[valid] / estimate[valid])
    return float((np.abs(scaled - truth[valid]) / truth[valid]).mean())


@pytest.mark.parametrize(("name", "most", "share"), [("7scenes_redkitchen", 0.23, 0.99), ("slambook2_ch5", 0.43, 0.97)])
def test_better_than_a_flat_wall_on_real_rooms(shared: Path, name: str, most: float, share: float) -> None:
    rgbd = open_rgbd(shared / "clips/rgbd" / name)
    raw = LayoutEstimator().estimate(rgbd.video, EstimateRequest())
    errors, walls = [], []
    for i in range(0, rgbd.video.num_frames, 6 if rgbd.video.num_frames > 6 else 1):
        truth = rgbd.depth.read(i, i + 1).depth[0]
        errors.append(abs_rel(raw.read(i, i + 1).values[0], truth))
        walls.append(abs_rel(np.ones_like(truth), truth))
    assert np.mean(errors) < most
    assert np.mean(errors) < share * np.mean(walls)
