"""Landmarks: points in the world from known cameras."""

from dataclasses import replace

import numpy as np
import pytest

from ex4d.core.arrays import Float64
from ex4d.core.camera import CameraPath, static_path
from ex4d.motion.landmarks import Landmarks, find_landmarks
from ex4d.motion.tracks import Tracks
from motion.motion_tools import camera_path, project_points, random_points, sideways, tracks_of

HEIGHT, WIDTH, NUM = 192, 288, 16


@pytest.fixture(scope="module")
def path() -> CameraPath:
    return camera_path(*sideways(NUM, 0.05), height=HEIGHT, width=WIDTH)


@pytest.fixture(scope="module")
def points() -> Float64:
    return random_points(300, seed=2)


def empty_tracks(path: CameraPath) -> Tracks:
    return tracks_of(path, np.empty((0, 3)))


def test_points_are_found_where_they_are(path: CameraPath, points: Float64) -> None:
    found = find_landmarks(tracks_of(path, points), path)
    assert len(found.points) > 200
    assert (np.diff(found.track) > 0).all()
    assert np.abs(found.points - points[found.track]).max() < 1e-6


def test_noise_spreads_them_a_little(path: CameraPath, points: Float64) -> None:
    found = find_landmarks(tracks_of(path, points, noise_px=0.2), path)
    assert len(found.points) > 200
    error = np.linalg.norm(found.points - points[found.track], axis=1) / points[found.track, 2]
    assert np.median(error) < 0.01


def test_the_cameras_may_be_larger_than_the_tracked_pictures(path: CameraPath, points: Float64) -> None:
    """Tracks are followed in shrunk pictures, of not quite the same shape when sizes are rounded."""
    tracks = tracks_of(path, points)
    large = replace(path, K=path.K * np.array([4.0, 5.0, 1.0])[:, None], height=5 * HEIGHT, width=4 * WIDTH)
    found = find_landmarks(tracks, large)
    assert np.abs(found.points - points[found.track]).max() < 1e-6
    xy, depth = found.seen(NUM - 1)
    ids, _ = tracks.at(NUM - 1)
    known = points[np.intersect1d(ids, found.track)]
    want, z = project_points(large, NUM - 1, known)
    assert xy == pytest.approx(want, abs=1e-6)
    assert depth == pytest.approx(z, abs=1e-6)


def test_a_zoom_is_taken_into_account(points: Float64) -> None:
    """K of its own for every frame."""
    still_K = camera_path(*sideways(NUM, 0.05), height=HEIGHT, width=WIDTH)
    K = still_K.K.copy()
    K[:, 0, 0] *= np.linspace(1, 1.8, NUM)
    K[:, 1, 1] *= np.linspace(1, 1.8, NUM)
    path = replace(still_K, K=K)
    tracks = tracks_of(path, points)
    found = find_landmarks(tracks, path)
    assert len(found.points) > 150
    assert np.abs(found.points - points[found.track]).max() < 1e-6
    wrong = find_landmarks(tracks, still_K)
    assert len(wrong.points) < 0.5 * len(found.points)


def test_what_moves_or_hardly_shifts_is_left_out(path: CameraPath, points: Float64) -> None:
    tracks = tracks_of(path, points)
    jumps = tracks.track % 5 == 0
    xy = tracks.xy + jumps[:, None] * 1.5 * tracks.frame[:, None] * np.array([0.2, 1.0])
    found = find_landmarks(replace(tracks, xy=xy), path)
    assert (found.track % 5 == 0).mean() < 0.05
    assert len(found.track) > 150
    far = find_landmarks(tracks_of(path, points * 60), path)
    assert len(far.points) == 0


def test_points_behind_a_camera_are_no_landmarks(points: Float64) -> None:
    """Cameras looking the other way turn every ray around: the rays meet, but behind them."""
    path = camera_path(*sideways(NUM, 0.05), height=HEIGHT, width=WIDTH)
    tracks = tracks_of(path, points)
    mirrored = path.world_to_camera.copy()
    mirrored[:, :3, 3] *= -1
    assert len(find_landmarks(tracks, replace(path, world_to_camera=mirrored)).points) == 0


def test_a_frame_sees_only_what_lies_before_it(path: CameraPath) -> None:
    """A track that a frame saw while its landmark lies behind that frame's camera has no depth there."""
    tracks = tracks_of(path, np.array([(0.0, 0.0, 3.0), (0.2, 0.1, 4.0)]))
    found = Landmarks(
        points=np.array([(0.0, 0.0, 3.0), (0.2, 0.1, -4.0)]), track=np.array([0, 1]), tracks=tracks, path=path
    )
    xy, depth = found.seen(0)
    assert depth == pytest.approx([3.0])
    assert xy.shape == (1, 2)


def test_nothing_to_see(path: CameraPath, points: Float64) -> None:
    none = find_landmarks(empty_tracks(path), path)
    assert none.points.shape == (0, 3)
    xy, depth = none.seen(3)
    assert (xy.shape, depth.shape) == ((0, 2), (0,))
    tracks = tracks_of(path, points)
    still = static_path(K=path.K[0], num_frames=NUM, height=HEIGHT, width=WIDTH)
    assert len(find_landmarks(tracks, still).points) == 0


def test_many_tracks_are_done_in_batches(path: CameraPath) -> None:
    points = random_points(4500, seed=3)
    found = find_landmarks(tracks_of(path, points), path)
    assert len(found.points) > 3000
    assert (np.diff(found.track) > 0).all()
    assert np.abs(found.points - points[found.track]).max() < 1e-6
