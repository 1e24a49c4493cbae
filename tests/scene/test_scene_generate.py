"""Seeded scenes: determinism, what they promise to contain, and room for the cameras."""

import numpy as np
import pytest

from ex4d.core.arrays import Float64
from ex4d.errors import ConfigError
from ex4d.scene.generate import default_camera, make_scene, pivot_depth
from ex4d.scene.intersect import trace
from ex4d.scene.render import render_scene

SEEDS = range(10)


@pytest.mark.parametrize("seed", SEEDS)
def test_holds_what_it_promises(seed: int) -> None:
    scene = make_scene(seed)
    view = render_scene(scene, default_camera(160, 160), 0.0)
    pixels = np.bincount(view.object_id.ravel(), minlength=len(scene.objects))
    assert (pixels[scene.ids("occluder")] >= 40).sum() >= 6
    assert (pixels[scene.ids("mover")] >= 25).sum() >= 2
    assert view.sky.any()
    assert np.isfinite(view.depth).all()
    assert (view.depth > 0).all()
    assert 2.0 <= pivot_depth(view.depth.astype(np.float64)) <= 4.0


def test_same_seed_same_scene_and_others_differ() -> None:
    camera = default_camera(64, 64)
    pictures = [render_scene(make_scene(seed), camera, 0.5).rgb for seed in (3, 3, 5)]
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert np.abs(pictures[0].astype(int) - pictures[2]).mean() > 5


def test_both_kinds_among_the_first_five_and_on_request() -> None:
    assert {make_scene(seed).kind for seed in range(5)} == {"room", "outdoor"}
    assert make_scene(0, kind="outdoor").kind == "outdoor"
    assert make_scene(1, kind="room").kind == "room"


@pytest.mark.parametrize("seed", SEEDS)
def test_orbit_cameras_stand_in_free_space(seed: int) -> None:
    """No surface within 25 cm of an orbit eye, and no eye inside a solid, at several times."""
    scene = make_scene(seed)
    depth = render_scene(scene, default_camera(160, 160), 0.0).depth
    pivot = pivot_depth(depth.astype(np.float64))
    directions = [tuple(d) for d in _fibonacci_sphere(40).tolist()]
    for time_s in (0.0, 0.8, 1.9):
        packed = scene.pack(time_s)
        for angle in np.radians([-90, -60, -30, 30, 60, 90]):
            eye = (float(pivot * np.sin(angle)), 0.0, float(pivot - pivot * np.cos(angle)))
            assert min(trace(packed, eye, d)[0] for d in directions) > 0.25
            # From inside a solid every direction would meet that solid first.
            assert len({int(packed.owner[trace(packed, eye, d)[1]]) for d in directions}) > 2


def test_movers_move_and_the_rest_does_not() -> None:
    scene = make_scene(3)
    now, later = scene.pack(0.0), scene.pack(0.9)
    moved = np.abs(now.geometry[:, 9:12] - later.geometry[:, 9:12]).max(axis=1) > 0.02
    assert set(now.owner[moved].tolist()) == set(scene.ids("mover").tolist())
    assert len(scene.ids("mover")) >= 2
    slightly = scene.pack(0.0 + 1 / 60)
    assert np.abs(now.geometry[:, 9:12] - slightly.geometry[:, 9:12]).max() < 0.06


def test_a_rolling_ball_does_not_slip() -> None:
    """The point of a rolling mover that touches the floor has no velocity."""
    rolling = [o for s in range(8) for o in make_scene(s).objects if o.motion is not None and o.motion.roll is not None]
    assert rolling
    for item in rolling:
        assert item.motion is not None
        radius = item.primitives[0].half_m[1]
        step = 1e-4
        (r0, t0), (r1, t1) = item.motion.pose(0.4), item.motion.pose(0.4 + step)
        contact = r0.T @ np.array([0.0, radius, 0.0])
        velocity = ((r1 @ contact + t1) - (r0 @ contact + t0)) / step
        assert np.abs((t1 - t0) / step).max() > 1e-3
        assert np.abs(velocity).max() < 1e-2 * np.abs((t1 - t0) / step).max()


def test_the_source_view_is_textured() -> None:
    """Not flat: local contrast over the whole frame, also without silhouettes."""
    for seed in range(4):
        view = render_scene(make_scene(seed), default_camera(256, 256), 0.0)
        gray = view.rgb.astype(float).mean(axis=2)
        same = (view.object_id[:, 4:] == view.object_id[:, :-4]) & ~view.sky[:, 4:]
        assert np.abs(gray[:, 4:] - gray[:, :-4])[same].mean() > 2.0


@pytest.mark.parametrize(("seed", "kind"), [(-1, None), (0, "cave")])
def test_refuses_bad_arguments(seed: int, kind: str | None) -> None:
    with pytest.raises(ConfigError, match="got"):
        make_scene(seed, kind=kind)  # pyright: ignore[reportArgumentType]


def _fibonacci_sphere(num: int) -> Float64:
    i = np.arange(num) + 0.5
    y = 1 - 2 * i / num
    angle = np.pi * (1 + 5**0.5) * i
    r = np.sqrt(1 - y * y)
    return np.stack([r * np.cos(angle), y, r * np.sin(angle)], axis=-1)
