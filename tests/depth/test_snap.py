"""Flying pixels are put on a surface; slopes, thin things and holes stay what they are."""

import cv2
import numpy as np
import pytest

from ex4d.core.arrays import Bool, Float32
from ex4d.core.clip import ArrayClip
from ex4d.core.depth import DepthVideo
from ex4d.depth.snap import BLUR_PX, SnappedDepthClip, snap_edges

HEIGHT, WIDTH = 60, 90


def step(near: float = 1.0, far: float = 0.25, at: int = 45) -> Float32:
    """Disparity: near on the left."""
    x = np.repeat(np.arange(WIDTH)[None], HEIGHT, axis=0)
    return np.where(x < at, near, far).astype(np.float32)


def blurred(values: Float32, radius_px: int) -> Float32:
    """Blended by `radius_px` to each side of an outline."""
    size = (2 * radius_px + 1, 2 * radius_px + 1)
    soft = np.asarray(cv2.blur(values, size), np.float32)
    flat = cv2.dilate(values, np.ones(size)) == cv2.erode(values, np.ones(size))
    return np.where(flat, values, soft).astype(np.float32)  # sums of 32-bit numbers leave a rest


@pytest.mark.parametrize("radius", [1, 2, 4, 8, 11])
def test_a_blurred_step_becomes_a_step_of_one_pixel(radius: int) -> None:
    sharp = snap_edges(blurred(step(), radius), radius)
    assert set(np.unique(sharp)) == {np.float32(0.25), np.float32(1)}
    assert ((np.abs(np.diff(sharp, axis=1)) > 0.1).sum(axis=1) == 1).all()
    edge = np.abs(np.diff(sharp, axis=1)).argmax(axis=1)
    assert np.abs(edge - 44).max() <= 1


def test_a_sharp_step_stays_as_it_is() -> None:
    assert np.array_equal(snap_edges(step(), 2), step())


def test_a_blurred_outline_in_both_directions() -> None:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    disc = np.where((x - 45) ** 2 + (y - 30) ** 2 < 15**2, 1.0, 0.3).astype(np.float32)
    sharp = snap_edges(blurred(disc, 2), 2)
    before, between = ((values > 0.41) & (values < 0.89) for values in (blurred(disc, 2), sharp))
    assert before.sum() > 300
    assert not between.any()
    assert ((sharp > 0.65) != (disc > 0.65)).mean() < 0.01


@pytest.mark.parametrize("slope", [0.001, 0.01, 0.03])
def test_a_slope_stays(slope: float) -> None:
    """However steep, and up to the frame: its range grows with the window."""
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    ramp = (0.1 + slope * x + 0.2 * slope * y).astype(np.float32)
    for radius in (1, 2, 6):
        assert np.array_equal(snap_edges(ramp, radius), ramp)


def test_a_crease_stays() -> None:
    """Floor and wall meet without a jump."""
    x = np.abs(np.arange(WIDTH) - 45.0)
    roof = np.repeat((0.3 + 0.01 * x)[None], HEIGHT, axis=0).astype(np.float32)
    got = snap_edges(roof, 2)
    assert np.abs(got - roof)[:, 6:-6].max() <= 0.04
    assert (got != roof)[:, 8:36].sum() == 0


def test_small_steps_are_no_edges() -> None:
    small = blurred(step(1.0, 0.95), 2)
    assert np.array_equal(snap_edges(small, 2), small)


@pytest.mark.parametrize("width", [1, 2, 3])
def test_a_thin_bar_survives(width: int) -> None:
    bar = np.full((HEIGHT, WIDTH), 0.25, np.float32)
    bar[:, 40 : 40 + width] = 1.0
    assert np.array_equal(snap_edges(bar, 2), bar)


def test_values_are_only_ever_taken_from_nearby() -> None:
    rng = np.random.default_rng(0)
    values = rng.uniform(0.1, 2, (HEIGHT, WIDTH)).astype(np.float32)
    got = snap_edges(values, 2)
    for y in range(3, HEIGHT - 3, 7):
        for x in range(3, WIDTH - 3, 7):
            assert got[y, x] in values[y - 3 : y + 4, x - 3 : x + 4]


def test_the_scale_of_disparity_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    blocks = np.kron(rng.uniform(0.2, 1, (6, 9)), np.ones((10, 10))).astype(np.float32)
    values = np.asarray(cv2.GaussianBlur(blocks, (0, 0), 1.3), np.float32)
    want = snap_edges(values, 2)
    assert (want != values).mean() > 0.1
    for factor in (2.0**-20, 64.0, 2.0**20):
        assert np.array_equal(snap_edges(values * np.float32(factor), 2), want * np.float32(factor))


def depth_clip(disparity: Float32, valid: Bool | None = None) -> ArrayClip[DepthVideo]:
    """One map [h,w] or several [T,h,w] as depth."""
    maps = disparity if disparity.ndim == 3 else disparity[None]
    known = np.ones(maps.shape, np.bool_) if valid is None else np.broadcast_to(valid, maps.shape).copy()
    depth = np.where(known, 1 / maps, 0).astype(np.float32)
    times = np.arange(len(maps)) / 24
    return ArrayClip(DepthVideo(depth=depth, valid=known, timestamps_s=times, scale="metric"))


def snapped(clip: ArrayClip[DepthVideo], height: int, width: int) -> DepthVideo:
    times = clip.timestamps_s + 5
    large = SnappedDepthClip(clip=clip, timestamps_s=times, height=height, width=width)
    assert large.num_frames == clip.num_frames
    return large.read(0, clip.num_frames)


def test_enlarging_keeps_straight_edges_straight() -> None:
    """A slanted edge in a map of a quarter of the size: no stairs of 4 px."""
    height, width, factor = 48, 64, 4
    y, x = np.mgrid[0 : height * factor, 0 : width * factor] + 0.5
    is_near = x + 0.4 * y < 150
    coarse = cv2.resize(is_near.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    got = snapped(depth_clip((0.25 + 0.75 * coarse).astype(np.float32)), height * factor, width * factor)
    assert got.depth.shape == (1, height * factor, width * factor)
    found = got.depth[0] < 2
    assert (found != is_near).mean() < 0.01
    edge = found.sum(axis=1)[8:-8].astype(float)
    line = np.polyval(np.polyfit(np.arange(len(edge)), edge, 1), np.arange(len(edge)))
    assert np.abs(edge - line).max() < 2
    jump = np.abs(np.diff(1 / got.depth[0][8:-8], axis=1)) > 0.1
    assert (jump.sum(axis=1) == 1).all()


def test_depth_of_surfaces_is_kept_when_enlarged() -> None:
    y, x = np.mgrid[0:40, 0:60]
    ramp = (0.2 + 0.004 * x + 0.003 * y).astype(np.float32)
    got = snapped(depth_clip(ramp), 120, 180)
    y, x = (np.mgrid[0:120, 0:180] + 0.5) / 3 - 0.5
    inner = np.s_[2:-2, 2:-2]  # what lies outside of the small map's centres is continued evenly
    assert 1 / got.depth[0][inner] == pytest.approx((0.2 + 0.004 * x + 0.003 * y)[inner], rel=0.005)
    assert got.scale == "metric"
    assert got.timestamps_s[0] == 5


def test_the_same_size_and_a_smaller_one() -> None:
    values = blurred(step(), BLUR_PX)
    same = snapped(depth_clip(values), HEIGHT, WIDTH)
    assert set(np.unique(np.round(1 / same.depth, 3))) == {0.25, 1.0}
    half = snapped(depth_clip(values), HEIGHT // 2, WIDTH // 2)
    assert set(np.unique(np.round(1 / half.depth, 3))) == {0.25, 1.0}


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_unknown_pixels_stay_unknown_and_pull_nothing(factor: int) -> None:
    """A hole beside two surfaces: neither its rim nor the far surface next to it changes."""
    values = step()
    valid = np.ones((HEIGHT, WIDTH), np.bool_)
    valid[20:40, 40:70] = False
    got = snapped(depth_clip(values, valid), HEIGHT * factor, WIDTH * factor)
    large = np.repeat(np.repeat(valid, factor, axis=0), factor, axis=1)
    assert np.array_equal(got.valid[0], large)
    assert not got.depth[0][~large].any()
    want = np.repeat(np.repeat(1 / values, factor, axis=0), factor, axis=1)
    off = np.abs(got.depth[0] / want - 1) > 0.01
    assert off[large].mean() < (0.001 if factor == 1 else 0.02)
    on_the_edge = np.abs(np.arange(WIDTH * factor) + 0.5 - 45 * factor) < 2 * factor
    assert not off[:, ~on_the_edge][large[:, ~on_the_edge]].any()


def test_a_slope_around_a_hole_stays() -> None:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    ramp = (0.2 + 0.004 * x + 0.003 * y).astype(np.float32)
    valid = (x - 45) ** 2 + (y - 30) ** 2 > 12**2
    got = snapped(depth_clip(ramp, valid), HEIGHT, WIDTH)
    inner = np.zeros((HEIGHT, WIDTH), np.bool_)
    inner[6:-6, 6:-6] = True
    assert np.abs(got.depth[0] * ramp - 1)[valid & inner].max() < 0.03


def test_nothing_known() -> None:
    got = snapped(depth_clip(step(), np.zeros((HEIGHT, WIDTH), np.bool_)), 2 * HEIGHT, 2 * WIDTH)
    assert not got.valid.any()
    assert not got.depth.any()


def test_frames_are_independent() -> None:
    maps = np.stack([blurred(step(at=at), 2) for at in (20, 45, 70)])
    clip = SnappedDepthClip(clip=depth_clip(maps), timestamps_s=np.arange(3) / 24, height=2 * HEIGHT, width=2 * WIDTH)
    whole = clip.read(0, 3)
    for index in range(3):
        assert np.array_equal(clip.read(index, index + 1).depth[0], whole.depth[index])


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 2)])
def test_tiny_maps(size: tuple[int, int]) -> None:
    got = snapped(depth_clip(np.full(size, 0.5, np.float32)), 16, 24)
    assert got.depth == pytest.approx(2)
    assert got.valid.all()


def test_far_and_near_extremes() -> None:
    values = step(1e4, 1e-8)
    got = snapped(depth_clip(values), HEIGHT, WIDTH)
    assert got.depth[0] == pytest.approx(1 / values, rel=1e-5)
