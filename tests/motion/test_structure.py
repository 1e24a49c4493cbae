"""Cameras and points from perfect, noisy, moving and broken tracks, without any picture."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from ex4d.core.arrays import Bool, Float64
from ex4d.core.camera import CameraPath, rebase
from ex4d.motion.odometry import Odometry, find_cameras
from ex4d.motion.structure import choose_keyframes, pose_from_points, reconstruct
from ex4d.motion.tracks import Tracks
from helpers import rotation_error_deg
from motion.motion_tools import camera_path, random_points, sideways, tracks_of

HEIGHT, WIDTH, NUM, COUNT = 256, 384, 16, 200


@pytest.fixture(scope="module")
def path() -> CameraPath:
    return camera_path(*sideways(NUM, 0.06), height=HEIGHT, width=WIDTH)


@pytest.fixture(scope="module")
def points() -> Float64:
    return random_points(COUNT, seed=7)


def cameras(tracks: Tracks, path: CameraPath) -> Odometry:
    found = find_cameras(tracks, path.K[0], height=path.height, width=path.width)
    assert found is not None
    return found


def errors(found: CameraPath, truth: CameraPath) -> tuple[float, float]:
    """(largest rotation error in degrees, largest error of an eye as a share of how far the camera went)."""
    turns = [
        rotation_error_deg(a[:3, :3], b[:3, :3])
        for a, b in zip(found.world_to_camera, truth.world_to_camera, strict=True)
    ]
    eyes, want = found.center, truth.center
    scale = float((eyes * want).sum() / (eyes * eyes).sum())
    way = float(np.linalg.norm(want, axis=1).max())
    return max(turns), float(np.linalg.norm(scale * eyes - want, axis=1).max()) / way


def kept(tracks: Tracks, keep: Bool) -> Tracks:
    return replace(tracks, frame=tracks.frame[keep], track=tracks.track[keep], xy=tracks.xy[keep])


def test_exact_tracks_give_exact_cameras(path: CameraPath, points: Float64) -> None:
    found = cameras(tracks_of(path, points), path)
    turn_deg, way = errors(found.path, path)
    assert found.kind == "full"
    assert turn_deg < 0.01
    assert way < 0.001
    assert found.is_found.all()
    assert found.share > 0.99
    assert found.error_px < 0.01


def test_the_unit_is_the_median_depth_of_the_first_frame(path: CameraPath, points: Float64) -> None:
    """A scene ten times as large gives the same cameras."""
    tracks = tracks_of(path, points)
    found = cameras(tracks, path)
    seen = points[tracks.at(0)[0], 2]
    way, true_way = (np.linalg.norm(p.center[-1]) for p in (found.path, path))
    assert way == pytest.approx(true_way / np.median(seen), rel=0.03)
    assert np.array_equal(found.path.world_to_camera[0], np.eye(4))


def test_noisy_tracks_with_movers_and_short_lives(path: CameraPath, points: Float64) -> None:
    tracks = tracks_of(path, points, noise_px=0.25, seed=1)
    moving = tracks.track % 6 == 0
    xy = tracks.xy + moving[:, None] * tracks.frame[:, None] * np.array([1.3, -0.8])
    alive = np.abs(tracks.frame - (tracks.track * 7) % NUM) < 7
    found = cameras(kept(replace(tracks, xy=xy), alive), path)
    turn_deg, way = errors(found.path, path)
    assert found.kind == "full"
    assert turn_deg < 0.7
    assert way < 0.05
    assert 0.6 < found.share < 0.9


def test_the_clip_may_be_larger_than_the_tracked_pictures(path: CameraPath, points: Float64) -> None:
    tracks = tracks_of(path, points)
    found = find_cameras(tracks, path.K[0] * np.array([3, 3, 1])[:, None], height=3 * HEIGHT, width=3 * WIDTH)
    assert found is not None
    assert (found.path.height, found.path.width) == (3 * HEIGHT, 3 * WIDTH)
    assert errors(found.path, path)[0] < 0.01


@pytest.mark.parametrize("turn_scale", [0.0, 12.0])
def test_a_camera_that_turns_or_stands_has_turns_only(points: Float64, turn_scale: float) -> None:
    turns = turn_scale * sideways(NUM)[1]
    path = camera_path(np.zeros((NUM, 3)), turns, height=HEIGHT, width=WIDTH)
    found = cameras(tracks_of(path, random_points(900, spread=2.0), noise_px=0.1), path)
    assert found.kind == "rotation"
    assert not found.path.center.any()
    turns_deg = [
        rotation_error_deg(a[:3, :3], b[:3, :3])
        for a, b in zip(found.path.world_to_camera, path.world_to_camera, strict=True)
    ]
    assert max(turns_deg) < 0.1


def test_shifts_are_not_looked_for_where_the_detector_saw_none(path: CameraPath, points: Float64) -> None:
    """Of a slow camera the turns are found; a fast one cannot be explained by turns, and is not."""
    eyes, turns = sideways(NUM, 0.002)
    slow = camera_path(eyes, turns, height=HEIGHT, width=WIDTH)
    for truth in (slow, path):
        tracks = tracks_of(truth, points)
        found = find_cameras(tracks, truth.K[0], height=HEIGHT, width=WIDTH, may_shift=False)
        assert (found is None) == (truth is path)
        if found is not None:
            assert found.kind == "rotation"


def test_a_camera_that_goes_forward_only(points: Float64) -> None:
    s = np.arange(NUM, dtype=np.float64)[:, None]
    path = camera_path(s * np.array([[0, 0, 0.05]]), s * np.zeros((1, 3)), height=HEIGHT, width=WIDTH)
    found = cameras(tracks_of(path, points, noise_px=0.1), path)
    assert found.kind == "full"
    assert errors(found.path, path)[1] < 0.05


def test_a_camera_that_stands_then_goes_then_stops(points: Float64) -> None:
    s = np.clip(np.arange(36.0) - 12, 0, 12)
    eyes, turns = sideways(13, 0.06)
    path = camera_path(eyes[s.astype(int)], turns[s.astype(int)], height=HEIGHT, width=WIDTH)
    found = cameras(tracks_of(path, points, noise_px=0.1), path)
    turn_deg, way = errors(found.path, path)
    assert found.kind == "full"
    assert turn_deg < 0.1
    assert way < 0.02
    assert np.linalg.norm(found.path.center[:12], axis=1).max() < 0.02 * np.linalg.norm(found.path.center[-1])


def test_a_frame_without_tracks_lies_between_its_neighbours(path: CameraPath, points: Float64) -> None:
    tracks = tracks_of(path, points)
    found = cameras(kept(tracks, tracks.frame != 8), path)
    assert found.kind == "full"
    assert np.flatnonzero(~found.is_found).tolist() == [8]
    assert "1 of 16 frames interpolated" in found.sentence()
    turn_deg, way = errors(found.path, path)
    assert turn_deg < 0.2
    assert way < 0.01


def test_frames_without_tracks_at_the_ends_stand_where_the_nearest_does(path: CameraPath, points: Float64) -> None:
    tracks = tracks_of(path, points)
    found = reconstruct(kept(tracks, (tracks.frame > 2) & (tracks.frame < NUM - 3)), path.K[0])
    assert found is not None
    assert np.flatnonzero(~found.is_found).tolist() == [0, 1, 2, 13, 14, 15]
    for ends, nearest in ((slice(0, 3), 3), (slice(13, 16), 12)):
        assert np.abs(found.rotation[ends] - found.rotation[nearest]).max() < 1e-12
        assert np.abs(found.translation[ends] - found.translation[nearest]).max() < 1e-12


def test_too_many_frames_without_tracks_are_no_way(path: CameraPath, points: Float64) -> None:
    tracks = tracks_of(path, points)
    found = find_cameras(kept(tracks, tracks.frame % 5 != 2), path.K[0], height=HEIGHT, width=WIDTH)
    assert found is None or found.kind == "rotation"


def test_a_long_way_is_adjusted_in_windows() -> None:
    """More keyframes than one adjustment takes; points come and go."""
    num = 54
    path = camera_path(*sideways(num, 0.08), height=HEIGHT, width=WIDTH)
    rng = np.random.default_rng(0)
    points = random_points(900, spread=0.8)
    points[:, :2] += rng.uniform(0, 1, (900, 1)) * path.center[-1, :2]
    points[:, 2] += rng.uniform(0, 1, 900) * path.center[-1, 2]
    tracks = tracks_of(path, points, noise_px=0.1)
    assert len(choose_keyframes(tracks)) > 50
    found = cameras(tracks, path)
    turn_deg, way = errors(found.path, path)
    assert found.is_found.all()
    assert turn_deg < 1
    assert way < 0.05


def test_keyframes(path: CameraPath, points: Float64) -> None:
    tracks = tracks_of(path, points)
    chosen = choose_keyframes(tracks)
    assert (chosen[0], chosen[-1]) == (0, NUM - 1)
    assert (np.diff(chosen) > 0).all()
    still = camera_path(np.zeros((9, 3)), np.zeros((9, 3)), height=HEIGHT, width=WIDTH)
    assert choose_keyframes(tracks_of(still, points)).tolist() == [0, 8]
    one = camera_path(np.zeros((1, 3)), np.zeros((1, 3)), height=HEIGHT, width=WIDTH)
    assert choose_keyframes(tracks_of(one, points)).tolist() == [0]


def test_structure_holds_points_that_project_to_their_tracks(path: CameraPath, points: Float64) -> None:
    tracks = tracks_of(path, points)
    found = reconstruct(tracks, path.K[0])
    assert found is not None
    assert (np.diff(found.point_track) > 0).all()
    matrices = np.repeat(np.eye(4)[None], NUM, axis=0)
    matrices[:, :3, :3], matrices[:, :3, 3] = found.rotation, found.translation
    where = (found.points @ found.rotation[0].T + found.translation[0]) / points[found.point_track]
    assert np.ptp(where) / np.median(where) < 0.01  # one scale for all coordinates
    assert np.abs(rebase(matrices)[0] - np.eye(4)).max() < 1e-12
    assert found.parallax_px > 10


@pytest.mark.parametrize(("num", "count"), [(1, 200), (2, 0), (2, 10), (3, 39), (5, 15), (8, 0)])
def test_too_little_to_go_by(num: int, count: int) -> None:
    path = camera_path(*sideways(num, 0.05), height=HEIGHT, width=WIDTH)
    tracks = tracks_of(path, random_points(count))
    assert reconstruct(tracks, path.K[0]) is None
    found = find_cameras(tracks, path.K[0], height=HEIGHT, width=WIDTH)
    assert found is None or found.kind == "rotation"


@pytest.mark.parametrize("num", [2, 3, 4, 5])
def test_a_few_frames_suffice(points: Float64, num: int) -> None:
    path = camera_path(*sideways(num, 0.3), height=HEIGHT, width=WIDTH)
    found = cameras(tracks_of(path, points, noise_px=0.1), path)
    turn_deg, way = errors(found.path, path)
    assert found.kind == "full"
    assert turn_deg < 0.2
    assert way < 0.03


def test_a_cut_in_the_middle_has_one_outcome(path: CameraPath, points: Float64) -> None:
    """No track crosses it: the cameras of one side cannot be tied to those of the other."""
    tracks = tracks_of(path, points)
    second = tracks.frame >= NUM // 2
    apart = replace(tracks, track=np.where(second, tracks.track + COUNT, tracks.track), num_tracks=2 * COUNT)
    found = find_cameras(apart, path.K[0], height=HEIGHT, width=WIDTH)
    assert found is None or (found.kind == "rotation" and not found.is_found[NUM // 2])
    half = reconstruct(apart, path.K[0])
    assert half is None or not half.is_found.all()


def test_tracks_of_nothing_but_noise(path: CameraPath) -> None:
    rng = np.random.default_rng(0)
    tracks = tracks_of(path, random_points(200))
    found = find_cameras(
        replace(tracks, xy=rng.uniform(0, WIDTH, tracks.xy.shape)), path.K[0], height=HEIGHT, width=WIDTH
    )
    assert found is None or found.kind == "rotation"


def test_equal_tracks_give_equal_cameras(path: CameraPath, points: Float64) -> None:
    tracks = tracks_of(path, points, noise_px=0.3)
    cv2.setRNGSeed(3)
    first = cameras(tracks, path).path.world_to_camera
    cv2.setRNGSeed(9)
    assert np.array_equal(cameras(tracks, path).path.world_to_camera, first)


@pytest.mark.parametrize("spoil", ["same", "line", "plane", "behind", "at the eye", "far", "noise", "few"])
def test_a_pose_from_bad_points_is_none_or_proper(path: CameraPath, points: Float64, spoil: str) -> None:
    K, rng = path.K[0], np.random.default_rng(0)
    seen = rng.uniform(0, 200, (60, 2))
    world = {
        "same": np.repeat(points[:1], 60, axis=0),
        "line": np.linspace(0, 1, 60)[:, None] * np.array([[1.0, 2.0, 3.0]]),
        "plane": points[:60] * (1, 1, 0) + (0, 0, 3),
        "behind": -points[:60],
        "at the eye": np.zeros((60, 3)),
        "far": points[:60] * 1e9,
        "noise": points[:60],
        "few": points[:11],
    }[spoil]
    for xy in (seen, np.full((60, 2), 7.0), np.stack([np.arange(60.0), np.arange(60.0)], axis=1)):
        found = pose_from_points(np.ascontiguousarray(world), xy[: len(world)].copy(), K)
        if found is not None:
            rotation, translation = found
            assert np.abs(rotation @ rotation.T - np.eye(3)).max() < 1e-6
            assert np.isfinite(translation).all()
