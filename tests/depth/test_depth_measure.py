"""What depth is judged by: each figure against a case whose answer is known."""

import numpy as np
import pytest

from ex4d.core.camera import Camera, pinhole
from ex4d.core.geometry import pixel_centers, unproject
from ex4d.depth.measure import (
    AffineFit,
    BorderPairs,
    border_pairs,
    count_ordered,
    depth_errors,
    fit_clip,
    flicker_by_flow,
    flicker_by_matches,
    lattice_step,
    match_points,
    raw_disparity,
)
from ex4d.errors import DepthError

HEIGHT, WIDTH = 60, 300
REACH = 3


def depths(seed: int = 0, num: int = 4000) -> np.ndarray:
    return np.random.default_rng(seed).uniform(1, 8, num).astype(np.float32)


def wall(depth: float = 4.0) -> np.ndarray:
    return np.full((HEIGHT, WIDTH), depth, np.float32)


def everywhere() -> np.ndarray:
    return np.ones((HEIGHT, WIDTH), np.bool_)


def test_a_fit_finds_scale_and_shift() -> None:
    truth = depths()
    disparity = ((1 / truth - 0.3) / 2.5).astype(np.float32)
    fit = fit_clip(disparity, truth, farthest=8.0)
    assert fit.scale == pytest.approx(2.5, rel=1e-4)
    assert fit.shift == pytest.approx(0.3, rel=1e-4)
    assert fit.depth(disparity) == pytest.approx(truth, rel=1e-4)


def test_a_fit_bears_wrong_pixels() -> None:
    truth = depths()
    disparity = (1 / truth).astype(np.float32)
    disparity[:400] = 0.9  # a tenth is wrong
    disparity[-15:] = 1e4  # and a few are wild
    fit = fit_clip(disparity, truth, farthest=8.0)
    assert (fit.scale, fit.shift) == (pytest.approx(1, abs=0.02), pytest.approx(0, abs=0.01))
    plain = np.polyfit(disparity, 1 / truth, 1)
    assert abs(plain[0]) < 0.01  # least squares alone are lost


def test_near_and_far_are_never_exchanged() -> None:
    truth = depths()
    fit = fit_clip(truth, truth, farthest=8.0)  # depth taken for disparity
    assert fit.scale == 0
    assert np.ptp(fit.depth(truth)) == 0


def test_a_constant_estimate_becomes_one_wall() -> None:
    truth = depths()
    fit = fit_clip(np.full_like(truth, 7), truth, farthest=8.0)
    assert fit.scale == 0
    assert (1 / truth).min() < fit.shift < (1 / truth).max()


def test_what_is_beyond_the_truth_is_put_to_its_end() -> None:
    fit = AffineFit(scale=1.0, shift=-0.5, floor=1 / 8)
    disparity = np.array([1.5, 0.6, 0.2, np.nan], np.float32)
    assert fit.depth(disparity).tolist() == [1.0, 8.0, 8.0, 8.0]


def test_a_fit_needs_pixels() -> None:
    with pytest.raises(DepthError, match="at least two pixels"):
        fit_clip(np.array([1, np.nan], np.float32), np.array([1, 2], np.float32), farthest=2.0)


def test_raw_values_become_disparity() -> None:
    values, sky = np.array([2, 0, 4], np.float32), np.array([False, False, True])
    assert np.array_equal(raw_disparity(values, "depth"), np.array([0.5, np.nan, 0.25], np.float32), equal_nan=True)
    assert np.array_equal(raw_disparity(values, "disparity", sky), np.array([2, 0, np.nan]), equal_nan=True)


def test_a_lattice_keeps_to_its_budget() -> None:
    step = lattice_step(49, 480, 640, budget=1 << 18)
    assert 49 * (480 // step) * (640 // step) <= 1 << 18 < 49 * (480 // (step - 1)) * (640 // (step - 1))
    assert lattice_step(1, 10, 10) == 1


def test_errors_by_hand() -> None:
    abs_rel, delta1 = depth_errors(np.array([1, 3, 2.2, 1.0], np.float32), np.array([1, 2, 2, 1.3], np.float32))
    assert abs_rel == pytest.approx((0 + 0.5 + 0.1 + 0.3 / 1.3) / 4)
    assert delta1 == 0.5


def test_pairs_straddle_the_outline_of_a_box() -> None:
    truth = wall()
    truth[20:40, 100:160] = 2
    pairs = border_pairs(truth, everywhere())
    assert len(pairs.near) == 2 * (20 + 60)
    assert set(truth.ravel()[pairs.near]) == {2.0}
    assert set(truth.ravel()[pairs.far]) == {4.0}
    apart = np.abs(np.stack(np.divmod(pairs.near, WIDTH)) - np.stack(np.divmod(pairs.far, WIDTH))).sum(axis=0)
    assert set(apart) == {2 * REACH - 1}


def test_slopes_and_thin_things_have_no_pairs() -> None:
    rows = np.arange(HEIGHT, dtype=np.float32)[:, None] + np.zeros((1, WIDTH), np.float32)
    floor = (100 / (rows + 2)).astype(np.float32)  # from one row to the next up to 1.5 times as near
    assert len(border_pairs(floor, everywhere()).near) == 0
    thin = wall()
    thin[:, 100 : 100 + REACH - 1] = 2
    assert len(border_pairs(thin, everywhere()).near) == 0
    thin[:, 100 : 100 + REACH] = 2
    assert len(border_pairs(thin, everywhere()).near) == 2 * HEIGHT


@pytest.mark.parametrize(("gap", "found"), [(1, True), (REACH - 1, True), (REACH, False)])
def test_a_shadow_of_the_sensor_is_bridged(gap: int, found: bool) -> None:
    truth, known = wall(), everywhere()
    truth[:, :100] = 2
    known[:, 100 : 100 + gap] = False
    assert len(border_pairs(truth, known).near) == (HEIGHT if found else 0)


def test_order_counts_margin_and_sign() -> None:
    pairs = BorderPairs(near=np.array([0, 2, 4, 6]), far=np.array([1, 3, 5, 7]))
    depth = np.array([[1, 1.5, 1, 1.01, 1, 1, 2, 1]], np.float32)
    assert count_ordered(depth, pairs) == (1, 2)


def camera(x: float = 0.0) -> Camera:
    matrix = np.eye(4)
    matrix[0, 3] = -x
    return Camera(
        K=pinhole(focal_px=100, height=HEIGHT, width=WIDTH), world_to_camera=matrix, height=HEIGHT, width=WIDTH
    )


def all_points(depth: np.ndarray) -> np.ndarray:
    return unproject(camera(), pixel_centers(HEIGHT, WIDTH), depth.astype(np.float64)).reshape(-1, 3)


def test_points_are_found_again_unless_hidden_or_outside() -> None:
    truth = wall(4.0)
    # 0.2 to the right at depth 4 and focal length 100: everything moves 5 px to the left.
    after = wall(4.0)
    after[:, 150:160] = 2
    pixels = np.arange(truth.size)
    matches = match_points(pixels, all_points(truth), camera(0.2), after, everywhere())
    assert set(matches.before - matches.after) == {5}
    assert len(matches.before) == HEIGHT * (WIDTH - 5 - 10)
    unknown = everywhere()
    unknown[:, 200:] = False
    fewer = match_points(pixels, all_points(truth), camera(0.2), after, unknown)
    assert (fewer.after % WIDTH).max() == 199


def test_flicker_is_what_the_motion_does_not_explain() -> None:
    before, after = wall(4.0), wall(3.8)  # the camera went 0.2 forward
    points = all_points(before)
    matrix = np.eye(4)
    matrix[2, 3] = -0.2
    forward = Camera(K=camera().K, world_to_camera=matrix, height=HEIGHT, width=WIDTH)
    matches = match_points(np.arange(before.size), points, forward, after, everywhere())
    assert len(matches.before) > 0.8 * before.size
    truth = {"true_before": before, "true_after": after}
    assert flicker_by_matches(before, after, matches, **truth).max() == 0
    assert flicker_by_matches(2 * before, 2 * after, matches, **truth).max() < 1e-7
    jump = flicker_by_matches(before, after * np.float32(1.02), matches, **truth)
    assert jump == pytest.approx(np.log(1.02), rel=1e-4)


def test_flicker_follows_the_flow() -> None:
    before = np.linspace(1, 8, WIDTH, dtype=np.float32)[None].repeat(HEIGHT, axis=0)
    after = np.roll(before, -5, axis=1)
    flow = np.zeros((HEIGHT, WIDTH, 2), np.float32)
    flow[..., 0] = 5
    assert flicker_by_flow(before, after, flow, everywhere()) == 0
    assert flicker_by_flow(before, after * np.float32(1.02), flow, everywhere()) == pytest.approx(
        np.log(1.02), rel=1e-4
    )
    assert flicker_by_flow(before, after, 0 * flow, everywhere()) > 0.01
    half = everywhere()
    half[:, : WIDTH // 2 + 20] = False
    after[:, : WIDTH // 2 + 20] *= 3
    assert flicker_by_flow(before, after, flow, half) == 0
    assert np.isnan(flicker_by_flow(before, after, flow + WIDTH, everywhere()))
