"""Bundle adjustment: it goes back to the truth, and every derivative is right."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from ex4d.core.arrays import Float64
from ex4d.motion import bundle
from ex4d.motion.bundle import Problem, adjust, residuals, rotation_of
from helpers import rotation_error_deg
from motion.motion_tools import camera_path, project_points, random_points, sideways

FOCAL_PX, NUM, COUNT = 300.0, 6, 80


@pytest.fixture(scope="module")
def truth() -> Problem:
    """Six cameras that see 80 points exactly; the first one is fixed."""
    path = camera_path(*sideways(NUM, 0.15), height=256, width=384)
    points = random_points(COUNT, spread=0.5)
    matrices, K = path.world_to_camera, path.K[0]
    seen = [project_points(path, i, points)[0] - K[:2, 2] for i in range(NUM)]
    return Problem(
        rotation=matrices[:, :3, :3],
        translation=matrices[:, :3, 3],
        points=points,
        focal_px=FOCAL_PX,
        camera=np.repeat(np.arange(NUM), COUNT),
        point=np.tile(np.arange(COUNT), NUM),
        xy=np.concatenate(seen) * FOCAL_PX / K[0, 0],
        fixed=np.arange(NUM) < 1,
    )


def disturbed(truth: Problem, size: float, *, seed: int = 0) -> Problem:
    rng = np.random.default_rng(seed)
    free = ~truth.fixed[:, None]
    return replace(
        truth,
        rotation=rotation_of(size * free * rng.standard_normal((len(truth.rotation), 3))) @ truth.rotation,
        translation=truth.translation + size * free * rng.standard_normal(truth.translation.shape),
        points=truth.points * (1 + size * rng.standard_normal((len(truth.points), 1))),
    )


def cost(problem: Problem) -> float:
    """Huber's, written anew."""
    error, depth = residuals(problem)
    size = np.where(depth > 1e-3, np.linalg.norm(error, axis=1), 100.0)
    return float(np.where(size < 1, size**2 / 2, size - 0.5).sum())


def test_the_truth_has_no_residuals(truth: Problem) -> None:
    error, depth = residuals(truth)
    assert np.abs(error).max() < 1e-9
    assert (depth > 1).all()


def test_adjustment_returns_to_the_truth_up_to_scale(truth: Problem) -> None:
    found = adjust(disturbed(truth, 0.02), 30)
    assert np.abs(residuals(found)[0]).max() < 1e-4
    eyes, want = (-np.einsum("nji,nj->ni", p.rotation, p.translation) for p in (found, truth))
    scale = np.linalg.norm(want[-1]) / np.linalg.norm(eyes[-1])
    assert np.abs(eyes * scale - want).max() < 1e-4
    assert np.abs(found.points * scale - truth.points).max() < 1e-3
    for a, b in zip(found.rotation, truth.rotation, strict=True):
        assert rotation_error_deg(a, b) < 1e-3


def test_outliers_bend_it_little(truth: Problem) -> None:
    rng = np.random.default_rng(1)
    xy = truth.xy + 0.1 * rng.standard_normal(truth.xy.shape)
    xy[::12] += rng.uniform(-30, 30, xy[::12].shape)
    found = adjust(replace(disturbed(truth, 0.01), xy=xy), 30)
    for a, b in zip(found.rotation, truth.rotation, strict=True):
        assert rotation_error_deg(a, b) < 0.3


def test_fixed_cameras_stay_to_the_bit(truth: Problem) -> None:
    fixed = np.array([True, False, True, False, False, True])
    start = replace(disturbed(truth, 0.02), fixed=fixed)
    found = adjust(start)
    assert np.array_equal(found.rotation[fixed], start.rotation[fixed])
    assert np.array_equal(found.translation[fixed], start.translation[fixed])
    assert not np.array_equal(found.translation[~fixed], start.translation[~fixed])
    only_points = adjust(replace(disturbed(truth, 0.02), fixed=np.ones(NUM, np.bool_)))
    assert np.array_equal(only_points.rotation, disturbed(truth, 0.02).rotation)
    assert cost(only_points) < cost(disturbed(truth, 0.02))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [0.01, 0.1, 0.6])
def test_the_cost_never_rises(truth: Problem, size: float, seed: int) -> None:
    """From near, from far, and from where points lie behind cameras."""
    problem = disturbed(truth, size, seed=seed)
    costs = [cost(problem)]
    for _ in range(6):
        problem = adjust(problem, 1)
        costs.append(cost(problem))
    assert all(after <= before for before, after in pairwise(costs))
    assert costs[-1] < costs[0]
    for rotation in problem.rotation:
        assert np.abs(rotation @ rotation.T - np.eye(3)).max() < 1e-12


def test_derivatives_agree_with_finite_differences(truth: Problem) -> None:
    problem, step = disturbed(truth, 0.05), 1e-6
    by_camera, by_point = bundle._jacobians(problem)
    free = ~problem.fixed[problem.camera]

    def slope(forward: Problem, backward: Problem) -> Float64:
        return (residuals(forward)[0] - residuals(backward)[0]) / (2 * step)

    for axis in range(3):
        move = step * np.eye(3)[axis]
        turns = [rotation_of(np.repeat(sign * move[None], NUM, axis=0)) for sign in (1, -1)]
        turned = slope(*(replace(problem, rotation=turn @ problem.rotation) for turn in turns))
        moved = slope(*(replace(problem, translation=problem.translation + sign * move) for sign in (1, -1)))
        pushed = slope(*(replace(problem, points=problem.points + sign * move) for sign in (1, -1)))
        assert np.abs(turned - by_camera[:, :, axis])[free].max() < 1e-3
        assert np.abs(moved - by_camera[:, :, 3 + axis])[free].max() < 1e-3
        assert np.abs(pushed - by_point[:, :, axis]).max() < 1e-3
    assert not by_camera[~free].any()


def test_gradient_is_the_slope_of_the_cost(truth: Problem) -> None:
    """The normal equations hold the derivative of Huber's cost, so that a small step against it goes down as told."""
    problem = disturbed(truth, 0.03)
    system = bundle._linearize(problem)
    step = 1e-7
    moved = replace(problem, points=problem.points - step * system.gradient_points)
    told = step * float((system.gradient_points**2).sum())
    assert cost(problem) - cost(moved) == pytest.approx(told, rel=0.01)
    moved = replace(problem, translation=problem.translation - step * 1e-3 * system.gradient_cameras[:, 3:])
    told = step * 1e-3 * float((system.gradient_cameras[:, 3:] ** 2).sum())
    assert cost(problem) - cost(moved) == pytest.approx(told, rel=0.01)


def test_the_reduced_system_solves_the_whole_one(truth: Problem) -> None:
    """Eliminating the points gives the step that the full damped normal equations give."""
    problem, damping = disturbed(truth, 0.02), 1e-2
    system = bundle._linearize(problem)
    by_camera, by_point = bundle._jacobians(problem)
    error = residuals(problem)[0]
    weight = np.minimum(1, 1 / np.maximum(np.linalg.norm(error, axis=1), 1e-9))
    rows = np.zeros((len(error), 2, 6 * NUM + 3 * COUNT))
    for k, (camera, point) in enumerate(zip(problem.camera, problem.point, strict=True)):
        rows[k, :, 6 * camera : 6 * camera + 6] = by_camera[k]
        rows[k, :, 6 * NUM + 3 * point : 6 * NUM + 3 * point + 3] = by_point[k]
    flat, sizes = rows.reshape(-1, rows.shape[2]), np.repeat(weight, 2)
    matrix = flat.T @ (flat * sizes[:, None])
    matrix[np.diag_indices_from(matrix)] *= 1 + damping
    matrix[np.diag_indices_from(matrix)] += 1e-9
    free = np.r_[np.repeat(~problem.fixed, 6), np.ones(3 * COUNT, np.bool_)]
    move = np.zeros(len(matrix))
    move[free] = np.linalg.solve(matrix[np.ix_(free, free)], -(flat.T @ (error.ravel() * sizes))[free])
    found = bundle._step(problem, system, damping)
    assert np.abs(found.points - problem.points - move[6 * NUM :].reshape(-1, 3)).max() < 1e-8
    turns = move[: 6 * NUM].reshape(-1, 6)
    assert np.abs(found.translation - problem.translation - turns[:, 3:]).max() < 1e-8
    assert np.abs(found.rotation - rotation_of(turns[:, :3]) @ problem.rotation).max() < 1e-8


def test_turns_become_rotations() -> None:
    turns = np.array([(0, 0, 0), (np.pi / 2, 0, 0), (0, 0, np.pi), (1e-9, 0, 0)])
    found = rotation_of(turns)
    assert np.abs(found @ np.swapaxes(found, 1, 2) - np.eye(3)).max() < 1e-12
    assert found[1] @ (0, 1, 0) == pytest.approx((0, 0, 1), abs=1e-12)
    assert found[2] @ (1, 0, 0) == pytest.approx((-1, 0, 0), abs=1e-12)
    assert np.array_equal(found[0], np.eye(3))


def _nothing(truth: Problem) -> Problem:
    empty = np.empty(0, np.int64)
    return replace(truth, camera=empty, point=empty, xy=np.empty((0, 2)))


def _one_point(truth: Problem) -> Problem:
    return replace(truth, points=np.repeat(truth.points[:1], COUNT, axis=0))


def _no_baseline(truth: Problem) -> Problem:
    return replace(truth, translation=np.zeros_like(truth.translation), fixed=np.zeros(NUM, np.bool_))


def _behind(truth: Problem) -> Problem:
    return replace(truth, points=-truth.points)


def _far(truth: Problem) -> Problem:
    return replace(truth, points=truth.points * 1e9)


def _at_the_eye(truth: Problem) -> Problem:
    return replace(truth, points=np.zeros_like(truth.points))


@pytest.mark.parametrize("spoil", [_nothing, _one_point, _no_baseline, _behind, _far, _at_the_eye])
def test_degenerate_problems_end_finite(truth: Problem, spoil) -> None:  # pyright: ignore[reportMissingParameterType]
    start = spoil(truth)
    found = adjust(start)
    assert np.isfinite(found.points).all()
    assert np.isfinite(found.translation).all()
    assert cost(found) <= cost(start)
