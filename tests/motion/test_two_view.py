"""Two views: what is recovered when the truth is known."""

import numpy as np
import pytest

from ex4d.core.arrays import Bool, Float64
from ex4d.core.camera import CameraPath
from ex4d.motion.two_view import bearings, epipolar_error_px, relative_pose, rotation_between, triangulate
from helpers import rotation_error_deg
from motion.motion_tools import angle_deg, camera_path, project_points, random_points

HEIGHT, WIDTH = 216, 384


def two_cameras(eye: tuple[float, float, float], turn: tuple[float, float, float]) -> CameraPath:
    eyes, turns = np.array([(0.0, 0.0, 0.0), eye]), np.array([(0.0, 0.0, 0.0), turn])
    return camera_path(eyes, turns, height=HEIGHT, width=WIDTH)


def views(path: CameraPath, points: Float64) -> tuple[Float64, Float64]:
    return project_points(path, 0, points)[0], project_points(path, 1, points)[0]


@pytest.fixture(scope="module")
def moved() -> tuple[CameraPath, Float64, Float64]:
    """A step to the right with a turn, 300 points in both views."""
    path = two_cameras((0.4, -0.1, 0.15), (0.02, -0.06, 0.03))
    return path, *views(path, random_points(300, seed=1))


@pytest.mark.parametrize("turn", [(0, 0, 0), (0.0, 0.3, 0.0), (-0.2, 0.1, 0.4), (0.0, 0.0, 3.0)])
def test_a_pure_turn_is_found_exactly(turn: tuple[float, float, float]) -> None:
    path = two_cameras((0, 0, 0), turn)
    first, second = views(path, random_points(200))
    rotation, left = rotation_between(first, second, path.K[0])
    assert rotation_error_deg(rotation, path.world_to_camera[1, :3, :3]) < 1e-5
    assert left.max() < 1e-6
    assert np.linalg.det(rotation) == pytest.approx(1)


def test_a_turn_is_found_among_things_that_move() -> None:
    path = two_cameras((0, 0, 0), (0.05, -0.1, 0.02))
    first, second = views(path, random_points(200))
    second[:70] += (25, -10)
    rotation, left = rotation_between(first, second, path.K[0])
    assert rotation_error_deg(rotation, path.world_to_camera[1, :3, :3]) < 0.05
    assert np.median(left[:70]) == pytest.approx(np.hypot(25, 10), rel=0.05)
    assert left[70:].max() < 0.4


def test_residuals_of_a_turn_are_parallax(moved: tuple[CameraPath, Float64, Float64]) -> None:
    """Near points are left with more than far ones, none of it explained by the turn."""
    path, first, second = moved
    _, left = rotation_between(first, second, path.K[0])
    depth = random_points(300, seed=1)[:, 2]
    assert left[depth < 2.5].mean() > 1.5 * left[(depth > 3.5) & (depth < 4.5)].mean()


def test_the_pose_is_found_exactly(moved: tuple[CameraPath, Float64, Float64]) -> None:
    path, first, second = moved
    found = relative_pose(first, second, path.K[0])
    assert found is not None
    truth = path.world_to_camera[1]
    assert rotation_error_deg(found.rotation, truth[:3, :3]) < 0.01
    assert angle_deg(found.translation, truth[:3, 3]) < 0.1
    assert np.linalg.norm(found.translation) == pytest.approx(1)
    assert found.inlier.mean() > 0.98


def test_the_pose_is_found_with_noise_and_outliers(moved: tuple[CameraPath, Float64, Float64]) -> None:
    path, first, second = moved
    rng = np.random.default_rng(4)
    noisy = second + 0.2 * rng.standard_normal(second.shape)
    noisy[:90] = rng.uniform((0, 0), (WIDTH, HEIGHT), (90, 2))
    found = relative_pose(first, noisy, path.K[0])
    assert found is not None
    truth = path.world_to_camera[1]
    assert rotation_error_deg(found.rotation, truth[:3, :3]) < 0.5
    assert angle_deg(found.translation, truth[:3, 3]) < 5
    assert found.inlier[90:].mean() > 0.9
    assert found.inlier[:90].mean() < 0.2
    again = relative_pose(first, noisy, path.K[0])
    assert again is not None
    assert np.array_equal(again.rotation, found.rotation)
    assert np.array_equal(again.inlier, found.inlier)


def collinear(count: int) -> Float64:
    return np.stack([np.linspace(10, 300, count), np.full(count, 50.0)], axis=1)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.zeros((0, 2)), np.zeros((0, 2))),
        (np.full((11, 2), 7.0), np.full((11, 2), 8.0)),
        (np.full((40, 2), 7.0), np.full((40, 2), 7.0)),
        (collinear(40), collinear(40)),
        (collinear(40), collinear(40) + 3),
        (collinear(40), collinear(40)[::-1].copy()),
        (collinear(40), np.full((40, 2), 7.0)),
        (collinear(40) * 1e6, collinear(40) * -1e6),
    ],
)
def test_degenerate_points_give_no_pose_or_a_proper_one(first: Float64, second: Float64) -> None:
    K = two_cameras((0, 0, 0), (0, 0, 0)).K[0]
    found = relative_pose(first, second, K)
    if len(first) < 12:
        assert found is None
    if found is not None:
        assert np.isfinite(found.rotation).all()
        assert np.linalg.det(found.rotation) == pytest.approx(1)
        assert np.linalg.norm(found.translation) == pytest.approx(1)
        assert found.inlier.shape == (len(first),)
    if len(first):
        rotation, left = rotation_between(first, second, K)
        assert np.isfinite(rotation).all()
        assert np.isfinite(left).all()


def test_epipolar_error_is_the_distance_from_the_line(moved: tuple[CameraPath, Float64, Float64]) -> None:
    path, first, second = moved
    truth = path.world_to_camera[1]
    arguments = path.K[0], truth[:3, :3], truth[:3, 3]
    assert epipolar_error_px(first, second, *arguments).max() < 1e-9
    # A point moved across its line by d px is d / sqrt(2) from the nearest pair that fits; along it, nothing happens.
    x, y, z = truth[:3, 3]
    inverse = np.linalg.inv(path.K[0])
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    lines = np.c_[first, np.ones(len(first))] @ (inverse.T @ cross @ truth[:3, :3] @ inverse).T
    normal = lines[:, :2] / np.linalg.norm(lines[:, :2], axis=1, keepdims=True)
    across = epipolar_error_px(first, second + 0.5 * normal, *arguments)
    along = epipolar_error_px(first, second + 0.5 * normal[:, ::-1] * (1, -1), *arguments)
    assert np.median(across) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)
    assert along.max() < 1e-9
    # the length of the translation says nothing
    scaled = epipolar_error_px(first, second + 0.5 * normal, path.K[0], truth[:3, :3], 100 * truth[:3, 3])
    assert scaled == pytest.approx(across, rel=1e-6)


def triangulated(eyes: Float64, points: Float64, seen: Bool | None = None) -> tuple[Float64, Float64]:
    path = camera_path(eyes, np.zeros_like(eyes), height=HEIGHT, width=WIDTH)
    rays = np.stack([bearings(project_points(path, i, points)[0], path.K[i]) for i in range(len(eyes))])
    matrices = path.world_to_camera[:, None]
    everything = np.ones(rays.shape[:2], np.bool_)
    return triangulate(rays, matrices[..., :3, :3], matrices[..., :3, 3], everything if seen is None else seen)


def test_triangulation_returns_the_points_and_their_angle() -> None:
    points = random_points(50)
    eyes = np.array([(0.0, 0, 0), (0.3, 0, 0), (0.1, 0.2, 0.1)])
    found, angle = triangulated(eyes, points)
    assert np.abs(found - points).max() < 1e-7
    to_first, to_second = points - eyes[0], points - eyes[1]
    cosine = np.einsum("ni,ni->n", to_first, to_second)
    cosine /= np.linalg.norm(to_first, axis=1) * np.linalg.norm(to_second, axis=1)
    two, exact = triangulated(eyes[:2], points)
    assert exact == pytest.approx(np.arccos(cosine), rel=1e-4)
    assert np.abs(two - points).max() < 1e-7
    assert (angle >= 0.8 * exact).all()


def test_triangulation_ignores_views_that_see_nothing() -> None:
    points = random_points(20)
    eyes = np.array([(0.0, 0, 0), (0.3, 0, 0), (0.1, 0.2, 0.1)])
    seen = np.ones((3, 20), np.bool_)
    seen[2, ::2] = False
    path = camera_path(eyes, np.zeros_like(eyes), height=HEIGHT, width=WIDTH)
    rays = np.stack([bearings(project_points(path, i, points)[0], path.K[i]) for i in range(3)])
    rays[2, ::2] = (0, 0, 1)  # nonsense that must not count
    matrices = path.world_to_camera[:, None]
    found, angle = triangulate(rays, matrices[..., :3, :3], matrices[..., :3, 3], seen)
    assert np.abs(found - points).max() < 1e-7
    assert np.isfinite(angle).all()


def test_rays_that_never_meet_have_no_angle() -> None:
    """No baseline, one view, no view at all: finite numbers and an angle of 0, so that nobody keeps the point."""
    points = random_points(10)
    for eyes, seen in [
        (np.zeros((2, 3)), np.ones((2, 10), np.bool_)),
        (np.zeros((1, 3)), np.ones((1, 10), np.bool_)),
        (np.zeros((2, 3)), np.zeros((2, 10), np.bool_)),
    ]:
        found, angle = triangulated(eyes, points, seen)
        assert np.isfinite(found).all()
        assert angle.max() < 1e-6
