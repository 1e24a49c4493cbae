"""Depth that jitters from frame to frame is made steady, without lag or drift; cuts end the chain."""

import cv2
import numpy as np
import pytest

from depth.pretrained_tools import moving_frames
from ex4d.core.arrays import Float32, UInt8
from ex4d.depth.pretrained.affine import fit_affine, fit_affine_between, fit_scale_between
from ex4d.depth.pretrained.steady import REACH_FRAMES, Fit, Look, steady
from ex4d.motion.flow import gray_frame

HEIGHT, WIDTH = 60, 84


def moving_truth(num_frames: int) -> Float32:
    """Disparity 1 to 4 that moves as `moving_frames` does."""
    wide = np.random.default_rng(1).random((HEIGHT, WIDTH + num_frames)).astype(np.float32)
    wide = cv2.GaussianBlur(wide, (0, 0), 5.0)
    wide = 1 + 3 * (wide - wide.min()) / (wide.max() - wide.min())
    return np.stack([wide[:, i : i + WIDTH] for i in range(num_frames)]).astype(np.float32)


def jitter(num_frames: int, sigma: float, seed: int) -> Float32:
    return np.random.default_rng(seed).normal(0, sigma, (num_frames, 1, 1)).astype(np.float32)


def noise_like(values: Float32, sigma: float, seed: int) -> Float32:
    return np.random.default_rng(seed).normal(0, sigma, values.shape).astype(np.float32)


def flicker(values: Float32) -> float:
    """Mean change of the same point from frame to frame, over the spread of all values."""
    change = np.abs(values[1:, :, :-1] - values[:-1, :, 1:]).mean()
    return float(change / np.subtract(*np.percentile(values, (95, 5))))


def run(frames: UInt8, values: Float32, fit: Fit) -> tuple[Float32, list[int]]:
    cuts: list[int] = []
    looks = (
        Look(gray=gray_frame(frame, frame.shape[:2]), values=one, sky=None)
        for frame, one in zip(frames, values, strict=True)
    )
    return np.stack([steadied for steadied, _ in steady(looks, fit, cuts.append)]), cuts


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.2])
def test_flicker_of_scale_and_shift_goes(noise: float) -> None:
    num = 60
    truth = moving_truth(num)
    noisy: Float32 = truth + noise_like(truth, noise, 2)
    values: Float32 = np.exp(jitter(num, 0.1, 3)) * noisy + jitter(num, 0.15, 4)
    found, cuts = run(moving_frames(num), values, fit_affine_between)
    before, after, floor = flicker(values), flicker(found), flicker(noisy)
    print(f"noise {noise}: flicker {before:.4f} before, {after:.4f} after, {floor:.4f} without jitter")  # noqa: T201
    assert before > 0.12
    assert after - floor < 0.15 * (before - floor)
    assert cuts == []


def test_a_still_frame_becomes_the_weighted_mean_of_its_neighbours() -> None:
    num = 40
    frames, truth = np.repeat(moving_frames(1), num, axis=0), np.repeat(moving_truth(1), num, axis=0)
    values: Float32 = np.exp(jitter(num, 0.1, 3)) * truth + jitter(num, 0.15, 4)
    found, _ = run(frames, values, fit_affine_between)
    for index in (0, 5, 20, 39):
        distance = np.abs(np.arange(num) - index)
        weight = np.cos(np.pi / 2 * distance / (REACH_FRAMES + 1)) ** 2 * (distance <= REACH_FRAMES)
        assert np.allclose(found[index], np.average(values, axis=0, weights=weight), atol=1e-3)


def test_scale_does_not_drift_with_length_and_noise() -> None:
    num = 150
    truth = moving_truth(num)
    values: Float32 = truth + noise_like(truth, 0.2, 5)
    found, _ = run(moving_frames(num), values, fit_affine_between)
    slope = [np.polyfit(truth[i].ravel(), found[i].ravel(), 1)[0] for i in range(num)]
    assert np.allclose(slope, 1, atol=0.05), "least squares against a reference carried along ends below 0.1 here"


def test_a_steady_approach_is_kept_in_metres() -> None:
    num = 60
    nearer = 0.99 ** np.arange(num)[:, None, None]
    depth = (5 / moving_truth(num) * nearer).astype(np.float32)
    jittered: Float32 = depth * np.exp(jitter(num, 0.1, 6))
    found, _ = run(moving_frames(num), jittered, fit_scale_between)
    ratio = np.median(np.log(found / depth), axis=(1, 2))
    assert np.abs(np.diff(ratio)).max() < 0.02, "10 % from frame to frame before"
    assert np.abs(ratio[REACH_FRAMES:-REACH_FRAMES]).max() < 0.06
    untouched, _ = run(moving_frames(num), depth, fit_scale_between)
    middle = slice(REACH_FRAMES, -REACH_FRAMES)
    assert np.allclose(untouched[middle] / depth[middle], 1, atol=0.005), "no lag"


def test_a_cut_ends_the_chain() -> None:
    frames = np.concatenate([moving_frames(20, seed=1), moving_frames(20, seed=9)])
    truth = np.concatenate([moving_truth(20), moving_truth(20)[:, ::-1] * 3])
    values = np.ascontiguousarray(truth, np.float32)
    found, cuts = run(frames, values, fit_affine_between)
    assert cuts == [20]
    assert np.abs(found - values).max() < 0.2, "neither side pulls the other"


@pytest.mark.parametrize("num_frames", [1, 2, 12, 13, 14, 30])
def test_every_frame_once_and_in_order(num_frames: int) -> None:
    values = np.stack([np.full((HEIGHT, WIDTH), 2.0, np.float32)] * num_frames)
    values[:, 0, 0] = np.arange(num_frames) + 1
    found, _ = run(moving_frames(num_frames), values, fit_affine_between)
    assert found.shape == values.shape
    assert np.allclose(found[:, 0, 0], values[:, 0, 0], atol=0.1)


def test_only_a_few_frames_are_held() -> None:
    frames, read = moving_frames(60), 0

    def looks():
        nonlocal read
        for frame in frames:
            read += 1
            yield Look(gray=gray_frame(frame, frame.shape[:2]), values=np.ones((HEIGHT, WIDTH), np.float32), sky=None)

    for given, _ in enumerate(steady(looks(), fit_scale_between, lambda _: None)):
        assert read <= given + REACH_FRAMES + 1
    assert read == 60


def test_sky_stays_with_its_frame() -> None:
    frames = moving_frames(20)
    sky = np.random.default_rng(0).random((20, HEIGHT, WIDTH)) > 0.5
    looks = (
        Look(gray=gray_frame(frame, frame.shape[:2]), values=np.ones((HEIGHT, WIDTH), np.float32), sky=mask)
        for frame, mask in zip(frames, sky, strict=True)
    )
    for index, (_, found) in enumerate(steady(looks, fit_scale_between, lambda _: None)):
        assert found is not None
        assert np.array_equal(found, sky[index])


def test_fits_with_outliers_and_of_things_that_do_not_correspond() -> None:
    rng = np.random.default_rng(7)
    x = rng.random(2000).astype(np.float32)
    y = 1.5 * x - 0.25
    moved = y.copy()
    moved[:400] += rng.random(400).astype(np.float32) * 2
    fit = fit_affine_between(x, moved)
    assert fit is not None
    assert np.allclose(fit, (1.5, -0.25), atol=0.03)
    assert fit_affine_between(x, -y) is None
    assert fit_affine_between(x, rng.random(2000).astype(np.float32)) is None
    assert fit_affine_between(x, 9 * x) is None, "no network jumps so far"
    constant = np.full(2000, 3.0, np.float32)
    assert fit_affine_between(constant, constant + 1) == (1.0, 1.0)
    assert fit_affine_between(x, constant) is None
    assert fit_scale_between(x + 1, 2 * (x + 1)) == pytest.approx((2.0, 0.0))
    assert fit_scale_between(np.zeros(5, np.float32), np.ones(5, np.float32)) is None


def test_least_squares_fit() -> None:
    x = np.random.default_rng(8).random((2, 9, 9)).astype(np.float32)
    assert fit_affine(x, 3 * x - 1) == pytest.approx((3, -1), abs=1e-5)
    assert fit_affine(x, -x) is None
    assert fit_affine(x, np.ones_like(x)) is None
    assert fit_affine(np.zeros_like(x), x) is None
    far = x + np.float32(1000)
    assert fit_affine(far, 2 * x) == pytest.approx((2, -2000), rel=1e-3), "float32 sums lose this"
