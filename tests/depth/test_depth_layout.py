"""The layout preview: stable, smooth, honest about what it is, and better than a constant on real rooms."""

from pathlib import Path

import numpy as np
import pytest

from ex4d.core.clip import ArrayClip
from ex4d.core.video import Video
from ex4d.depth.layout import LayoutEstimator, base_disparity, horizon, sky_share
from ex4d.depth.mapping import MappedDepthClip, measure_disparity
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


def test_horizon_is_where_the_sky_ends() -> None:
    share = horizon(sky_share(outdoor())[None])
    assert share == pytest.approx(40 / 90, abs=0.05)
    assert horizon(np.zeros((2, 5, 5), np.float32)) == 0


def test_outdoor_order() -> None:
    raw = LayoutEstimator().estimate(clip_of(np.repeat(outdoor()[None], 3, axis=0)))
    depth = MappedDepthClip(raw=raw, statistics=measure_disparity(raw)).read(0, 3).depth[1]
    sky, far_ground, near_ground = depth[10, 80], depth[48, 80], depth[88, 80]
    assert sky > far_ground > near_ground
    assert sky == pytest.approx(1 / 0.15, rel=0.02)


def test_room_is_nearer_at_the_bottom_and_the_sides() -> None:
    base = base_disparity(90, 160, 0.0)
    assert (np.diff(base, axis=0) > 0).all()
    assert base[45, 0] > base[45, 80]
    np.testing.assert_allclose(base, base[:, ::-1], atol=1e-6)


def test_depth_does_not_flicker_or_tear() -> None:
    rng = np.random.default_rng(0)
    frames = np.stack([np.clip(outdoor() + rng.integers(-12, 12, (90, 160, 3)), 0, 255) for _ in range(40)])
    raw = LayoutEstimator().estimate(clip_of(frames.astype(np.uint8)))
    depth = MappedDepthClip(raw=raw, statistics=measure_disparity(raw)).read(0, 40).depth
    assert np.abs(np.diff(1 / depth, axis=0)).max() < 0.02
    steps = np.abs(np.diff(np.log(depth), axis=1)).max(), np.abs(np.diff(np.log(depth), axis=2)).max()
    assert max(steps) < 0.3


def test_reading_by_chunks_is_reading_at_once() -> None:
    raw = LayoutEstimator().estimate(clip_of(np.repeat(outdoor()[None], 9, axis=0)))
    parts = np.concatenate([raw.read(0, 4).values, raw.read(4, 9).values])
    np.testing.assert_array_equal(parts, raw.read(0, 9).values)


def test_one_frame_and_tiny_frames() -> None:
    raw = LayoutEstimator().estimate(clip_of(np.zeros((1, 2, 2, 3), np.uint8)))
    assert raw.read(0, 1).values.shape == (1, 2, 2)
    assert measure_disparity(raw).maximum > measure_disparity(raw).minimum


def test_it_says_that_it_is_a_preview() -> None:
    estimator = LayoutEstimator()
    raw = estimator.estimate(clip_of(room()[None]))
    assert estimator.is_preview
    assert estimator.ready().ready
    text = " ".join(raw.notices)
    assert "PREVIEW" in text
    assert "--depth" in text


def abs_rel(disparity: np.ndarray, depth: np.ndarray) -> float:
    """AbsRel after the affine fit in disparity that is best in the L1 sense (iteratively reweighted)."""
    valid = (depth > 0) & (depth < 20)
    x, y = disparity[valid][::13].astype(float), 1 / depth[valid][::13].astype(float)
    design, weight = np.stack([x, np.ones_like(x)], axis=1), np.ones_like(x)
    solution = np.zeros(2)
    for _ in range(10):
        normal = (design * weight[:, None]).T @ design + 1e-9 * np.eye(2)
        solution = np.linalg.solve(normal, (design * weight[:, None]).T @ y)
        weight = 1 / np.maximum(np.abs(design @ solution - y), 1e-3)
    fitted = 1 / np.maximum(solution[0] * disparity + solution[1], 0.05)
    return float((np.abs(fitted - depth)[valid] / depth[valid]).mean())


@pytest.mark.parametrize(("name", "most", "share"), [("7scenes_redkitchen", 0.20, 0.88), ("slambook2_ch5", 0.36, 0.8)])
def test_better_than_a_constant_on_real_rooms(shared: Path, name: str, most: float, share: float) -> None:
    rgbd = open_rgbd(shared / "clips/rgbd" / name)
    raw = LayoutEstimator().estimate(rgbd.video)
    errors, constants = [], []
    for i in range(0, rgbd.video.num_frames, 6):
        truth = rgbd.depth.read(i, i + 1).depth[0]
        errors.append(abs_rel(raw.read(i, i + 1).values[0], truth))
        constants.append(abs_rel(np.zeros_like(truth), truth))
    assert np.mean(errors) < most
    assert np.mean(errors) < share * np.mean(constants)
