"""Depth from parallax, on scenes whose depth is known at every pixel."""

from dataclasses import replace

import numpy as np
import pytest

from ex4d.core.arrays import Float64
from ex4d.core.camera import CameraPath, static_path
from ex4d.core.clip import ArrayClip, Clip
from ex4d.core.video import Video
from ex4d.depth.parallax import MOVING, ParallaxFrame, measure_parallax, weighted_median
from ex4d.motion.landmarks import Landmarks, find_landmarks
from ex4d.motion.odometry import follow_clip
from motion.motion_tools import Planes, camera_path, clip_of, film_planes, filmed, noise_picture, sideways

HEIGHT, WIDTH, NUM = 128, 192, 16


def planes_path(step: float = 0.03, num: int = NUM, *, focal_share: float = 0.9) -> CameraPath:
    return camera_path(*sideways(num, step), height=HEIGHT, width=WIDTH, focal_share=focal_share)


@pytest.fixture(scope="module")
def planes() -> Planes:
    return film_planes(planes_path())


def landmarks_of(clip: Clip[Video], path: CameraPath) -> Landmarks:
    return find_landmarks(follow_clip(clip), path)


def measured(clip: Clip[Video], path: CameraPath, landmarks: Landmarks | None = None) -> list[ParallaxFrame]:
    return list(measure_parallax(clip, path, landmarks_of(clip, path) if landmarks is None else landmarks))


def relative_errors(frame: ParallaxFrame, depth: np.ndarray) -> np.ndarray:
    return np.abs(frame.disparity * depth - 1)[frame.weight > 0]


@pytest.fixture(scope="module")
def found(planes: Planes) -> list[ParallaxFrame]:
    return measured(planes.clip, planes.path)


def test_a_slanted_wall_and_a_card_are_measured(planes: Planes, found: list[ParallaxFrame]) -> None:
    assert len(found) == NUM
    for index, frame in enumerate(found):
        error = relative_errors(frame, planes.depth[index])
        assert (frame.weight > 0).mean() > 0.8
        assert np.median(error) < 0.01
        assert np.percentile(error, 90) < 0.1
        assert (frame.moving >= MOVING).mean() < 0.05


def test_the_slant_of_the_wall_is_right(planes: Planes, found: list[ParallaxFrame]) -> None:
    """Inverse depth of a plane is linear in the picture: the fit through what was measured has the true slopes."""
    frame, card = found[8], planes.card[8]
    known = (frame.weight > 0) & ~card
    y, x = np.nonzero(known)
    terms = np.stack([x, y, np.ones(len(x))], axis=1)
    got, want = (
        np.linalg.lstsq(terms, values[known], rcond=None)[0] for values in (frame.disparity, 1 / planes.depth[8])
    )
    assert got[:2] == pytest.approx(want[:2], rel=0.15)


def test_errors_tell_how_good_it_is(planes: Planes, found: list[ParallaxFrame]) -> None:
    for frame, depth in zip(found[2:-2], planes.depth[2:-2], strict=True):
        known = frame.weight > 0
        off = np.abs(frame.disparity - 1 / depth)[known] / frame.error[known]
        assert 0.01 < np.median(off) < 1.5
        assert np.isinf(frame.error[~known & (frame.disparity == 0)]).all()


def test_completion_fills_every_pixel_within_what_is_known(planes: Planes, found: list[ParallaxFrame]) -> None:
    for frame, depth in zip(found, planes.depth, strict=True):
        full = frame.completed()
        known = frame.weight > 0
        assert full.min() >= frame.disparity[known].min() * (1 - 1e-5)
        assert full.max() <= frame.disparity[known].max() * (1 + 1e-5)
        assert np.median(np.abs(full * depth - 1)) < 0.02


def test_what_moves_by_itself_is_flagged() -> None:
    planes = film_planes(planes_path(), card_moves=(0.0, 0.03))
    found = measured(planes.clip, planes.path)
    flagged = np.stack([frame.moving >= MOVING for frame in found])
    assert flagged[planes.card].mean() > 0.7
    assert flagged[~planes.card].mean() < 0.03
    for index, frame in enumerate(found):
        assert not frame.weight[frame.moving >= MOVING].any()
        assert np.median(relative_errors(frame, planes.depth[index])) < 0.02


def test_a_filmed_scene_with_movers() -> None:
    scene = filmed(3, "dolly", num=NUM)
    found = measured(scene.clip, scene.path)
    flagged = np.stack([frame.moving >= MOVING for frame in found])
    assert flagged[scene.moves].mean() > 10 * flagged[~scene.moves & ~scene.sky].mean()
    errors = [
        np.abs(frame.disparity * depth - 1)[(frame.weight > 0) & ~moves & ~sky]
        for frame, depth, moves, sky in zip(found, scene.depth, scene.moves, scene.sky, strict=True)
    ]
    assert np.median(np.concatenate(errors)) < 0.08


def test_a_camera_that_goes_forward(planes: Planes) -> None:
    """The epipole lies in the picture: there is no parallax there, and no nonsense either."""
    s = np.arange(NUM, dtype=np.float64)[:, None]
    path = camera_path(s * np.array([[0, 0, 0.06]]), 0 * s * np.ones((1, 3)), height=HEIGHT, width=WIDTH)
    forward = film_planes(path)
    found = measured(forward.clip, path)
    for index in (0, 8, 15):
        frame = found[index]
        error = relative_errors(frame, forward.depth[index])
        assert (frame.weight > 0).mean() > 0.5
        assert np.median(error) < 0.05
        near_epipole = frame.weight[HEIGHT // 2 - 2 : HEIGHT // 2 + 3, WIDTH // 2 - 2 : WIDTH // 2 + 3]
        assert np.median(near_epipole) < 0.2 * np.median(frame.weight[frame.weight > 0])


def test_a_zoom_and_turns_are_taken_out(planes: Planes) -> None:
    """Cameras that turn by several degrees, each with a focal length of its own."""
    eyes, turns = sideways(NUM, 0.03)
    path = camera_path(eyes, turns * 5 + 0.002 * np.sin(np.arange(NUM))[:, None], height=HEIGHT, width=WIDTH)
    K = path.K.copy()
    K[:, 0, 0] *= np.linspace(1, 1.25, NUM)
    K[:, 1, 1] *= np.linspace(1, 1.25, NUM)
    zoomed = film_planes(replace(path, K=K))
    found = measured(zoomed.clip, zoomed.path)
    assert np.median(relative_errors(found[8], zoomed.depth[8])) < 0.02


def test_the_unit_is_that_of_the_cameras(planes: Planes, found: list[ParallaxFrame]) -> None:
    matrices = planes.path.world_to_camera.copy()
    matrices[:, :3, 3] *= 7
    larger = measured(planes.clip, replace(planes.path, world_to_camera=matrices))
    a, b = found[8], larger[8]
    known = (a.weight > 0) & (b.weight > 0)
    assert np.median(a.disparity[known] / b.disparity[known]) == pytest.approx(7, rel=1e-3)
    assert b.weight[known] == pytest.approx(a.weight[known], rel=0.05)


def test_two_runs_are_equal_to_the_bit(planes: Planes, found: list[ParallaxFrame]) -> None:
    for a, b in zip(found, measured(planes.clip, planes.path), strict=True):
        for name in ("disparity", "error", "moving", "gray"):
            assert np.array_equal(getattr(a, name), getattr(b, name))


class Watched(ArrayClip[Video]):
    """Remembers what was read."""

    reads: list[tuple[int, int]]

    def __init__(self, chunk: Video) -> None:
        super().__init__(chunk)
        self.reads = []

    def read(self, start: int, stop: int) -> Video:
        self.reads.append((start, stop))
        return super().read(start, stop)


def test_frames_are_read_once_and_no_farther_ahead_than_needed() -> None:
    num = 90
    frames = np.zeros((num, 16, 24, 3), np.uint8)
    path = camera_path(*sideways(num, 0.01), height=16, width=24)
    clip = Watched(Video(frames=frames, timestamps_s=np.arange(num) / 24))
    landmarks = landmarks_of(clip_of(frames), path)
    results = measure_parallax(clip, path, landmarks)
    next(results)
    assert clip.reads[-1][1] <= 48  # 33 frames, in whole chunks
    list(results)
    assert [start for start, _ in clip.reads] == [0, *(stop for _, stop in clip.reads[:-1])]
    assert clip.reads[-1][1] == num


def no_landmarks(path: CameraPath) -> Landmarks:
    return landmarks_of(clip_of(np.zeros((len(path), HEIGHT, WIDTH, 3), np.uint8)), path)


def test_without_landmarks_a_distance_of_one_is_taken(planes: Planes) -> None:
    found = measured(planes.clip, planes.path, no_landmarks(planes.path))
    assert np.median(relative_errors(found[8], planes.depth[8])) < 0.05


def unknown_everywhere(frames: list[ParallaxFrame]) -> bool:
    return not any(frame.weight.any() or frame.completed().any() for frame in frames)


def test_nothing_is_known_where_the_camera_stands(planes: Planes) -> None:
    still = static_path(K=planes.path.K[0], num_frames=NUM, height=HEIGHT, width=WIDTH)
    assert unknown_everywhere(measured(planes.clip, still, no_landmarks(still)))
    picture = np.repeat(noise_picture(64, 96)[None], 6, axis=0)
    still = static_path(K=planes.path.K[0], num_frames=6, height=64, width=96)
    assert unknown_everywhere(measured(clip_of(picture), still))


def test_a_camera_that_hardly_moves_claims_nothing(planes: Planes) -> None:
    """A thousandth of a pixel of parallax is less than flow can tell."""
    matrices = planes.path.world_to_camera.copy()
    matrices[:, :3] = matrices[0, :3]
    matrices[:, 0, 3] += 1e-5 * np.arange(NUM)
    picture = np.repeat(planes.clip.read(0, 1).frames, NUM, axis=0)
    path = replace(planes.path, world_to_camera=matrices)
    assert unknown_everywhere(measured(clip_of(picture), path, no_landmarks(path)))


@pytest.mark.parametrize("num", [1, 2, 3])
def test_clips_of_one_to_three_frames(num: int) -> None:
    planes = film_planes(planes_path(0.12, num))
    found = measured(planes.clip, planes.path)
    assert len(found) == num
    if num == 1:
        assert unknown_everywhere(found)
    else:
        assert np.median(relative_errors(found[0], planes.depth[0])) < 0.05


@pytest.mark.parametrize("value", [0, 255])
def test_pictures_without_texture(value: int) -> None:
    frames = np.full((5, 64, 96, 3), value, np.uint8)
    path = camera_path(*sideways(5, 0.05), height=64, width=96)
    for frame in measured(clip_of(frames), path):
        assert np.isfinite(frame.completed()).all()


@pytest.mark.parametrize("size", [(16, 16), (1, 1), (16, 300)])
def test_tiny_pictures(size: tuple[int, int]) -> None:
    frames = np.stack([noise_picture(*size, seed=i) for i in range(4)])
    path = camera_path(*sideways(4, 0.05), height=size[0], width=size[1])
    for frame in measured(clip_of(frames), path):
        assert np.isfinite(frame.completed()).all()
        assert frame.disparity.shape == frame.gray.shape


def test_wrong_cameras_end_finite(planes: Planes) -> None:
    """Through the scene, backwards, upside down, and a million units away."""
    rng = np.random.default_rng(0)
    for eyes in (np.cumsum(rng.standard_normal((NUM, 3)), axis=0), 1e6 * rng.standard_normal((NUM, 3))):
        path = camera_path(eyes, rng.standard_normal((NUM, 3)) * 0.1, height=HEIGHT, width=WIDTH)
        for frame in measured(planes.clip, path, no_landmarks(path)):
            assert np.isfinite(frame.completed()).all()
            assert np.isfinite(frame.weight).all()
            assert not np.isnan(frame.error).any()


def test_the_weighted_median() -> None:
    def median(values: list[float], weights: list[float]) -> float:
        stacks = (np.array(numbers, np.float32).reshape(-1, 1, 1) for numbers in (values, weights))
        return float(weighted_median(*stacks)[0, 0])

    assert median([3, 1, 2], [1, 1, 1]) == 2
    assert median([3, 1, 2], [5, 1, 1]) == 3
    assert median([3, 1, 2], [0, 1, 0]) == 1
    assert median([3, 1, 2], [0, 0, 0]) == 1
    assert median([7], [1]) == 7
    values: Float64 = np.random.default_rng(0).uniform(size=(5, 4, 6))
    same = weighted_median(values.astype(np.float32), np.ones((5, 4, 6), np.float32))
    assert np.array_equal(same, np.median(values, axis=0).astype(np.float32))


def test_weights_leave_out_what_is_no_better_than_a_guess() -> None:
    one = np.ones((1, 1), np.float32)

    def weight(disparity: float, error: float, moving: float) -> float:
        gray = np.zeros((1, 1), np.uint8)
        frame = ParallaxFrame(disparity=disparity * one, error=error * one, moving=moving * one, gray=gray)
        return float(frame.weight[0, 0])

    assert weight(0.5, 0.05, 0) == pytest.approx(100)
    assert weight(0.5, 1e-6, 0) == pytest.approx(1 / 0.03**2)
    assert weight(0.5, 0.05, 0.5) == 0
    assert weight(0.5, 0.6, 0) == 0
    assert weight(0.0, 0.1, 0) == 0
    assert weight(0.5, np.inf, 0) == 0
