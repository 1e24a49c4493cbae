"""`complete_view` on small made scenes whose truth is known."""

import numpy as np
import pytest

from ex4d.core.arrays import Bool, Float32, UInt8
from ex4d.core.camera import Camera, CameraPath, pinhole, static_path
from ex4d.core.clip import ArrayClip
from ex4d.core.depth import DepthVideo
from ex4d.core.video import Video
from ex4d.core.view import GeometryPrior, RenderedView
from ex4d.errors import ConfigError
from ex4d.fill.complete import FrameFill, complete_view
from ex4d.fill.config import FillConfig
from ex4d.fill.neighbors import choose_neighbors
from ex4d.mesh.config import GeometryConfig
from ex4d.mesh.watertight import MeshBuilder
from ex4d.render.rasterizer import Rasterizer

SIZE = 96
K = pinhole(focal_px=90.0, height=SIZE, width=SIZE)
NEAR, FAR = 2.0, 6.0


def texture() -> UInt8:
    """A green wall with smooth detail."""
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    wave = 25 * np.sin(x / 5.0) * np.cos(y / 7.0)
    return np.stack([30 + wave, 160 + wave, 40 + wave], axis=-1).astype(np.uint8)


def filmed(squares: list[tuple[int, int]], wall: UInt8 | None = None) -> tuple[Video, DepthVideo]:
    """A red square of 30 px at (row, col) per frame, before a green wall."""
    frames, depths = [], []
    for row, col in squares:
        frame, depth = (texture() if wall is None else wall).copy(), np.full((SIZE, SIZE), FAR, np.float32)
        frame[row : row + 30, col : col + 30] = (220, 20, 20)
        depth[row : row + 30, col : col + 30] = NEAR
        frames.append(frame)
        depths.append(depth)
    times = np.arange(len(squares)) / 10.0
    depth_array = np.stack(depths)
    return Video(frames=np.stack(frames), timestamps_s=times), DepthVideo(
        depth=depth_array, valid=np.ones(depth_array.shape, np.bool_), timestamps_s=times, scale="metric"
    )


def shifted(offsets: list[float], source_index: list[int]) -> CameraPath:
    """Cameras moved right by these distances."""
    cameras = []
    for offset in offsets:
        matrix = np.eye(4)
        matrix[0, 3] = -offset
        cameras.append(Camera(K=K, world_to_camera=matrix, height=SIZE, width=SIZE))
    return CameraPath.from_cameras(cameras, np.array(source_index, dtype=np.int64))


def prior_of(video: Video, depth: DepthVideo, path: CameraPath, name: str = "default") -> GeometryPrior:
    source_path = static_path(K=K, num_frames=len(video), height=SIZE, width=SIZE)
    builder, rasterizer = MeshBuilder(GeometryConfig(name=name)), Rasterizer()  # type: ignore[arg-type]
    seen = []
    for i in range(len(path)):
        s = int(path.source_index[i])
        mesh = builder.build(video.frames[s], depth.depth[s], depth.valid[s], source_path[s])
        seen.append(rasterizer.render(mesh, path[i]))
    return prior_from(
        video, depth, path, np.stack([f.rgb for f in seen]), np.stack([f.observed for f in seen]),
        np.stack([f.depth for f in seen]),
    )  # fmt: skip


def prior_from(
    video: Video, depth: DepthVideo, path: CameraPath, rgb: UInt8, observed: Bool, z: Float32
) -> GeometryPrior:
    view = RenderedView(rgb=rgb, observed=observed, depth=z, timestamps_s=np.arange(len(path)) / 10.0)
    return GeometryPrior(
        view=ArrayClip(view),
        path=path,
        source=ArrayClip(video),
        source_depth=ArrayClip(depth),
        source_path=static_path(K=K, num_frames=len(video), height=SIZE, width=SIZE),
        config={},
        seed=0,
        coverage=observed.mean(axis=(1, 2)).astype(np.float64),
    )


def run(prior: GeometryPrior, config: FillConfig | None = None, num_threads: int = 1) -> tuple[UInt8, list[FrameFill]]:
    reports: list[FrameFill] = []
    chunks = list(complete_view(prior, config, num_threads=num_threads, on_frame=reports.append))
    assert [r.index for r in reports] == list(range(len(prior.path)))
    return np.concatenate([chunk.frames for chunk in chunks]), reports


def view_of(prior: GeometryPrior) -> RenderedView:
    return prior.view.read(0, prior.view.num_frames)


def reddish(frame: UInt8) -> Bool:
    return frame[..., 0].astype(int) > frame[..., 1].astype(int)


def still(num_frames: int = 4, name: str = "default") -> GeometryPrior:
    video, depth = filmed([(33, 33)] * num_frames)
    return prior_of(video, depth, shifted([0.15 * i for i in range(num_frames)], list(range(num_frames))), name)


def moving(num_frames: int = 9) -> GeometryPrior:
    """The square crosses the wall; the camera stands 0.3 to the right throughout."""
    video, depth = filmed([(33, 5 + 6 * i) for i in range(num_frames)])
    return prior_of(video, depth, shifted([0.3] * num_frames, list(range(num_frames))))


@pytest.mark.parametrize("name", ["default", "official"])
def test_observed_pixels_pass_through(name: str):
    prior = still(name=name)
    frames, _ = run(prior)
    view = view_of(prior)
    assert 0.05 < (~view.observed).mean() < 0.6
    assert (frames[view.observed] == view.rgb[view.observed]).all()


@pytest.mark.parametrize("temporal", [False, True])
def test_foreground_never_bleeds(temporal: bool):
    prior = still()
    frames, _ = run(prior, FillConfig(temporal=temporal))
    for frame, observed in zip(frames, view_of(prior).observed, strict=True):
        assert not (reddish(frame) & ~observed).any()
        if not observed.all():
            filled = frame[~observed].astype(float).mean(axis=0)
            assert np.abs(filled - texture().reshape(-1, 3).mean(axis=0)).max() < 20


def test_blurred_edge_does_not_bleed():
    """Where lens and codec mixed the colours of the edge into the wall, the fill still takes the clean wall."""
    video, depth = filmed([(33, 33)])
    frame = video.frames[0].copy()
    for margin, share in ((1, 0.6), (2, 0.3)):
        outside = np.zeros((SIZE, SIZE), bool)
        outside[33 - margin : 63 + margin, 33 - margin : 63 + margin] = True
        inner = 33 - margin + 1, 63 + margin - 1
        outside[inner[0] : inner[1], inner[0] : inner[1]] = False
        frame[outside] = (share * np.array([220, 20, 20]) + (1 - share) * frame[outside]).astype(np.uint8)
    prior = prior_of(Video(frames=frame[None], timestamps_s=np.zeros(1)), depth, shifted([0.3], [0]))
    frames, _ = run(prior)
    hole = ~view_of(prior).observed[0]
    assert hole.any()
    assert not (reddish(frames[0]) & hole).any()


def test_hole_is_filled_with_what_other_frames_saw():
    prior = moving()
    frames, reports = run(prior)
    view = view_of(prior)
    # truth: the wall alone, from the same camera
    video, depth = filmed([(200, 200)])
    wall = view_of(prior_of(video, depth, shifted([0.3], [0])))
    inside = ~view.observed & wall.observed[0]
    assert inside.mean() > 0.02
    error = np.abs(frames.astype(int) - wall.rgb[0].astype(int))[inside]
    assert np.median(error) <= 2
    assert np.percentile(error, 95) <= 12
    assert sum(r.temporal_share for r in reports) > 0.5 * inside.mean() * len(reports)
    alone, _ = run(prior, FillConfig(temporal=False))
    assert error.mean() < 0.3 * np.abs(alone.astype(int) - wall.rgb[0].astype(int))[inside].mean()


def test_what_moved_is_not_pasted():
    prior = moving()
    frames, _ = run(prior)
    assert not (reddish(frames) & ~view_of(prior).observed).any()


def test_what_moved_in_unseen_space_is_not_pasted():
    """The square recedes behind its own former place, where the shown frame saw nothing: only what lies beside
    that place proves that it moved."""
    video, depth = filmed([(33, 33), (33, 45)])
    depth.depth[1][depth.depth[1] == NEAR] = 3.0
    prior = prior_of(video, depth, shifted([0.5], [0]))
    frames, _ = run(prior)
    assert not (reddish(frames) & ~view_of(prior).observed).any()


def test_changed_light_is_compensated_or_refused():
    video, depth = filmed([(33, 5 + 6 * i) for i in range(9)])
    gain = np.linspace(0.8, 1.0, 9)[:, None, None, None]
    video = Video(frames=(video.frames * gain).astype(np.uint8), timestamps_s=video.timestamps_s)
    prior = prior_of(video, depth, shifted([0.3] * 9, list(range(9))))
    frames, _ = run(prior)
    view = view_of(prior)
    for i in (1, 4, 7):
        wall = (texture() * gain[i]).astype(np.uint8)
        bright = wall[..., 1].mean()
        assert abs(frames[i][~view.observed[i]][:, 1].mean() - bright) < 12


def test_frozen_moment_uses_other_frames_where_static():
    video, depth = filmed([(33, 5 + 8 * i) for i in range(7)])
    prior = prior_of(video, depth, shifted([0.05 * i for i in range(6)], [3] * 6))
    frames, reports = run(prior)
    assert reports[-1].temporal_share > 0.01
    assert not (reddish(frames) & ~view_of(prior).observed).any()


def test_equal_bytes_whatever_the_threads():
    prior = moving(11)
    one, _ = run(prior, num_threads=1)
    for num_threads in (2, 3):
        many, _ = run(prior, num_threads=num_threads)
        assert many.tobytes() == one.tobytes()


def test_inputs_are_not_changed():
    prior = moving(3)
    before = (view_of(prior).rgb.copy(), prior.source.read(0, 3).frames.copy())
    run(prior)
    assert (view_of(prior).rgb == before[0]).all()
    assert (prior.source.read(0, 3).frames == before[1]).all()


def test_fill_is_stable_for_a_resting_camera():
    rng = np.random.default_rng(0)
    video, depth = filmed([(33, 33)] * 8)
    noisy = np.clip(video.frames + rng.normal(0, 6, video.frames.shape), 0, 255).astype(np.uint8)
    prior = prior_of(Video(frames=noisy, timestamps_s=video.timestamps_s), depth, shifted([0.3] * 8, list(range(8))))
    hole = ~view_of(prior).observed[0]

    def flicker(stability: float) -> float:
        frames, _ = run(prior, FillConfig(stability=stability))
        return float(np.abs(np.diff(frames[2:].astype(int), axis=0))[:, hole].mean())

    assert flicker(0.85) < 0.5 * flicker(0.0)


def test_single_frame():
    video, depth = filmed([(33, 33)])
    prior = prior_of(video, depth, shifted([0.3], [0]))
    frames, reports = run(prior)
    assert frames.shape == (1, SIZE, SIZE, 3)
    assert reports[0].temporal_share == 0
    assert reports[0].spatial_share > 0.05


def test_no_holes():
    video, depth = filmed([(33, 33)] * 3)
    prior = prior_of(video, depth, shifted([0.0] * 3, [0, 1, 2]))
    frames, reports = run(prior)
    assert (frames == video.frames).all()
    assert all(r.observed_share == 1 and not r.is_blank for r in reports)


def unseen_prior(first_seen: bool) -> GeometryPrior:
    """Cameras that look away from the scene; optionally the first looks at it."""
    video, depth = filmed([(33, 33)] * 2)
    away = np.diag([-1.0, 1.0, -1.0, 1.0])
    cameras = [Camera(K=K, world_to_camera=np.eye(4) if first_seen else away, height=SIZE, width=SIZE)]
    away_far = away.copy()
    away_far[2, 3] = -1000.0
    cameras.append(Camera(K=K, world_to_camera=away_far, height=SIZE, width=SIZE))
    path = CameraPath.from_cameras(cameras, np.array([0, 1]))
    observed = np.zeros((2, SIZE, SIZE), np.bool_)
    observed[0] = first_seen
    rgb = np.where(observed[..., None], video.frames, 0).astype(np.uint8)
    z = np.where(observed, depth.depth, 0).astype(np.float32)
    return prior_from(video, depth, path, rgb, observed, z)


def test_frame_without_anything_repeats_the_last_one():
    frames, reports = run(unseen_prior(first_seen=True))
    assert (frames[1] == frames[0]).all()
    assert not reports[1].is_blank


def test_nothing_at_all_is_black_and_said_so():
    frames, reports = run(unseen_prior(first_seen=False))
    assert all(r.is_blank for r in reports)
    assert (frames == 0).all()


def test_frame_without_valid_depth():
    """No mesh: no hints and no neighbours, yet the observed pixels and the fill remain."""
    video, depth = filmed([(33, 33)])
    blind = DepthVideo(
        depth=np.zeros_like(depth.depth), valid=np.zeros_like(depth.valid), timestamps_s=np.zeros(1), scale="metric"
    )
    good = view_of(prior_of(video, depth, shifted([0.3], [0])))
    prior = prior_from(video, blind, shifted([0.3], [0]), good.rgb, good.observed, good.depth)
    frames, reports = run(prior)
    assert (frames[good.observed] == good.rgb[good.observed]).all()
    assert reports[0].spatial_share > 0
    assert frames[~good.observed].sum(axis=-1).min() > 0


def test_long_clip_streams_in_chunks():
    video, depth = filmed([(33, 33)] * 19)
    prior = prior_of(video, depth, shifted([0.02 * i for i in range(19)], list(range(19))))
    chunks = list(complete_view(prior, num_threads=2))
    assert [len(chunk) for chunk in chunks] == [8, 8, 3]
    assert np.array_equal(np.concatenate([c.timestamps_s for c in chunks]), prior.view.timestamps_s)


def test_abandoned_iteration_ends_cleanly():
    iterator = complete_view(moving(), num_threads=2)
    assert len(next(iterator)) == 8
    iterator.close()  # type: ignore[attr-defined]
    assert next(iterator, None) is None


@pytest.mark.parametrize(("shows", "count"), [(0, 8), (100, 8), (299, 8), (150, 1)])
def test_neighbors_are_few_distinct_and_inside(shows: int, count: int):
    chosen = choose_neighbors(shows, 300, count)
    assert 1 <= len(chosen) <= count
    assert list(chosen) == sorted(set(chosen))
    assert 0 <= chosen[0] <= chosen[-1] < 300
    if count > 1:
        assert (chosen[0], chosen[-1]) == (0, 299)
        assert sum(abs(k - shows) <= 80 for k in chosen) >= 4


def test_neighbors_of_a_short_clip_do_not_change():
    assert {choose_neighbors(i, 49, 8) for i in range(49)} == {(0, 7, 14, 21, 27, 34, 41, 48)}
    assert choose_neighbors(0, 1, 8) == (0,)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_neighbors", 0),
        ("color_tolerance", 256),
        ("depth_tolerance", -0.1),
        ("stability", 1.0),
        ("min_hole_share", float("nan")),
    ],
)
def test_config_is_checked(field: str, value: float):
    with pytest.raises(ConfigError, match=f"fill.{field}"):
        FillConfig(**{field: value})  # type: ignore[arg-type]


def test_thread_count_is_checked():
    with pytest.raises(ConfigError, match="num_threads"):
        complete_view(moving(1), num_threads=0)


def test_what_lies_beyond_the_frame_goes_on_row_by_row():
    """Blue above, green below; the camera looks past the frame's left border: blue stays above, green below."""
    wall = np.zeros((SIZE, SIZE, 3), np.uint8)
    wall[: SIZE // 2] = (40, 60, 200)
    wall[SIZE // 2 :] = (40, 190, 60)
    video, depth = filmed([(33, 33)], wall)
    turned = np.eye(4)
    angle = np.radians(25)
    turned[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    camera = Camera(K=K, world_to_camera=turned, height=SIZE, width=SIZE)
    prior = prior_of(video, depth, CameraPath.from_cameras([camera], np.array([0])))
    observed = view_of(prior).observed[0]
    outside = (~observed) & (np.arange(SIZE) < 30)
    assert outside.mean() > 0.1
    frame = run(prior)[0][0].astype(int)
    is_blue = frame[..., 2] > frame[..., 1]
    rows = np.arange(SIZE)[:, None] * np.ones((1, SIZE), int)
    assert is_blue[outside & (rows < 20)].all()
    assert not is_blue[outside & (rows > 76)].any()
    assert not (reddish(frame.astype(np.uint8)) & ~observed).any()
