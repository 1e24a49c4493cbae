"""Splines pass through their keys, stay smooth at uneven times and hold their ends."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ex4d.camera.splines import catmull_rom, monotone_cubic, quaternion_multiply, squad
from ex4d.core.arrays import Float64
from ex4d.core.rotations import matrix_to_quaternion, quaternion_to_matrix


def _keys(seed: int, num: int, columns: int) -> tuple[Float64, Float64]:
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.uniform(0.05, 1.0, num))
    return (times - times[0]) / max(times[-1] - times[0], 1.0), rng.normal(size=(num, columns))


def _angle(a: Float64, b: Float64) -> Float64:
    return 2 * np.arccos(np.clip(np.abs((a * b).sum(-1)), 0, 1))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), num=st.integers(1, 8))
def test_pass_through_the_keys_and_hold_the_ends(seed: int, num: int) -> None:
    times, points = _keys(seed, num, 3)
    assert catmull_rom(times, points, times) == pytest.approx(points, abs=1e-12)
    outside = np.array([times[0] - 1, times[-1] + 1])
    assert catmull_rom(times, points, outside) == pytest.approx(points[[0, -1]], abs=1e-12)
    assert monotone_cubic(times, points[:, 0], times) == pytest.approx(points[:, 0], abs=1e-12)
    quaternions = _keys(seed, num, 4)[1]
    quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True)
    assert _angle(squad(times, quaternions, times), quaternions).max() < 1e-6


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), num=st.integers(3, 8))
def test_velocity_is_continuous_at_the_keys(seed: int, num: int) -> None:
    times, points = _keys(seed, num, 3)
    quaternions = _keys(seed + 1, num, 4)[1]
    quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True)
    step = 1e-5
    t = times[1:-1]
    for curve, keys in ((catmull_rom, points), (squad, quaternions)):
        before = (curve(times, keys, t) - curve(times, keys, t - step)) / step
        after = (curve(times, keys, t + step) - curve(times, keys, t)) / step
        assert np.abs(before - after).max() < 0.05 * max(1.0, float(np.abs(after).max()))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), num=st.integers(3, 8))
def test_monotone_cubic_stays_between_its_keys(seed: int, num: int) -> None:
    times, points = _keys(seed, num, 1)
    values = points[:, 0]
    t = np.linspace(times[0], times[-1], 400)
    curve = monotone_cubic(times, values, t)
    i = np.clip(np.searchsorted(times, t, side="right") - 1, 0, num - 2)
    assert (curve >= np.minimum(values[i], values[i + 1]) - 1e-12).all()
    assert (curve <= np.maximum(values[i], values[i + 1]) + 1e-12).all()


def test_straight_lines_and_parabolas_are_kept() -> None:
    times = np.array([0.0, 0.1, 0.45, 0.6, 1.0])
    t = np.linspace(0, 1, 33)
    line = np.stack([2 * times - 1, 0 * times], axis=1)
    assert catmull_rom(times, line, t) == pytest.approx(np.stack([2 * t - 1, 0 * t], axis=1))
    inside = (t >= 0.1) & (t <= 0.6)
    assert catmull_rom(times, (times**2)[:, None], t[inside])[:, 0] == pytest.approx(t[inside] ** 2)


def test_squad_of_a_steady_turn_is_that_turn() -> None:
    times = np.array([0.0, 0.2, 0.3, 1.0])
    t = np.linspace(0, 1, 41)

    def about_y(angle: Float64) -> Float64:
        return np.stack([np.cos(angle / 2), 0 * angle, np.sin(angle / 2), 0 * angle], axis=-1)

    assert _angle(squad(times, about_y(2.0 * times), t), about_y(2.0 * t)).max() < 1e-6


def test_squad_takes_the_short_way_whatever_the_signs() -> None:
    times = np.array([0.0, 0.5, 1.0])
    keys = np.array([[1.0, 0, 0, 0], [0.96, 0.28, 0, 0], [0.8, 0.6, 0, 0]])
    flipped = keys * np.array([[1.0], [-1.0], [1.0]])
    t = np.linspace(0, 1, 21)
    assert _angle(squad(times, keys, t), squad(times, flipped, t)).max() < 1e-6
    assert _angle(squad(times, keys, t), keys[:1]).max() < 1.3


def test_quaternion_product_is_the_product_of_rotations() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, 20, 4))
    product = quaternion_to_matrix(quaternion_multiply(a, b))
    assert product == pytest.approx(quaternion_to_matrix(a) @ quaternion_to_matrix(b))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: sum(x * x for x in q) > 0.01))
def test_matrix_and_quaternion_are_inverse(values: list[float]) -> None:
    q = np.array(values) / np.linalg.norm(values)
    back = matrix_to_quaternion(quaternion_to_matrix(q))
    assert back[0] >= 0
    assert min(np.abs(back - q).max(), np.abs(back + q).max()) < 1e-12
