"""Labels that follow the content along point tracks."""

import numpy as np
import pytest

from ex4d.core.arrays import Bool, UInt8
from ex4d.errors import ConfigError, MissingDependencyError
from ex4d.masking.dis import DisTracker
from ex4d.masking.simulate import simulate_masks
from ex4d.masking.tracker import make_tracker
from ex4d.masking.tracking import carry_labels, find_places, nearest_of
from ex4d.scene.clip import scene_clip
from ex4d.scene.generate import make_scene
from masking.masking_tools import filmed, only, world
from motion.motion_tools import noise_picture, shifted

HEIGHT, WIDTH = 96, 144


def moving(step_px: float, num: int = 7, seed: int = 0) -> UInt8:
    """uint8 [T,H,W,3]: a textured picture that goes to the right by `step_px` a frame."""
    picture = noise_picture(HEIGHT, WIDTH, seed=seed, finest_px=8)
    return np.stack([np.asarray(shifted(picture, step_px * i), np.uint8) for i in range(num)])


def box(x: float, y: float = 40) -> Bool:
    """A box of 30x24 px."""
    row, column = np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5
    return (abs(column - x) < 15) & (abs(row - y) < 12)


def iou(a: Bool, b: Bool) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("keyframe", [0, 3, 6])
def test_a_region_goes_with_its_content(keyframe: int) -> None:
    frames = moving(4.0)
    places = find_places(frames, DisTracker(), keyframe=keyframe, restart_frames=3, grid_step_px=8)
    carried = carry_labels(box(60 + 4 * keyframe), np.ones((HEIGHT, WIDTH), np.bool_), places)
    assert np.array_equal(carried[keyframe], box(60 + 4 * keyframe))
    for t in range(7):
        assert iou(carried[t], box(60 + 4 * t)) > 0.93, t
    assert places.lost == ()
    assert places.textured > 0.5


def test_labels_of_any_size_are_carried() -> None:
    places = find_places(moving(3.0), DisTracker(), keyframe=0, restart_frames=12, grid_step_px=8)
    large = np.repeat(np.repeat(box(60), 2, axis=0), 2, axis=1)
    carried = carry_labels(large, np.ones_like(large), places)
    assert iou(carried[6][::2, ::2], box(78)) > 0.93


def test_content_that_appears_takes_the_label_beside_it() -> None:
    """The left half is kept; what comes in on the left belongs to it, unknown rims do not count."""
    places = find_places(moving(6.0), DisTracker(), keyframe=0, restart_frames=12, grid_step_px=8)
    labels = np.arange(WIDTH) < WIDTH // 2
    labels = np.repeat(labels[None], HEIGHT, axis=0)
    known = np.ones_like(labels)
    known[:, :3] = False
    carried = carry_labels(labels & known, known, places)
    assert carried[6][8:-8, 2:30].mean() > 0.9
    assert carried[6].mean() == pytest.approx(0.5 + 36 / WIDTH, abs=0.05)


def test_something_that_moves_takes_its_label_along() -> None:
    """A patch that crosses a still background; the background keeps its own label."""
    background, patch = (noise_picture(HEIGHT, WIDTH, seed=seed, finest_px=8) for seed in (1, 2))
    frames = np.repeat(background[None], 6, axis=0)
    for t in range(6):
        left = 30 + 5 * t
        frames[t, 24:72, left : left + 48] = patch[24:72, 30:78]
    places = find_places(frames, DisTracker(), keyframe=0, restart_frames=12, grid_step_px=8)
    labels = np.zeros((HEIGHT, WIDTH), np.bool_)
    labels[24:72, 30:78] = True
    carried = carry_labels(labels, np.ones_like(labels), places)
    assert carried[5][30:66, 62:96].mean() > 0.95, "the patch"
    assert carried[5][:, 115:].mean() < 0.02, "background that it has not reached"
    assert carried[5][:12].mean() < 0.05


def test_a_cut_is_said_and_labels_stay() -> None:
    shots = [
        scene_clip(make_scene(seed), num_frames=3, fps=12, height=HEIGHT, width=WIDTH, camera_motion="pan")
        for seed in (302, 303)
    ]
    frames = np.concatenate([shot.read(0, 3).frames for shot in shots])
    places = find_places(frames, DisTracker(), keyframe=0, restart_frames=12, grid_step_px=8)
    assert places.lost == (3, 4, 5)
    carried = carry_labels(box(60), np.ones((HEIGHT, WIDTH), np.bool_), places)
    assert np.array_equal(carried[3], carried[2])


def test_a_clip_without_texture_is_said() -> None:
    flat = np.full((4, HEIGHT, WIDTH, 3), 120, np.uint8)
    source, depth, path = world(flat, np.full((4, HEIGHT, WIDTH), 3.0, np.float32))
    made = simulate_masks(source, depth, path, config=only("truck", rendering=False), seed=1)
    assert any("no texture" in notice for notice in made.description["notices"])
    assert (made.survived == made.survived[0]).all()


def test_nearest_of() -> None:
    chosen = np.zeros((5, 9), np.bool_)
    chosen[2, 1] = chosen[2, 7] = True
    nearest = nearest_of(chosen)
    assert (nearest[:, :4] == 2 * 9 + 1).all()
    assert (nearest[:, 5:] == 2 * 9 + 7).all()
    assert np.array_equal(nearest_of(np.zeros((2, 3), np.bool_)), [[0, 1, 2], [3, 4, 5]])


def test_labels_are_a_moment_of_the_path_and_keep_their_share() -> None:
    video, depth, path = filmed()
    shares = []
    for seed in range(6):
        made = simulate_masks(
            video, depth, path, config=only("orbit", rendering=False, yaw_deg=(60.0, 60.0)), seed=seed
        )
        coverage = made.survived.mean(axis=(1, 2))
        assert np.ptp(coverage) < 0.1
        assert made.description["tracker"] == "dis"
        assert 0 <= made.description["keyframe"] < 8
        shares.append(coverage.mean())
    assert max(shares) - min(shares) > 0.2, "moments differ"


def test_unknown_trackers_and_missing_packages_say_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="dis, raft, tapnext"):
        make_tracker("tapir")
    import sys

    for name, package, line in (
        ("raft", "torchvision", "pip install 'ex4d[gen]' torchvision"),
        ("tapnext", "tapnet", "git+https://github.com/google-deepmind/tapnet.git"),
        ("bootstapir", "tapnet", "git+https://github.com/google-deepmind/tapnet.git"),
        ("cotracker", "cotracker", "git+https://github.com/facebookresearch/co-tracker.git"),
    ):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MissingDependencyError) as caught:
            make_tracker(name)
        assert line in str(caught.value)
        assert package in caught.value.expected
