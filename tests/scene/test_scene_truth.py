"""Visible and provable: against brute force with exact rays, at the identity, and what can be re-sampled."""

import math

import numpy as np
import pytest

from ex4d.core.arrays import Bool, Float64, Int32, UInt8
from ex4d.core.camera import Camera, pinhole
from ex4d.core.geometry import look_at, project
from ex4d.scene.generate import default_camera, make_scene, pivot_depth
from ex4d.scene.intersect import trace
from ex4d.scene.model import PackedScene, Scene
from ex4d.scene.render import SceneView, render_scene, scene_depth
from ex4d.scene.truth import ViewTruth, hit_points, iou, psnr, share, view_truth, visible_points


def _orbit(scene: Scene, angle_deg: float, size: int) -> Camera:
    """A camera after an orbit to the right about the scene's pivot; size px square."""
    pivot = pivot_depth(scene_depth(scene, default_camera(128, 128), 0.0).astype(np.float64))
    a = np.radians(angle_deg)
    matrix = look_at(np.array([pivot * np.sin(a), 0.0, pivot - pivot * np.cos(a)]), np.array([0.0, 0.0, pivot]))
    K = pinhole(focal_px=0.9 * size, height=size, width=size)
    return Camera(K=K, world_to_camera=matrix, height=size, width=size)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_source_view_itself_is_all_provable(seed: int) -> None:
    camera = default_camera(96, 128)
    truth = view_truth(make_scene(seed), camera, camera, 0.4)
    assert truth.visible.all()
    assert truth.provable.all()


@pytest.mark.parametrize(("seed", "angle_deg"), [(0, 60.0), (1, 90.0), (3, -30.0)])
def test_provable_against_brute_force(seed: int, angle_deg: float) -> None:
    """500 exact source rays along every segment of a 32 x 32 target."""
    scene, source = make_scene(seed), default_camera(512, 512)
    target = _orbit(scene, angle_deg, 32)
    truth = view_truth(scene, source, target, 0.0)
    packed = scene.pack(0.0)
    points = hit_points(packed, target)
    visible, provable = _brute_force(packed, source, target, points)
    np.testing.assert_array_equal(truth.visible, visible)
    assert 0.03 < provable.mean() < visible.mean()
    # What differs lies within the sub-pixel allowance at silhouettes.
    assert (truth.provable != provable).sum() <= max(2, 0.006 * visible.sum())


def _brute_force(packed: PackedScene, source: Camera, target: Camera, points: Float64) -> tuple[Bool, Bool]:
    """The definition, literally: source at the world origin; tolerance 0.1 %, last source pixel skipped."""
    height, width = points.shape[:2]
    visible, provable = np.zeros((height, width), dtype=np.bool_), np.zeros((height, width), dtype=np.bool_)
    s = (np.arange(500) + 0.5) / 500
    for y in range(height):
        for x in range(width):
            point = points[y, x]
            pixel, z = project(source, point)
            inside = z > 0 and 0 <= pixel[0] <= source.width and 0 <= pixel[1] <= source.height
            if not inside or abs(trace(packed, (0.0, 0.0, 0.0), tuple(point.tolist()))[0] - 1) > 2e-3:
                continue
            visible[y, x] = True
            samples = target.center + s[:, None] * (point - target.center)
            pixels, zs = project(source, samples)
            ahead = (zs > 1e-3) & (pixels >= 0).all(-1) & (pixels < (source.width, source.height)).all(-1)
            ahead &= np.linalg.norm(pixels - pixel, axis=-1) > 1.0
            provable[y, x] = all(
                trace(packed, (0.0, 0.0, 0.0), tuple(sample))[0] >= 1 - 1e-3 for sample in samples[ahead].tolist()
            )
    return visible, provable


def test_space_behind_a_thing_is_not_provable() -> None:
    """At 90° most of what is visible behind occluders is reached through unseen space; never the reverse."""
    for seed in range(3):
        scene = make_scene(seed)
        shares: list[float] = []
        for angle in (30.0, 60.0, 90.0):
            truth = view_truth(scene, default_camera(128, 128), _orbit(scene, angle, 64), 0.0)
            assert share(truth.provable, truth.visible) == 1.0
            shares.append(float(truth.provable.mean()))
        assert shares[0] > shares[1] > shares[2] > 0.03


def test_truth_shows_the_target_view() -> None:
    scene = make_scene(0)
    target = _orbit(scene, 30.0, 64)
    truth, view = view_truth(scene, default_camera(64, 64), target, 0.5), render_scene(scene, target, 0.5)
    np.testing.assert_array_equal(truth.rgb, view.rgb)
    np.testing.assert_array_equal(truth.depth, view.depth)


@pytest.mark.parametrize("seed", range(5))
def test_the_source_frame_can_be_resampled(seed: int) -> None:
    """Patterns are band-limited: surfaces looked up bilinearly in the source are right to 36 dB."""
    scene, source = make_scene(seed), default_camera(512, 512)
    view, packed = render_scene(scene, source, 0.0), scene.pack(0.0)
    for angle in (30.0, 60.0, 90.0):
        target = _orbit(scene, angle, 256)
        points = hit_points(packed, target)
        truth = render_scene(scene, target, 0.0)
        again = _resample(view, truth.object_id, project(source, points))
        assert psnr(again, truth.rgb, visible_points(packed, points, source)) >= 36.0
    assert view.rgb.std() > 20


def _resample(view: SceneView, owner: Int32, projected: tuple[Float64, Float64]) -> UInt8:
    """Bilinear look-up of projected hits in the source view among neighbours of the same object."""
    pixels, z = projected
    seen = (z > 0) & (np.abs(pixels) < 1e6).all(-1)
    pixels = np.where(seen[..., None], pixels, 0.5) - 0.5
    corner = np.floor(pixels).astype(int)
    fraction = pixels - corner
    total, weight = np.zeros((*z.shape, 3)), np.full(z.shape, 1e-9)
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        x, y = np.clip(corner[..., 0] + dx, 0, 511), np.clip(corner[..., 1] + dy, 0, 511)
        w = np.abs(1 - dx - fraction[..., 0]) * np.abs(1 - dy - fraction[..., 1])
        w = w * ((view.object_id[y, x] == owner) & (np.abs(view.depth[y, x] / np.where(seen, z, 1) - 1) < 0.03)) + 1e-6
        total += w[..., None] * view.rgb[y, x]
        weight += w
    return np.clip(total / weight[..., None] + 0.5, 0, 255).astype(np.uint8)


def test_figures() -> None:
    a = np.array([[True, True, False, False]])
    b = np.array([[True, False, True, False]])
    none = np.zeros_like(a)
    assert iou(a, b) == pytest.approx(1 / 3)
    assert iou(none, none) == 1.0
    assert iou(a, none) == 0.0
    assert share(a, b) == 0.5
    assert share(none, b) == 1.0
    black, gray = np.zeros((1, 4, 3), dtype=np.uint8), np.full((1, 4, 3), 51, dtype=np.uint8)
    assert psnr(black, gray, a) == pytest.approx(20 * math.log10(5))
    assert psnr(gray, gray, a) == math.inf
    assert math.isnan(psnr(black, gray, none))


def test_provable_must_be_visible() -> None:
    mask = np.zeros((2, 2), dtype=np.bool_)
    with pytest.raises(ValueError, match="subset"):
        ViewTruth(
            rgb=np.zeros((2, 2, 3), dtype=np.uint8), depth=np.ones((2, 2), np.float32), visible=mask, provable=~mask
        )
