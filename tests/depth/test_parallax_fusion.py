"""Fusion over time: agreement is kept, disagreement is doubted."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from ex4d.core.arrays import Float32
from ex4d.depth.parallax import ParallaxFrame, measure_parallax
from ex4d.depth.parallax_fusion import OFFSETS, fuse_parallax
from ex4d.motion.landmarks import find_landmarks
from ex4d.motion.odometry import follow_clip
from motion.motion_tools import Planes, camera_path, film_planes, sideways

HEIGHT, WIDTH, NUM = 96, 144, 14


@pytest.fixture(scope="module")
def planes() -> Planes:
    return film_planes(camera_path(*sideways(NUM, 0.03), height=HEIGHT, width=WIDTH))


def frame_of(disparity: Float32, planes: Planes, index: int, *, share: float = 0.05) -> ParallaxFrame:
    return ParallaxFrame(
        disparity=disparity,
        error=np.float32(share) * disparity,
        moving=np.zeros_like(disparity),
        gray=planes.clip.read(index, index + 1).frames[0, ..., 1].copy(),
    )


@pytest.fixture(scope="module")
def exact(planes: Planes) -> list[ParallaxFrame]:
    return [frame_of((1 / depth).astype(np.float32), planes, i) for i, depth in enumerate(planes.depth)]


def fused(frames: list[ParallaxFrame], planes: Planes) -> list[ParallaxFrame]:
    return list(fuse_parallax(iter(frames), planes.path))


def errors(frame: ParallaxFrame, depth: Float32) -> Float32:
    return np.abs(frame.disparity * depth - 1)


def test_the_truth_stays_the_truth(planes: Planes, exact: list[ParallaxFrame]) -> None:
    for frame, depth, before in zip(fused(exact, planes), planes.depth, exact, strict=True):
        error = errors(frame, depth)
        assert np.median(error) < 0.002
        assert np.percentile(error, 95) < 0.02
        assert np.median(frame.weight) >= np.median(before.weight)
        assert np.array_equal(frame.gray, before.gray)


def test_noise_is_averaged(planes: Planes, exact: list[ParallaxFrame]) -> None:
    rng = np.random.default_rng(0)
    noisy = [
        replace(f, disparity=(f.disparity * rng.normal(1, 0.05, f.disparity.shape)).astype(np.float32)) for f in exact
    ]
    after = fused(noisy, planes)
    for index in (0, 7, 13):
        before_error, error = (errors(f[index], planes.depth[index]) for f in (noisy, after))
        assert np.median(error) < 0.6 * np.median(before_error)


def test_a_frame_that_knows_nothing_is_told_by_the_others(planes: Planes, exact: list[ParallaxFrame]) -> None:
    half = np.zeros((HEIGHT, WIDTH), np.bool_)
    half[:, : WIDTH // 2] = True
    blank = replace(
        exact[7],
        disparity=np.where(half, exact[7].disparity, 0).astype(np.float32),
        error=np.where(half, exact[7].error, np.inf).astype(np.float32),
    )
    after = fused([*exact[:7], blank, *exact[8:]], planes)[7]
    other = ~half & ~planes.card[7]
    other[:, : WIDTH // 2 + 8] = False
    assert (after.weight[other] > 0).mean() > 0.5
    assert np.median(errors(after, planes.depth[7])[other & (after.weight > 0)]) < 0.15


def test_what_nobody_agrees_with_is_doubted(planes: Planes, exact: list[ParallaxFrame]) -> None:
    wrong = exact[7].disparity.copy()
    wrong[20:40, 20:40] *= 2
    after = fused([*exact[:7], replace(exact[7], disparity=wrong), *exact[8:]], planes)[7]
    share = after.error / after.disparity
    assert np.median(share[24:36, 24:36]) > 3 * np.median(share[50:, 20:40])


def test_what_moves_has_no_say(planes: Planes, exact: list[ParallaxFrame]) -> None:
    liar = replace(
        exact[6], disparity=exact[6].disparity * np.float32(1.1), moving=np.ones((HEIGHT, WIDTH), np.float32)
    )
    with_liar = fused([*exact[:6], liar, *exact[7:]], planes)[7]
    assert np.percentile(errors(with_liar, planes.depth[7]), 95) < 0.02


def test_real_parallax_gets_better(planes: Planes) -> None:
    landmarks = find_landmarks(follow_clip(planes.clip), planes.path)
    before = list(measure_parallax(planes.clip, planes.path, landmarks))
    after = fused(before, planes)
    known_before, known = (np.mean([(f.weight > 0).mean() for f in frames]) for frames in (before, after))
    assert known >= known_before
    for index in (0, 7, 13):
        error = errors(after[index], planes.depth[index])[after[index].weight > 0]
        assert np.median(error) < 0.015
        assert np.percentile(error, 90) < 0.08
    again = fused(before, planes)
    assert all(np.array_equal(a.disparity, b.disparity) for a, b in zip(after, again, strict=True))


def test_frames_come_in_order_and_few_are_held(planes: Planes, exact: list[ParallaxFrame]) -> None:
    taken = 0

    def frames() -> Iterator[ParallaxFrame]:
        nonlocal taken
        for frame in exact:
            taken += 1
            yield frame

    results = fuse_parallax(frames(), planes.path)
    for index in range(NUM):
        result = next(results)
        assert np.array_equal(result.gray, exact[index].gray)
        assert taken == min(index + max(OFFSETS) + 1, NUM)
    assert next(results, None) is None


@pytest.mark.parametrize("num", [1, 2, 5])
def test_short_clips(planes: Planes, exact: list[ParallaxFrame], num: int) -> None:
    assert len(fused(exact[:num], planes)) == num


def test_nothing_known_at_all(planes: Planes, exact: list[ParallaxFrame]) -> None:
    nothing = np.zeros((HEIGHT, WIDTH), np.float32)
    frames = [replace(f, disparity=nothing, error=nothing + np.inf) for f in exact]
    for frame in fused(frames, planes):
        assert not frame.disparity.any()
        assert np.isinf(frame.error).all()
        assert not frame.weight.any()


def test_hopeless_measurements_are_not_passed_on(planes: Planes, exact: list[ParallaxFrame]) -> None:
    """Errors of many times the disparity: less than nothing is known, whatever nine of them say together."""
    frames = [replace(f, error=np.float32(1e5) * f.disparity) for f in exact]
    for frame in fused(frames, planes):
        assert not frame.weight.any()


def test_cameras_that_pass_through_the_scene_end_finite(planes: Planes, exact: list[ParallaxFrame]) -> None:
    eyes = np.stack([np.zeros(NUM), np.zeros(NUM), np.linspace(0, 30, NUM)], axis=1)
    path = camera_path(eyes, np.zeros((NUM, 3)), height=HEIGHT, width=WIDTH)
    for frame in fuse_parallax(iter(exact), path):
        assert np.isfinite(frame.disparity).all()
        assert not np.isnan(frame.error).any()


def test_the_path_may_be_of_another_size(planes: Planes, exact: list[ParallaxFrame]) -> None:
    large = replace(planes.path, K=planes.path.K * np.array([4, 4, 1])[:, None], height=4 * HEIGHT, width=4 * WIDTH)
    for a, b in zip(fuse_parallax(iter(exact[:4]), large), fused(exact[:4], planes), strict=True):
        assert np.abs(a.disparity / b.disparity - 1).max() < 1e-4
