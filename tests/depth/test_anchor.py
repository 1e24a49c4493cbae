"""One scale and shift a clip, from depth that is known somewhere."""

from dataclasses import replace

import numpy as np
import pytest

from ex4d.core.arrays import Bool, Float32
from ex4d.core.camera import CameraPath
from ex4d.core.clip import ArrayClip
from ex4d.core.depth import DepthScale, DepthVideo
from ex4d.depth.anchor import (
    MIN_LANDMARKS,
    NUM_KEYFRAMES,
    Anchor,
    AnchoredDepthClip,
    camera_scale,
    fit_anchor,
    keyframes,
    landmark_anchor,
    sample,
)
from ex4d.depth.mapping import DEFAULT_SKY_FACTOR
from ex4d.depth.measure import AffineFit
from ex4d.errors import DepthError
from ex4d.io.depth.raw import DepthKind, RawDepth
from ex4d.motion.landmarks import Landmarks, find_landmarks
from motion.motion_tools import camera_path, project_points, random_points, sideways, tracks_of

HEIGHT, WIDTH, NUM = 96, 144, 8
SCALE, SHIFT = 0.4, 0.05


class HeldDisparity:
    """Disparity in memory, with or without sky."""

    kind: DepthKind = "disparity"
    scale: DepthScale = "relative"
    K = None
    path = None
    description = "test"
    notices = ()

    def __init__(self, values: Float32, sky: Bool | None = None) -> None:
        self.values, self.sky = values.astype(np.float32), sky
        self.num_frames, self.height, self.width = values.shape
        self.timestamps_s = np.arange(len(values)) / 24

    def read(self, start: int, stop: int) -> RawDepth:
        sky = None if self.sky is None else self.sky[start:stop]
        return RawDepth(values=self.values[start:stop], timestamps_s=self.timestamps_s[start:stop], sky=sky)


@pytest.fixture(scope="module")
def inverse_depth() -> Float32:
    """float32 [T,H,W]: smooth, 1 to 6 units away, changing over time."""
    t, y, x = np.meshgrid(np.arange(NUM), np.linspace(0, 1, HEIGHT), np.linspace(0, 1, WIDTH), indexing="ij")
    return (0.17 + 0.8 * (0.5 + 0.3 * np.sin(5 * x + 0.2 * t) * np.cos(4 * y) + 0.2 * y)).astype(np.float32)


def anchor_of(inverse_depth: Float32, count: int = 600, *, seed: int = 0, factor: int = 1) -> Anchor:
    """True depth at random pixels, px of a clip that is `factor` times as large as the maps."""
    rng = np.random.default_rng(seed)
    frame = np.sort(rng.integers(0, NUM, count))
    x, y = rng.integers(0, WIDTH, count), rng.integers(0, HEIGHT, count)
    return Anchor(
        frame=frame,
        xy=(np.stack([x, y], axis=1).astype(np.float64) + 0.5) * factor,
        depth=1 / inverse_depth[frame, y, x].astype(np.float64),
        scale="metric",
        name="test",
    )


def disparity_of(inverse_depth: Float32) -> HeldDisparity:
    return HeldDisparity((inverse_depth - SHIFT) / SCALE)


def fitted(raw: HeldDisparity, anchor: Anchor) -> AffineFit:
    fit = fit_anchor(raw, anchor, (HEIGHT, WIDTH))
    assert fit is not None
    return fit


def test_scale_and_shift_are_found_exactly(inverse_depth: Float32) -> None:
    fit = fitted(disparity_of(inverse_depth), anchor_of(inverse_depth))
    assert (fit.scale, fit.shift) == (pytest.approx(SCALE, rel=1e-4), pytest.approx(SHIFT, abs=1e-4))


def test_a_fifth_of_wrong_depths_changes_little(inverse_depth: Float32) -> None:
    anchor, rng = anchor_of(inverse_depth), np.random.default_rng(1)
    depth = anchor.depth * rng.normal(1, 0.02, len(anchor.depth))
    depth[::5] *= rng.uniform(1.5, 4, len(depth[::5]))
    raw = disparity_of(inverse_depth)
    fit = fitted(raw, replace(anchor, depth=depth))
    assert np.median(np.abs(fit.depth(raw.values) * inverse_depth - 1)) < 0.05


def test_the_clip_may_be_larger_than_the_maps(inverse_depth: Float32) -> None:
    raw = disparity_of(inverse_depth)
    fit = fit_anchor(raw, anchor_of(inverse_depth, factor=5), (5 * HEIGHT, 5 * WIDTH))
    assert fit is not None
    assert fit.scale == pytest.approx(SCALE, rel=1e-4)


def test_a_shift_below_zero_is_none(inverse_depth: Float32) -> None:
    """Nothing lies beyond infinity: the line then goes through the origin, and keeps the median."""
    raw = HeldDisparity((inverse_depth + 0.1) / SCALE)
    anchor = anchor_of(inverse_depth)
    fit = fitted(raw, anchor)
    assert fit.shift == 0
    x, z = sample(raw, anchor, (HEIGHT, WIDTH))
    assert np.median(fit.scale * x * z) == pytest.approx(1, rel=0.01)
    assert (fit.depth(raw.values) > 0).all()


def test_negative_disparities_are_put_at_the_farthest(inverse_depth: Float32) -> None:
    raw = HeldDisparity((inverse_depth - 0.5) / SCALE)
    fit = fitted(raw, anchor_of(inverse_depth))
    assert fit.shift == pytest.approx(0.5, abs=1e-3)
    wild = fit.depth(np.array([-1e6, -3.0], np.float32))
    assert np.isfinite(wild).all()
    assert wild.max() <= 2.01 * (1 / inverse_depth).max()


@pytest.mark.parametrize("seed", range(3))
def test_disparity_that_has_nothing_to_do_with_the_anchor_is_refused(inverse_depth: Float32, seed: int) -> None:
    rng = np.random.default_rng(seed)
    unrelated = HeldDisparity(rng.uniform(0, 1, inverse_depth.shape).astype(np.float32))
    assert fit_anchor(unrelated, anchor_of(inverse_depth), (HEIGHT, WIDTH)) is None
    upside_down = HeldDisparity(1 - inverse_depth)
    assert fit_anchor(upside_down, anchor_of(inverse_depth), (HEIGHT, WIDTH)) is None
    constant = HeldDisparity(np.full_like(inverse_depth, 0.3))
    assert fit_anchor(constant, anchor_of(inverse_depth), (HEIGHT, WIDTH)) is None


def test_too_few_points_fit_nothing(inverse_depth: Float32) -> None:
    raw = disparity_of(inverse_depth)
    for count in (0, 1, MIN_LANDMARKS - 1):
        assert fit_anchor(raw, anchor_of(inverse_depth, count), (HEIGHT, WIDTH)) is None
    assert fit_anchor(raw, anchor_of(inverse_depth, MIN_LANDMARKS), (HEIGHT, WIDTH)) is not None


def test_a_flat_wall_tells_no_scale_from_shift(inverse_depth: Float32) -> None:
    raw, anchor = disparity_of(inverse_depth), anchor_of(inverse_depth)
    assert fit_anchor(raw, replace(anchor, depth=np.full(len(anchor.depth), 2.0)), (HEIGHT, WIDTH)) is None


def test_sky_and_what_is_not_finite_are_left_out(inverse_depth: Float32) -> None:
    values = disparity_of(inverse_depth).values.copy()
    sky = np.zeros(values.shape, np.bool_)
    sky[:, :30] = True
    values[:, :30] = 50
    values[:, 90:] = np.nan
    fit = fitted(HeldDisparity(values, sky), anchor_of(inverse_depth))
    assert fit.scale == pytest.approx(SCALE, rel=1e-3)
    nothing = HeldDisparity(values, np.ones(values.shape, np.bool_))
    assert fit_anchor(nothing, anchor_of(inverse_depth), (HEIGHT, WIDTH)) is None


def test_anchored_depth(inverse_depth: Float32) -> None:
    sky = np.zeros(inverse_depth.shape, np.bool_)
    sky[:, 0, 0] = True
    raw = HeldDisparity((inverse_depth - SHIFT) / SCALE, sky)
    fit = fitted(raw, anchor_of(inverse_depth))
    clip = AnchoredDepthClip(raw=raw, fit=fit, scale="metric")
    got = clip.read(2, 5)
    assert got.scale == "metric"
    assert got.valid.all()
    assert got.depth[:, 0, 0] == pytest.approx(DEFAULT_SKY_FACTOR / fit.floor)
    rest = ~sky[2:5]
    assert got.depth[rest] == pytest.approx((1 / inverse_depth[2:5])[rest], rel=1e-3)
    assert np.array_equal(got.timestamps_s, raw.timestamps_s[2:5])
    raw.values[3, 5, 5] = np.nan
    with pytest.raises(DepthError, match="frame 3"):
        clip.read(2, 5)


@pytest.mark.parametrize(("num", "want"), [(1, [0]), (2, [0, 1]), (12, list(range(12)))])
def test_keyframes_of_short_clips(num: int, want: list[int]) -> None:
    assert keyframes(num) == want


def test_keyframes_are_spread() -> None:
    found = keyframes(100)
    assert len(found) == NUM_KEYFRAMES
    assert (found[0], found[-1]) == (0, 99)
    assert np.ptp(np.diff(found)) <= 1
    assert all(isinstance(frame, int) for frame in found)


@pytest.fixture(scope="module")
def path() -> CameraPath:
    return camera_path(*sideways(NUM, 0.1), height=HEIGHT, width=WIDTH)


@pytest.fixture(scope="module")
def landmarks(path: CameraPath) -> Landmarks:
    return find_landmarks(tracks_of(path, random_points(200)), path)


def test_landmarks_become_an_anchor(path: CameraPath, landmarks: Landmarks) -> None:
    anchor = landmark_anchor(landmarks, NUM)
    assert anchor is not None
    assert anchor.scale == "relative"
    assert set(anchor.frame) == set(range(NUM))
    points = random_points(200)
    for frame in (0, NUM - 1):
        xy, depth = project_points(path, frame, points)
        rows = anchor.frame == frame
        nearest = np.linalg.norm(anchor.xy[rows][:, None] - xy[None], axis=2).argmin(axis=1)
        assert anchor.depth[rows] == pytest.approx(depth[nearest], rel=1e-6)


def test_few_landmarks_are_no_anchor(path: CameraPath) -> None:
    few = find_landmarks(tracks_of(path, random_points(7)), path)
    assert landmark_anchor(few, NUM) is None
    none = find_landmarks(tracks_of(path, np.empty((0, 3))), path)
    assert landmark_anchor(none, NUM) is None


def depth_at(landmarks: Landmarks, factor: float, *, spread: float = 0.0, size: int = 1) -> ArrayClip[DepthVideo]:
    """Depth maps that are right at the landmarks and nowhere else: `factor` times theirs."""
    rng = np.random.default_rng(0)
    height, width = size * HEIGHT, size * WIDTH
    depth, valid = np.ones((NUM, height, width), np.float32), np.zeros((NUM, height, width), np.bool_)
    for frame in range(NUM):
        xy, z = landmarks.seen(frame)
        x, y = (xy * size).astype(int).T
        depth[frame, y, x] = factor * z * np.exp(spread * rng.standard_normal(len(z)))
        valid[frame, y, x] = True
    return ArrayClip(DepthVideo(depth=depth, valid=valid, timestamps_s=np.arange(NUM) / 24, scale="metric"))


def test_the_cameras_unit_in_the_depths(landmarks: Landmarks) -> None:
    for factor, size in ((3.7, 1), (0.02, 3)):
        found = camera_scale(depth_at(landmarks, factor, size=size), landmarks)
        assert found is not None
        assert found[0] == pytest.approx(factor, rel=0.01)
        assert found[1] < 0.02
    found = camera_scale(depth_at(landmarks, 2.0, spread=0.2), landmarks)
    assert found is not None
    assert found[0] == pytest.approx(2, rel=0.05)
    assert found[1] == pytest.approx(0.2, rel=0.2)


def test_no_scale_without_common_pixels(path: CameraPath, landmarks: Landmarks) -> None:
    nowhere = DepthVideo(
        depth=np.zeros((NUM, HEIGHT, WIDTH), np.float32),
        valid=np.zeros((NUM, HEIGHT, WIDTH), np.bool_),
        timestamps_s=np.arange(NUM) / 24,
        scale="metric",
    )
    assert camera_scale(ArrayClip(nowhere), landmarks) is None
    none = find_landmarks(tracks_of(path, np.empty((0, 3))), path)
    assert camera_scale(depth_at(landmarks, 1), none) is None
