"""Warnings: cameras inside things and cameras that look away, with the frames they concern."""

import numpy as np
import pytest

from ex4d.camera.build import build_path
from ex4d.camera.checks import WarningCode, frame_ranges, frame_warnings, summarize
from ex4d.camera.config import PathRequest
from ex4d.core.arrays import Bool, Float32
from ex4d.core.camera import Camera, pinhole

HEIGHT, WIDTH = 96, 128
SOURCE = Camera(
    K=pinhole(focal_px=110, height=HEIGHT, width=WIDTH), world_to_camera=np.eye(4), height=HEIGHT, width=WIDTH
)


def _wall(depth: float = 3.0) -> tuple[Float32, Bool]:
    return np.full((HEIGHT, WIDTH), depth, np.float32), np.ones((HEIGHT, WIDTH), bool)


def _warnings(
    spec: str, depth: Float32, valid: Bool, pivot: float = 3.0, num: int = 11
) -> list[frozenset[WarningCode]]:
    request = PathRequest(
        K=SOURCE.K,
        height=HEIGHT,
        width=WIDTH,
        source_index=np.arange(num),
        pivot_depth=pivot,
        nearest_depth=float(depth.min()),
    )
    path = build_path(spec, request)
    return [frame_warnings(path[i], SOURCE, depth, valid) for i in range(num)]


def test_ordinary_paths_are_fine() -> None:
    for spec in ("static", "60", "orbit-left:60", "dolly-in", "dolly-out:2", "handheld"):
        found = _warnings(spec, *_wall())
        assert set().union(*found) == set(), spec
        assert summarize(found) == ()


def test_behind_the_surface() -> None:
    """zoom_in ends 0.14 past the nearest surface, as in the release: only its last frames."""
    found = _warnings("zoom_in", *_wall())
    expected = [z > 3.0 for z in np.linspace(0, 3.14, 11)]
    assert [("behind-surface" in codes) for codes in found] == expected
    assert "behind the observed surface in frame 10 of 11" in summarize(found)[0]


def test_unknown_depth_gives_no_warning() -> None:
    depth, valid = _wall()
    assert set().union(*_warnings("zoom_in", depth, ~valid)) == set()


def test_a_camera_outside_the_frustum_is_not_behind_anything() -> None:
    found = _warnings("orbit-left:90", *_wall(1.0), pivot=3.0)
    assert "behind-surface" not in found[-1]  # eye at (-3, 0, 3), far left of a 60 degree view


def test_looks_away() -> None:
    found = _warnings("pan-left:180", *_wall())
    assert "looks-away" not in found[2]
    assert "looks-away" in found[-1]
    text = summarize(found)
    assert len(text) == 1
    assert "looks away" in text[0]


@pytest.mark.parametrize(("rows_in_view", "expected"), [(1, True), (2, False)])
def test_looking_away_means_less_than_one_percent(rows_in_view: int, expected: bool) -> None:
    """The grid has 12x16 points; one column and 1 or 2 rows of it in view are 0.5 or 1.04 %."""
    shifted = SOURCE.K.copy()
    shifted[:2, 2] += (WIDTH - 8, HEIGHT - 8 * rows_in_view)
    target = Camera(K=shifted, world_to_camera=np.eye(4), height=HEIGHT, width=WIDTH)
    assert ("looks-away" in frame_warnings(target, SOURCE, *_wall())) is expected


def test_ranges() -> None:
    assert frame_ranges([12, 13, 14, 30, 41, 42]) == "12–14, 30, 41–42"
    assert frame_ranges([0]) == "0"
    away: frozenset[WarningCode] = frozenset({"looks-away"})
    both: frozenset[WarningCode] = frozenset({"looks-away", "behind-surface"})
    sentences = summarize([frozenset(), away, both, both])
    assert "in frames 2–3 of 4" in sentences[0]
    assert "in frames 1–3 of 4" in sentences[1]


def test_tiny_sources() -> None:
    camera = Camera(K=pinhole(focal_px=3, height=1, width=3), world_to_camera=np.eye(4), height=1, width=3)
    assert frame_warnings(camera, camera, np.ones((1, 3), np.float32), np.ones((1, 3), bool)) == frozenset()
