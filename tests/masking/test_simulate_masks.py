"""`simulate_masks` as a whole: pure, deterministic, and what it refuses."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ex4d.core.camera import CameraPath
from ex4d.errors import CameraPathError, DepthError, InputError
from ex4d.masking.config import MaskConfig
from ex4d.masking.morphology import reshape
from ex4d.masking.simulate import draw_kind, mask_seed, simulate_masks
from masking.masking_tools import filmed, only, world

_AGAIN = """
import hashlib
from masking.masking_tools import filmed, only
from ex4d.masking.simulate import simulate_masks
for rendering in (True, False):
    made = simulate_masks(*filmed("handheld"), config=only("arc", rendering=rendering), seed=5, num_threads=3)
    print(hashlib.sha256(made.survived.tobytes()).hexdigest())
"""


def test_equal_arguments_give_equal_bytes_in_another_process() -> None:
    mine = [
        simulate_masks(*filmed("handheld"), config=only("arc", rendering=rendering), seed=5)
        for rendering in (True, False)
    ]
    tests = Path(__file__).resolve().parents[1]
    code = f"import sys; sys.path.insert(0, {str(tests)!r})\n{_AGAIN}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [hashlib.sha256(made.survived.tobytes()).hexdigest() for made in mine]
    assert mine[0].kind == "rendering"
    assert mine[1].kind == "tracking"


def test_descriptions_are_json_and_seeds_differ() -> None:
    config = MaskConfig()
    made = [simulate_masks(*filmed(), config=config, seed=seed) for seed in range(4)]
    for seed, one in enumerate(made):
        assert json.loads(json.dumps(one.description)) == one.description
        assert one.description["seed"] == seed
        assert one.description["kind"] == one.kind == draw_kind(config, seed)
    assert len({one.description["cam"] for one in made}) == 4


def test_kinds_come_as_often_as_asked() -> None:
    kinds = [draw_kind(MaskConfig(rendering_share=0.25), seed) for seed in range(400)]
    assert 0.18 < kinds.count("rendering") / 400 < 0.32


def test_seeds_of_masks_differ_by_run_clip_and_number() -> None:
    seeds = {mask_seed(0, 0), mask_seed(0, 1), mask_seed(1, 0), mask_seed(0, "clip", 0), mask_seed(0, "other", 0)}
    assert len(seeds) == 5
    assert mask_seed(0, "clip", 0) == mask_seed(0, "clip", 0)


def test_inputs_are_not_changed() -> None:
    video, depth, path = filmed()
    before = [hashlib.sha256(a.tobytes()).digest() for a in (video.read(0, 8).frames, depth.read(0, 8).depth)]
    simulate_masks(video, depth, path, config=only("orbit", rendering=False, noise_px=3.0), seed=0)
    after = [hashlib.sha256(a.tobytes()).digest() for a in (video.read(0, 8).frames, depth.read(0, 8).depth)]
    assert before == after


def test_bad_clips_are_refused_in_words() -> None:
    video, depth, path = filmed()
    config = MaskConfig()
    one = [world(np.zeros((1, 32, 48, 3), np.uint8), np.ones((1, 32, 48), np.float32))][0]
    with pytest.raises(InputError, match="at least 2 frames"):
        simulate_masks(*one, config=config, seed=0)
    short = CameraPath(
        K=path.K[:3],
        world_to_camera=path.world_to_camera[:3],
        source_index=path.source_index[:3],
        height=path.height,
        width=path.width,
    )
    with pytest.raises(CameraPathError, match="8 frames of 96x64"):
        simulate_masks(video, depth, short, config=config, seed=0)
    with pytest.raises(DepthError, match="8 frames of 96x64"):
        simulate_masks(video, one[1], path, config=config, seed=0)
    blind = world(np.zeros((2, 32, 48, 3), np.uint8), np.ones((2, 32, 48), np.float32), np.zeros((2, 32, 48), np.bool_))
    with pytest.raises((DepthError, CameraPathError)):
        simulate_masks(*blind, config=config, seed=0)


def test_a_sensor_with_holes() -> None:
    """Unknown pixels are lost in rendering masks, and hide nothing else at the source view."""
    video, depth, path = filmed()
    maps = depth.read(0, 8)
    valid = np.random.default_rng(0).uniform(size=maps.depth.shape) > 0.05
    holed = world(video.read(0, 8).frames, maps.depth, valid)
    made = simulate_masks(holed[0], holed[1], path, config=only("orbit", rendering=True, yaw_deg=(20.0, 20.0)), seed=0)
    assert np.array_equal(made.survived[0], valid[0])
    assert not made.survived[~valid].any()


def test_rims_are_lost_and_gained_as_asked() -> None:
    survived = np.zeros((3, 40, 60), np.bool_)
    survived[:, 10:30, 20:40] = True
    eroded, sizes = reshape(survived, config=MaskConfig(erode_px=(2, 2)), seed=0)
    assert sizes == {"dilate_px": 0, "erode_px": 2}
    assert eroded.sum() == 3 * 16 * 16
    grown, _ = reshape(survived, config=MaskConfig(dilate_px=(3, 3)), seed=0)
    assert grown.sum() == 3 * 26 * 26
    whole, _ = reshape(np.ones((2, 20, 20), np.bool_), config=MaskConfig(erode_px=(4, 4)), seed=0)
    assert whole.all(), "the frame's rim is no outline"
    drawn = {reshape(survived, config=MaskConfig(erode_px=(0, 4)), seed=seed)[1]["erode_px"] for seed in range(40)}
    assert drawn == {0, 1, 2, 3, 4}


def test_noise_bends_outlines_alike_in_every_frame() -> None:
    survived = np.zeros((3, 60, 90), np.bool_)
    survived[:, 15:45, 20:70] = True
    bent, _ = reshape(survived, config=MaskConfig(noise_px=4.0), seed=1)
    assert (bent == bent[0]).all()
    changed = np.argwhere(bent[0] != survived[0])
    assert len(changed) > 20
    inside = (changed[:, 0] > 22) & (changed[:, 0] < 38) & (changed[:, 1] > 27) & (changed[:, 1] < 63)
    assert not inside.any(), "only near the outline"
