"""The round trip to another camera: what survives it."""

import numpy as np
import pytest

from ex4d.core.camera import Camera, CameraPath, static_path
from ex4d.errors import DepthError
from ex4d.masking.rendering import RoundTrip, completed_depth, rendering_survived
from ex4d.masking.simulate import simulate_masks
from ex4d.mesh.config import GeometryConfig
from masking.masking_tools import HEIGHT, WIDTH, filmed, only, world


def wall_and_square() -> tuple[np.ndarray, np.ndarray]:
    """A square 2 away before a wall 4 away, in the middle of 64x96 px; the source's focal length is 86.4 px."""
    frame = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    depth = np.full((HEIGHT, WIDTH), 4.0, np.float32)
    depth[20:44, 36:60] = 2.0
    return frame, depth


def shifted(camera: Camera, x: float) -> Camera:
    """`camera` moved to the right by x."""
    matrix = camera.world_to_camera.copy()
    matrix[0, 3] -= x
    return Camera(K=camera.K, world_to_camera=matrix, height=camera.height, width=camera.width)


def test_everything_survives_where_nothing_moves() -> None:
    video, depth, path = filmed()
    trip = RoundTrip(GeometryConfig())
    maps = depth.read(0, 1)
    for _ in range(2):
        survived = trip.survived(
            video.read(0, 1).frames[0], maps.depth[0], maps.valid[0], camera=path[0], other=path[0]
        )
        assert survived.all()


def test_what_is_behind_something_and_what_is_outside_is_lost() -> None:
    """Seen from 0.5 to the right the square moves 86.4 · 0.5 / 2 = 21.6 px left, the wall 10.8 px."""
    frame, depth = wall_and_square()
    _, _, path = world(frame[None], depth[None])
    valid = np.ones(depth.shape, np.bool_)
    other = shifted(path[0], 0.5)
    survived = RoundTrip(GeometryConfig()).survived(frame, depth, valid, camera=path[0], other=other)
    row = survived[32]
    assert not row[:10].any(), "the other camera's frame ends 10.8 px further right on the wall"
    assert row[13:24].all()
    assert not row[27:35].any(), "21.6 - 10.8 = 10.8 px of wall, left of the square, are behind it"
    assert row[37:59].all(), "the square itself"
    assert row[62:].all(), "to the right of it the wall is in full view"
    assert survived[4, 13:].all()
    assert survived[-4, 13:].all()


def test_unknown_depth_never_survives_and_hides_little_else() -> None:
    frame, depth = wall_and_square()
    _, _, path = world(frame[None], depth[None])
    valid = np.ones(depth.shape, np.bool_)
    valid[5:10, 70:80] = False
    known = np.where(valid, depth, 0).astype(np.float32)
    trip = RoundTrip(GeometryConfig())
    survived = trip.survived(frame, known, valid, camera=path[0], other=shifted(path[0], 0.2))
    whole = trip.survived(frame, depth, np.ones_like(valid), camera=path[0], other=shifted(path[0], 0.2))
    assert not survived[~valid].any()
    assert np.count_nonzero(whole & valid & ~survived) <= 2 * (5 + 10) * 2, "a rim of it at most"


def test_a_camera_that_looks_away_sees_nothing() -> None:
    frame, depth = wall_and_square()
    _, _, path = world(frame[None], depth[None])
    matrix = np.diag([-1.0, 1.0, -1.0, 1.0])
    away = Camera(K=path[0].K, world_to_camera=matrix, height=HEIGHT, width=WIDTH)
    valid = np.ones(depth.shape, np.bool_)
    assert not RoundTrip(GeometryConfig()).survived(frame, depth, valid, camera=path[0], other=away).any()


def test_a_frame_without_depth_is_refused() -> None:
    frame, depth = wall_and_square()
    _, _, path = world(frame[None], depth[None])
    nothing = np.zeros(depth.shape, np.bool_)
    with pytest.raises(DepthError):
        RoundTrip(GeometryConfig()).survived(frame, 0 * depth, nothing, camera=path[0], other=path[0])


def test_threads_change_no_byte() -> None:
    video, depth, path = filmed()
    turned = CameraPath(
        K=path.K,
        world_to_camera=np.stack([shifted(path[0], 0.1 * i).world_to_camera for i in range(len(path))]),
        source_index=path.source_index,
        height=path.height,
        width=path.width,
    )
    one, four = (
        rendering_survived(video, depth, path, turned, geometry=GeometryConfig(), num_threads=n) for n in (1, 4)
    )
    assert np.array_equal(one, four)
    assert one[0].all()
    assert not one[-1].all()


def test_masks_start_whole_and_shrink_with_the_angle() -> None:
    video, depth, path = filmed()
    means = []
    for angle in (10.0, 40.0, 80.0):
        config = only("orbit", rendering=True, yaw_deg=(angle, angle))
        made = simulate_masks(video, depth, path, config=config, seed=0)
        coverage = made.survived.mean(axis=(1, 2))
        assert coverage[0] == 1.0
        assert (np.diff(coverage) < 0.02).all()
        means.append(coverage[-1])
    assert means[0] > 0.6 > means[1] > means[2]


def test_no_angle_keeps_everything() -> None:
    video, depth, path = filmed("handheld")
    config = only("orbit", rendering=True, yaw_deg=(0.0, 0.0))
    assert simulate_masks(video, depth, path, config=config, seed=0).survived.mean() > 0.995


def test_a_wall_that_is_seen_whole_keeps_its_rim() -> None:
    """Going back makes the wall smaller: the other camera sees all of it, to the last pixel."""
    frame, depth = wall_and_square()
    depth[:] = 4.0
    path = static_path(K=world(frame[None], depth[None])[2].K[0], num_frames=1, height=HEIGHT, width=WIDTH)
    back = path[0].world_to_camera.copy()
    back[2, 3] = 1.0
    other = Camera(K=path[0].K, world_to_camera=back, height=HEIGHT, width=WIDTH)
    valid = np.ones(depth.shape, np.bool_)
    assert RoundTrip(GeometryConfig()).survived(frame, depth, valid, camera=path[0], other=other).all()


def test_a_missing_pixel_claims_the_least_but_no_space_that_was_seen_empty() -> None:
    depth = np.zeros((1, 7), np.float32)
    depth[0, :2], depth[0, 5:] = 2.0, 5.0
    observed = depth > 0
    mesh = np.array([[2.0, 2.0, 3.0, 3.5, 4.0, 5.0, 5.0]], np.float32)
    filled = completed_depth(depth, observed, np.reciprocal(mesh), np.float32(9.0))
    assert filled[0].tolist() == pytest.approx([2, 2, 3, 5, 5, 5, 5]), "behind the mesh, else as far as a neighbour"
    nothing = np.where(observed, np.reciprocal(mesh), 0).astype(np.float32)
    filled = completed_depth(depth, observed, nothing, np.float32(9.0))
    assert filled[0].tolist() == pytest.approx([2, 2, 9, 9, 9, 5, 5]), "where a ray meets nothing, nothing is near"
