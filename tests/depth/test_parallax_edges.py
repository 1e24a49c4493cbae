"""Outlines of things: put where the pictures say they are."""

import numpy as np
import pytest

from ex4d.core.arrays import Float32, Float64, UInt8
from ex4d.depth.parallax_edges import REACH_PX, sharpen
from motion.motion_tools import Planes, camera_path, film_planes, noise_picture, sideways

HEIGHT, WIDTH = 128, 192


@pytest.fixture(scope="module")
def planes() -> Planes:
    eyes, _ = sideways(9, 0.06)
    return film_planes(camera_path(eyes, np.zeros((9, 3)), height=HEIGHT, width=WIDTH))


def gray(planes: Planes, index: int) -> UInt8:
    return planes.clip.read(index, index + 1).frames[0, ..., 1].copy()


def neighbors(planes: Planes, index: int, others: list[int]) -> list[tuple[UInt8, Float64]]:
    eyes = planes.path.center
    return [(gray(planes, other), planes.path.K[index] @ (eyes[index] - eyes[other])) for other in others]


def dilated(planes: Planes, index: int, by_px: int) -> Float32:
    """True disparity, with the card grown by some pixels to all sides: what flow makes of outlines."""
    card = planes.card[index]
    grown = np.zeros_like(card)
    rows, columns = np.nonzero(card)
    grown[rows.min() - by_px : rows.max() + by_px + 1, columns.min() - by_px : columns.max() + by_px + 1] = True
    return np.where(grown, 0.5, np.where(card, 0.5, 0.25)).astype(np.float32)


def wrong(disparity: Float32, planes: Planes, index: int) -> float:
    """Share of pixels around the card that are on the wrong side."""
    card = planes.card[index]
    return float(((disparity > 0.375) != card).mean())


def truth(planes: Planes, index: int) -> Float32:
    return np.where(planes.card[index], 1 / planes.depth[index], 1 / planes.depth[index]).astype(np.float32)


def test_an_outline_that_is_too_wide_is_drawn_in(planes: Planes) -> None:
    wide = np.where(dilated(planes, 4, 4) > 0.375, np.float32(0.5), truth(planes, 4)).astype(np.float32)
    before = wrong(wide, planes, 4)
    sharp = sharpen(wide, gray(planes, 4), neighbors(planes, 4, [0, 2, 6, 8]))
    assert before > 0.02
    assert wrong(sharp, planes, 4) < 0.5 * before


def test_what_is_right_stays(planes: Planes) -> None:
    right = truth(planes, 4)
    sharp = sharpen(right, gray(planes, 4), neighbors(planes, 4, [0, 2, 6, 8]))
    assert wrong(sharp, planes, 4) < 0.005
    assert (np.abs(sharp / right - 1) > 0.02).mean() < 0.02


def test_only_values_from_nearby_are_taken(planes: Planes) -> None:
    rng = np.random.default_rng(0)
    start = rng.uniform(0.1, 1, (HEIGHT, WIDTH)).astype(np.float32)
    sharp = sharpen(start, gray(planes, 4), neighbors(planes, 4, [2, 6]))
    for y in range(0, HEIGHT, 17):
        for x in range(0, WIDTH, 17):
            around = start[max(0, y - REACH_PX) : y + REACH_PX + 1, max(0, x - REACH_PX) : x + REACH_PX + 1]
            assert sharp[y, x] in around


def test_a_smooth_surface_is_left_alone(planes: Planes) -> None:
    x = np.linspace(0.3, 0.4, WIDTH)
    smooth = np.repeat(x[None], HEIGHT, axis=0).astype(np.float32)
    assert np.array_equal(sharpen(smooth, gray(planes, 4), neighbors(planes, 4, [2, 6])), smooth)


def test_fewer_than_two_neighbours_change_nothing(planes: Planes) -> None:
    wide = dilated(planes, 4, 4)
    assert np.array_equal(sharpen(wide, gray(planes, 4), []), wide)
    assert np.array_equal(sharpen(wide, gray(planes, 4), neighbors(planes, 4, [2])), wide)


def test_nothing_known_stays_nothing(planes: Planes) -> None:
    nothing = np.zeros((HEIGHT, WIDTH), np.float32)
    assert not sharpen(nothing, gray(planes, 4), neighbors(planes, 4, [2, 6])).any()


@pytest.mark.parametrize("ahead", [-4.0, -2.0, 4.0])
def test_neighbours_beyond_the_surface_do_no_harm(planes: Planes, ahead: float) -> None:
    """A neighbour's camera may stand exactly in a surface: its depth there is 0."""
    wide = dilated(planes, 4, 4)
    shift = planes.path.K[4] @ np.array([0.1, 0, ahead])
    picture = gray(planes, 4)
    sharp = sharpen(wide, picture, [(picture, shift), (picture, shift)])
    assert np.isfinite(sharp).all()


def test_flat_pictures_and_small_ones() -> None:
    rng = np.random.default_rng(0)
    for height, width in ((16, 16), (1, 1), (16, 200)):
        disparity = rng.uniform(0.1, 1, (height, width)).astype(np.float32)
        for picture in (np.zeros((height, width), np.uint8), noise_picture(height, width)[..., 0].copy()):
            shift = np.array([3.0, 0.0, 0.0])
            assert np.isfinite(sharpen(disparity, picture, [(picture, shift), (picture, -shift)])).all()
