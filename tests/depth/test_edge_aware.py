"""Completion along the picture's edges."""

import numpy as np
import pytest

from ex4d.core.arrays import Bool, Float32, UInt8
from ex4d.depth.edge_aware import complete
from motion.motion_tools import noise_picture

HEIGHT, WIDTH = 96, 144


def ramp() -> Float32:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return (0.2 + 0.002 * x + 0.003 * y).astype(np.float32)


@pytest.fixture(scope="module")
def gray() -> UInt8:
    return noise_picture(HEIGHT, WIDTH)[..., 1].copy()


def two_sides() -> tuple[Float32, UInt8, Bool]:
    """Values, picture and which side: a straight edge, dark and near on the left."""
    left = np.zeros((HEIGHT, WIDTH), np.bool_)
    left[:, :60] = True
    return np.where(left, 1.0, 0.25).astype(np.float32), np.where(left, 60, 190).astype(np.uint8), left


def test_smooth_values_known_everywhere_stay(gray: UInt8) -> None:
    values = ramp()
    got = complete(values, np.ones_like(values), gray)
    assert np.abs(got / values - 1)[8:-8, 8:-8].max() < 0.03
    assert np.median(np.abs(got / values - 1)) < 0.003


def test_weights_count_relative_to_each_other(gray: UInt8) -> None:
    values, weight = ramp(), np.random.default_rng(0).uniform(0.5, 1, (HEIGHT, WIDTH)).astype(np.float32)
    assert complete(values, weight, gray) == pytest.approx(complete(values, 1e6 * weight, gray), rel=1e-4)
    assert complete(values, weight, gray) == pytest.approx(complete(values, 1e-6 * weight, gray), rel=1e-4)


def test_an_edge_of_the_picture_stays_an_edge() -> None:
    values, picture, left = two_sides()
    got = complete(values, np.ones_like(values), picture)
    assert got[left].min() > 0.97
    assert got[~left].max() < 0.28


def test_what_is_unknown_follows_the_picture() -> None:
    """Across a gap around the edge each side continues up to where the picture changes."""
    values, picture, left = two_sides()
    weight = np.ones_like(values)
    weight[:, 55:65] = 0
    got = complete(np.where(weight > 0, values, np.float32(77)), weight, picture)
    assert got[left].min() > 0.7
    assert got[~left].max() < 0.55


def test_an_unknown_half_is_continued_without_a_jump(gray: UInt8) -> None:
    values, weight = ramp(), np.ones((HEIGHT, WIDTH), np.float32)
    weight[:, WIDTH // 2 :] = 0
    got = complete(values, weight, gray)
    known = values[:, : WIDTH // 2]
    assert np.isfinite(got).all()
    assert got.min() >= known.min() - 1e-6
    assert got.max() <= known.max() + 1e-6
    seam = np.abs(got[:, WIDTH // 2] - got[:, WIDTH // 2 - 1]) / values[:, WIDTH // 2]
    assert np.median(seam) < 0.05


def test_values_without_weight_are_never_looked_at(gray: UInt8) -> None:
    values, weight = ramp(), np.ones((HEIGHT, WIDTH), np.float32)
    weight[30:50, 30:50] = 0
    clean = complete(values, weight, gray)
    for junk in (np.float32(np.nan), np.float32(np.inf), np.float32(-1e30)):
        spoiled = values.copy()
        spoiled[30:50, 30:50] = junk
        assert np.array_equal(complete(spoiled, weight, gray), clean)


def test_noise_is_smoothed_and_doubtful_pixels_have_less_say(gray: UInt8) -> None:
    rng = np.random.default_rng(0)
    values = ramp()
    noisy = (values * rng.normal(1, 0.1, values.shape)).astype(np.float32)
    got = complete(noisy, np.ones_like(values), gray)
    assert np.abs(got / values - 1).mean() < 0.5 * np.abs(noisy / values - 1).mean()
    doubtful = rng.random(values.shape) < 0.3
    wild = np.where(doubtful, values * 3, values).astype(np.float32)
    got = complete(wild, np.where(doubtful, 0.05, 1.0).astype(np.float32), gray)
    assert np.median(np.abs(got / values - 1)) < 0.07


@pytest.mark.parametrize("density", [0.5, 0.05, 0.003])
def test_extremes_are_never_exceeded(gray: UInt8, density: float) -> None:
    rng = np.random.default_rng(1)
    values = rng.uniform(0.1, 5, (HEIGHT, WIDTH)).astype(np.float32)
    weight = np.where(rng.random(values.shape) < density, rng.uniform(0.1, 9, values.shape), 0).astype(np.float32)
    got = complete(values, weight, gray)
    known = values[weight > 0]
    assert np.isfinite(got).all()
    assert got.min() >= known.min() * (1 - 1e-5)
    assert got.max() <= known.max() * (1 + 1e-5)


def test_a_trend_of_the_picture_is_not_carried_on_beyond_what_is_known() -> None:
    """The brighter the nearer, where it is known; the brightest third is not known."""
    shade = np.repeat(np.linspace(0, 255, WIDTH)[None], HEIGHT, axis=0)
    values = (0.2 + shade / 255).astype(np.float32)
    weight = (shade < 170).astype(np.float32)
    got = complete(values, weight, shade.astype(np.uint8))
    assert got.max() <= values[weight > 0].max() * (1 + 1e-5)


def test_one_known_pixel_is_everywhere(gray: UInt8) -> None:
    values = np.zeros((HEIGHT, WIDTH), np.float32)
    weight = np.zeros_like(values)
    values[41, 77], weight[41, 77] = 0.7, 3
    assert complete(values, weight, gray) == pytest.approx(0.7, rel=1e-4)


def test_nothing_known_is_zero(gray: UInt8) -> None:
    nothing = np.zeros((HEIGHT, WIDTH), np.float32)
    assert not complete(ramp(), nothing, gray).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (2, 2), (16, 16), (5, 300)])
def test_small_pictures(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    values = rng.uniform(0.5, 2, size).astype(np.float32)
    got = complete(values, np.ones(size, np.float32), np.zeros(size, np.uint8))
    assert got.shape == size
    assert got.min() >= values.min() * (1 - 1e-5)
    assert got.max() <= values.max() * (1 + 1e-5)


def test_tiny_and_huge_values(gray: UInt8) -> None:
    for factor in (1e-12, 1e6):
        values = (ramp() * np.float32(factor)).astype(np.float32)
        got = complete(values, np.ones_like(values), gray)
        assert np.abs(got / values - 1)[8:-8, 8:-8].max() < 0.02


def test_inputs_are_left_as_they_were(gray: UInt8) -> None:
    values, weight = ramp(), np.full((HEIGHT, WIDTH), 9, np.float32)
    before = values.copy(), weight.copy(), gray.copy()
    complete(values, weight, gray)
    assert all(np.array_equal(a, b) for a, b in zip(before, (values, weight, gray), strict=True))
