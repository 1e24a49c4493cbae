"""Random paths: what is drawn, and where the other cameras stand."""

import numpy as np
import pytest

from ex4d.camera.build import build_path, parse_spec, relative_to
from ex4d.camera.config import PathRequest
from ex4d.core.seeding import make_rng
from ex4d.masking.config import STYLES, MaskConfig
from ex4d.masking.paths import draw_move, draw_path
from masking.masking_tools import filmed, only


def test_every_style_is_a_camera_that_people_can_type() -> None:
    seen = dict(draw_move(MaskConfig(), make_rng(seed, "test")) for seed in range(300))
    assert set(seen) == set(STYLES)
    for cam in seen.values():
        parse_spec(cam)


def test_styles_come_as_often_as_they_weigh() -> None:
    config = MaskConfig(orbit_weight=3, arc_weight=1, dolly_weight=0, truck_weight=0, crane_weight=0, spiral_weight=0)
    styles = [draw_move(config, make_rng(seed, "test"))[0] for seed in range(400)]
    assert set(styles) == {"orbit", "arc"}
    assert 0.68 < styles.count("orbit") / 400 < 0.82


def test_numbers_stay_in_their_ranges_and_reach_both_sides() -> None:
    config = only("arc", rendering=True, yaw_deg=(-40.0, 20.0), elevation_deg=(5.0, 6.0))
    drawn = np.array([parse_spec(draw_move(config, make_rng(seed, "test"))[1]).values for seed in range(200)])
    low, high = drawn.min(axis=0), drawn.max(axis=0)
    assert (low >= (-40, 5)).all()
    assert (high <= (20, 6)).all()
    assert low[0] < -35
    assert high[0] > 15


@pytest.mark.parametrize("motion", ["static", "dolly"])
def test_the_move_leads_from_the_other_cameras_to_the_clip(motion: str) -> None:
    """Inference from the simulated source, with the drawn --cam, arrives at the clip's own cameras."""
    _, depth, path = filmed(motion)  # pyright: ignore[reportArgumentType]
    first = depth.read(0, 1)
    drawn = draw_path(first.depth[0], first.valid[0], path, config=only("arc", rendering=True), seed=3)
    request = PathRequest(
        K=path.K[0],
        height=path.height,
        width=path.width,
        source_index=path.source_index,
        pivot_depth=drawn.pivot_depth,
        nearest_depth=1.0,
    )
    arrived = relative_to(build_path(drawn.cam, request), drawn.cameras.world_to_camera)
    assert np.allclose(arrived.world_to_camera, path.world_to_camera, atol=1e-12)
    assert np.array_equal(drawn.cameras.world_to_camera[0], path.world_to_camera[0])
    assert not np.allclose(drawn.cameras.world_to_camera[-1], path.world_to_camera[-1], atol=0.1)


def test_pivots_are_spread_about_the_one_that_is_named() -> None:
    _, depth, path = filmed()
    first = depth.read(0, 1)

    def pivots(spread: float) -> np.ndarray:
        config = only("orbit", rendering=True, pivot_spread=spread, pivots=("median",))
        return np.array(
            [draw_path(first.depth[0], first.valid[0], path, config=config, seed=s).pivot_depth for s in range(40)]
        )

    exact = float(np.median(first.depth[0]))
    assert np.allclose(pivots(0.0), exact)
    ratio = np.log(pivots(0.3) / exact)
    assert np.abs(ratio).max() <= 0.3
    assert ratio.min() < -0.15
    assert ratio.max() > 0.15
