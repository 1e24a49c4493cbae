"""Dense flow on pictures whose motion is known, and the look-ups around it."""

import numpy as np
import pytest

from ex4d.core.arrays import Float32
from ex4d.motion.flow import (
    FlowEngine,
    follow,
    gray_frame,
    is_consistent,
    iter_gray,
    round_trip_px,
    texture,
    work_size,
)
from motion.motion_tools import clip_of, noise_picture, shifted


def constant_flow(x: float, y: float, size: tuple[int, int] = (40, 60)) -> Float32:
    flow = np.zeros((*size, 2), np.float32)
    flow[..., 0], flow[..., 1] = x, y
    return flow


@pytest.mark.parametrize(
    ("size", "want"),
    [((1080, 1920), (216, 384)), ((1920, 1080), (384, 216)), ((100, 200), (100, 200)), ((1, 1), (16, 16)),
     ((2, 3000), (16, 384)), ((16, 16), (16, 16))],
)  # fmt: skip
def test_work_size(size: tuple[int, int], want: tuple[int, int]) -> None:
    assert work_size(*size) == want


def test_gray_frames_come_one_by_one_at_the_size_asked_for() -> None:
    frames = np.stack([np.full((30, 40, 3), 10 * i, np.uint8) for i in range(11)])
    got = list(iter_gray(clip_of(frames), (16, 20)))
    assert [int(gray[0, 0]) for gray in got] == [10 * i for i in range(11)]
    assert {gray.shape for gray in got} == {(16, 20)}
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 255
    assert gray_frame(red, (4, 4))[0, 0] == 76  # 0.299 · 255: colours are RGB, not BGR


def test_flow_of_a_shift_is_the_shift_below_a_tenth_of_a_pixel() -> None:
    picture = noise_picture(120, 160)
    first, second = (gray_frame(frame, (120, 160)) for frame in (picture, shifted(picture, 3.4, -1.6)))
    engine = FlowEngine()
    flow = engine.flow(first, second)
    inner = flow[20:-20, 20:-20]
    assert np.median(inner[..., 0]) == pytest.approx(3.4, abs=0.05)
    assert np.median(inner[..., 1]) == pytest.approx(-1.6, abs=0.05)
    assert np.percentile(np.abs(inner - (3.4, -1.6)), 90) < 0.15
    back = engine.flow(second, first)
    assert is_consistent(flow, back)[20:-20, 20:-20].mean() > 0.98
    assert np.array_equal(flow, FlowEngine().flow(first, second))  # buffers that are kept change nothing


def test_following_reads_where_the_flow_points() -> None:
    y, x = np.mgrid[0:40, 0:60].astype(np.float32)
    got = follow(constant_flow(2.25, -3.5), x + 100 * y)
    inside = got[5:, :-5]
    assert inside == pytest.approx(((x + 2.25) + 100 * (y - 3.5))[5:, :-5], abs=0.05)
    assert np.isnan(got[:3]).all()
    assert np.isnan(got[:, -2:]).all()
    pair = follow(constant_flow(1, 0), np.stack([x, y], axis=2))
    assert pair.shape == (40, 60, 2)
    assert pair[10, 10] == pytest.approx((11, 10))


def test_without_motion_every_pixel_finds_itself() -> None:
    """The last row and column too: they are no border."""
    still = constant_flow(0, 0)
    values = np.arange(40 * 60, dtype=np.float32).reshape(40, 60)
    assert np.array_equal(follow(still, values), values)
    assert not round_trip_px(still, still).any()


def test_round_trips() -> None:
    there, back = constant_flow(5, 2), constant_flow(-5, -2)
    trip = round_trip_px(there, back)
    assert trip[:-3, :-6].max() < 1e-5
    assert np.isinf(trip[-1]).all()
    assert np.isinf(trip[:, -1]).all()
    assert round_trip_px(there, constant_flow(-5, 1))[:-3, :-6] == pytest.approx(3)
    assert is_consistent(there, back)[:-3, :-6].all()
    assert not is_consistent(there, back)[:, -1].any()
    assert not is_consistent(there, constant_flow(-5, 0))[:-3, :-6].any()


def test_the_tolerance_of_a_round_trip_grows_with_the_motion() -> None:
    far, near = constant_flow(30, 0), constant_flow(3, 0)
    assert is_consistent(far, constant_flow(-28.5, 0))[:, :-32].all()
    assert not is_consistent(near, constant_flow(-1.5, 0))[:, :-5].any()


def test_texture_is_low_where_points_could_slide() -> None:
    picture = np.full((60, 90), 100, np.uint8)
    picture[:, 30:] = 200
    picture[40:, 60:] = 20
    strength = texture(picture)
    corner, edge, flat = strength[40, 60], strength[15, 30], strength[20, 10]
    assert corner > 100 * max(edge, 1e-6)
    assert flat == 0
