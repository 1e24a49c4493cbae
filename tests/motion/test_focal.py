"""The focal length that the clip's own motion tells."""

from dataclasses import replace

import numpy as np
import pytest

from ex4d.motion.focal import sweep_focal
from ex4d.motion.odometry import follow_clip
from ex4d.motion.tracks import Tracks
from ex4d.scene.clip import moving_path, scene_clip
from ex4d.scene.generate import make_scene
from motion.motion_tools import FPS, camera_path, clip_of, random_points, sideways, tracks_of

HEIGHT, WIDTH, NUM = 192, 288, 20
SHARES = (0.65, 0.9, 1.4)


def tracked(focal_share: float, step: float = 0.05, *, portrait: bool = False) -> Tracks:
    """Points seen by a camera that moves sideways."""
    size = {"height": WIDTH, "width": HEIGHT} if portrait else {"height": HEIGHT, "width": WIDTH}
    path = camera_path(*sideways(NUM, step), **size, focal_share=focal_share)
    return tracks_of(path, random_points(400, seed=1, spread=0.45 / focal_share), noise_px=0.1)


@pytest.mark.parametrize("share", SHARES)
def test_the_focal_length_of_tracks(share: float) -> None:
    found = sweep_focal(tracked(share))
    assert found == pytest.approx(share, rel=0.05)
    if share == 0.9:
        assert sweep_focal(tracked(share)) == found


def test_it_is_a_share_of_the_longer_side() -> None:
    assert sweep_focal(tracked(0.7, portrait=True)) == pytest.approx(0.7, rel=0.05)


def dolly_share(seed: int, share: float) -> float | None:
    """What is found in a procedural scene, with things that move in it."""
    times = np.arange(NUM) / FPS
    path = moving_path(seed, times, height=HEIGHT, width=WIDTH, camera_motion="dolly")
    K = path.K.copy()
    K[:, 0, 0] = K[:, 1, 1] = share * WIDTH
    path = replace(path, K=K)
    clip = scene_clip(make_scene(seed), num_frames=NUM, fps=FPS, height=HEIGHT, width=WIDTH, path=path)
    return sweep_focal(follow_clip(clip_of(clip.read(0, NUM).frames, FPS)))


@pytest.mark.parametrize("share", SHARES)
def test_the_focal_length_of_a_filmed_scene(share: float) -> None:
    assert dolly_share(1, share) == pytest.approx(share, rel=0.12)


@pytest.mark.prove
@pytest.mark.parametrize("share", SHARES)
def test_the_focal_length_of_several_scenes(share: float) -> None:
    found = [dolly_share(seed, share) for seed in (0, 2, 3, 4, 5)]
    error = [abs(one / share - 1) for one in found if one is not None]
    assert len(error) >= 4
    assert np.median(error) < 0.08


def test_without_parallax_nothing_is_said() -> None:
    """A camera that stands or only turns, a single frame, and a picture without texture."""
    assert sweep_focal(tracked(0.9, step=0.0)) is None
    turning = camera_path(np.zeros((NUM, 3)), sideways(NUM)[1] * 4, height=HEIGHT, width=WIDTH)
    assert sweep_focal(tracks_of(turning, random_points(300), noise_px=0.1)) is None
    path = camera_path(*sideways(1), height=HEIGHT, width=WIDTH)
    assert sweep_focal(tracks_of(path, random_points(300))) is None
    assert sweep_focal(tracks_of(path, np.empty((0, 3)))) is None


def test_an_end_of_the_range_is_no_answer() -> None:
    """What fits best at 0.5 or 2 may lie anywhere beyond."""
    assert sweep_focal(tracked(4.0)) is None
