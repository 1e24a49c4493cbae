"""Sizes keep a clip's aspect; tiles cover a frame and blend into it."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ex4d.errors import ConfigError
from ex4d.model.sizes import PIXEL_BUDGET, choose_size, num_tokens, plan_tiles, tile_weights

EVEN = st.integers(2, 24).map(lambda half: 2 * half)


@pytest.mark.parametrize("aspect", [(16, 9), (4, 3), (1, 1), (9, 16), (3, 4), (21, 9), (9, 21), (3, 2), (2, 3)])
@pytest.mark.parametrize("scale", [40, 120, 211])
def test_common_aspects_are_kept_within_three_percent(aspect: tuple[int, int], scale: int) -> None:
    height, width = choose_size(aspect[1] * scale, aspect[0] * scale)
    assert height % 16 == width % 16 == 0
    assert width / height == pytest.approx(aspect[0] / aspect[1], rel=0.03)
    assert height * width == pytest.approx(PIXEL_BUDGET, rel=0.1)


def test_known_sizes() -> None:
    assert choose_size(512, 512) == choose_size(1080, 1080) == (512, 512)
    assert choose_size(1080, 1920) == choose_size(360, 640) == (384, 688)
    assert choose_size(1920, 1080) == (688, 384)
    assert choose_size(480, 640) == (448, 592)  # 432x576 has exactly this aspect, but 5 % fewer pixels
    assert choose_size(1080, 2520) == (336, 784)


@given(st.integers(2, 5000), st.integers(2, 5000), st.integers(64, 1024))
def test_any_clip_gets_a_size_that_the_model_takes(height: int, width: int, side: int) -> None:
    chosen = choose_size(height, width, budget=side * side)
    assert min(chosen) >= 16
    assert chosen[0] % 16 == chosen[1] % 16 == 0
    if 1 / 3 < height / width < 3 and side >= 256:
        assert chosen[0] / chosen[1] == pytest.approx(height / width, rel=0.08)
        assert chosen[0] * chosen[1] == pytest.approx(side * side, rel=0.25)


def test_tokens() -> None:
    assert num_tokens(13, 512, 512) == 13_312
    assert num_tokens(21, 480, 832) == 32_760


@settings(deadline=None)
@given(EVEN, EVEN, EVEN, EVEN)
def test_tiles_cover_the_frame_with_even_edges(height: int, width: int, tile_height: int, tile_width: int) -> None:
    covered = np.zeros((height, width), int)
    for tile in plan_tiles(height, width, tile_height=tile_height, tile_width=tile_width):
        edges = (tile.top, tile.bottom, tile.left, tile.right)
        assert all(edge % 2 == 0 for edge in edges)
        assert 0 <= tile.top < tile.bottom <= height
        assert 0 <= tile.left < tile.right <= width
        assert tile.bottom - tile.top == min(tile_height, height)
        assert tile.right - tile.left == min(tile_width, width)
        covered[tile.top : tile.bottom, tile.left : tile.right] += 1
    assert covered.min() >= 1


@given(EVEN, EVEN)
def test_neighbouring_tiles_overlap(width: int, tile_width: int) -> None:
    tiles = plan_tiles(4, width, tile_height=4, tile_width=tile_width)
    for before, after in itertools.pairwise(tiles):
        assert before.left < after.left
        assert before.right - after.left >= tile_width / 4


@settings(deadline=None)
@given(EVEN, EVEN, EVEN, EVEN)
def test_a_constant_stays_one_after_blending(height: int, width: int, tile_height: int, tile_width: int) -> None:
    total, weights = np.zeros((2, height, width))
    for tile in plan_tiles(height, width, tile_height=tile_height, tile_width=tile_width):
        weight = tile_weights(tile, height, width)
        assert weight.dtype == np.float32
        assert 0 < weight.min() <= weight.max() <= 1
        area = (slice(tile.top, tile.bottom), slice(tile.left, tile.right))
        total[area] += 7.5 * weight
        weights[area] += weight
    np.testing.assert_allclose(total / weights, 7.5, rtol=1e-6)


def test_weights_fall_only_towards_other_tiles() -> None:
    left, right = plan_tiles(8, 20, tile_height=8, tile_width=12)
    weight = tile_weights(left, 8, 20)
    assert (weight[:, :9] == 1).all()
    assert (np.diff(weight[:, 8:]) < 0).all()
    np.testing.assert_array_equal(tile_weights(right, 8, 20), weight[:, ::-1])
    (whole,) = plan_tiles(8, 20, tile_height=64, tile_width=64)
    assert (tile_weights(whole, 8, 20) == 1).all()


def test_tiles_too_small_to_overlap_are_refused() -> None:
    with pytest.raises(ConfigError, match="32x32 px; got 16x64"):
        plan_tiles(64, 64, tile_height=2, tile_width=8)
