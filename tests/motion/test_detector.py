"""The motion detector on pictures whose motion is known, and on pictures that show none."""

import json

import numpy as np
import pytest

from ex4d.core.arrays import UInt8
from ex4d.core.clip import ArrayClip
from ex4d.core.video import Video
from ex4d.motion.detector import LONG_S, SHORT_S, MotionReport, compare, detect_motion
from ex4d.motion.flow import FlowEngine
from motion.motion_tools import clip_of, noise_picture, shifted, turning

HEIGHT, WIDTH = 144, 216


@pytest.fixture(scope="module")
def picture() -> UInt8:
    return noise_picture(HEIGHT, WIDTH)


def verdict(frames: UInt8, fps: float = 24.0) -> str:
    report = detect_motion(clip_of(frames, fps))
    json.dumps(report.as_dict())
    assert report.sentence()
    return report.verdict


def two_layers(num: int, *, near_px: float, far_px: float) -> UInt8:
    """A near wall with holes before a far one, both moving sideways by their own amounts a frame."""
    near, far = noise_picture(HEIGHT, WIDTH, seed=1), noise_picture(HEIGHT, WIDTH, seed=2)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    hole = np.repeat((255 * ((x // 36 + y // 36) % 2)).astype(np.uint8)[..., None], 3, axis=2)
    layers = ((shifted(near, near_px * i), shifted(far, far_px * i), shifted(hole, near_px * i)) for i in range(num))
    return np.stack([np.where(h > 127, a, b) for a, b, h in layers])


def test_a_still_picture_is_static(picture: UInt8) -> None:
    assert verdict(np.repeat(picture[None], 12, axis=0)) == "static"


def test_noise_of_the_sensor_is_no_motion(picture: UInt8) -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 3, (12, *picture.shape))
    assert verdict(np.clip(picture + noise, 0, 255).astype(np.uint8)) == "static"


def test_things_that_move_before_a_still_background_do_not_move_the_camera(picture: UInt8) -> None:
    other = noise_picture(HEIGHT, WIDTH, seed=3)
    frames = np.repeat(picture[None], 20, axis=0).copy()
    for i, frame in enumerate(frames):
        frame[20:120, 10 + 4 * i : 90 + 4 * i] = other[20:120, 10:90]  # a quarter of the picture
    assert verdict(frames) == "static"


@pytest.mark.parametrize("axis", [(1.0, 0, 0), (0, -1.0, 0), (0.5, 0.5, 0), (0.2, 0.3, 0.4)])
@pytest.mark.parametrize("speed", [0.003, 0.008])
def test_a_turn_is_a_turn(picture: UInt8, axis: tuple[float, float, float], speed: float) -> None:
    assert verdict(turning(picture, speed * np.arange(20.0)[:, None] * np.array([axis], np.float64))) == "rotating"


def test_a_flat_picture_that_slides_is_no_turn(picture: UInt8) -> None:
    """A turn would bend it: 36 px of 216 are 10 degrees."""
    assert verdict(np.stack([shifted(picture, 2 * i) for i in range(20)])) == "moving"


def test_layers_that_move_against_each_other_are_parallax() -> None:
    assert verdict(two_layers(20, near_px=2.5, far_px=0.5)) == "moving"
    assert verdict(two_layers(20, near_px=0.0, far_px=0.0)) == "static"


def test_slow_drift_is_seen_over_a_long_span() -> None:
    """A tenth of a pixel a frame: nothing in 0.3 s, 3.6 px in 1.5 s."""
    frames = two_layers(40, near_px=0.1, far_px=0.0)
    report = detect_motion(clip_of(frames))
    assert np.median([span.motion_px for span in report.short]) < 0.7
    assert report.verdict == "moving"


@pytest.mark.parametrize("waits_first", [True, False])
def test_a_camera_that_moves_for_a_third_of_the_time_moves(waits_first: bool) -> None:
    moves = two_layers(24, near_px=2.5, far_px=0.5)
    waits = np.repeat(moves[:1] if waits_first else moves[-1:], 48, axis=0)
    assert verdict(np.concatenate([waits, moves] if waits_first else [moves, waits])) == "moving"


def test_something_that_passes_close_by_does_not_move_the_camera(picture: UInt8) -> None:
    """It fills the frame for 4 of 72 frames."""
    other = noise_picture(HEIGHT, WIDTH, seed=4)
    frames = np.repeat(picture[None], 72, axis=0).copy()
    for i in range(4):
        frames[30 + i] = shifted(other, 20 * i)
    assert verdict(frames) == "static"


def test_shake_is_seen_over_a_short_span() -> None:
    """There and back within 1.5 s: long spans alone would see nothing."""
    swing = 3 * np.sin(2 * np.pi * np.arange(60) / 36)
    near, far = noise_picture(HEIGHT, WIDTH, seed=1), noise_picture(HEIGHT, WIDTH, seed=2)
    frames = []
    for s in swing:
        frame = shifted(far, 0.3 * s)
        frame[:, : WIDTH // 2] = shifted(near, 1.5 * s)[:, : WIDTH // 2]
        frames.append(frame)
    assert verdict(np.stack(frames)) == "moving"


def test_spans_have_the_lengths_they_say() -> None:
    report = detect_motion(clip_of(np.repeat(noise_picture(48, 64)[None], 90, axis=0), fps=30.0))
    assert {span.second - span.first for span in report.short} == {round(SHORT_S * 30)}
    assert {span.second - span.first for span in report.long} == {round(LONG_S * 30)}
    for spans in (report.short, report.long):
        assert spans[0].first == 0
        assert spans[-1].second == 89
        assert len(spans) <= 8


def test_at_most_32_frames_are_read_of_a_long_clip() -> None:
    class Counted(ArrayClip[Video]):
        reads = 0

        def read(self, start: int, stop: int) -> Video:
            self.reads += stop - start
            return super().read(start, stop)

    clip = Counted(Video(frames=np.zeros((400, 16, 16, 3), np.uint8), timestamps_s=np.arange(400) / 24))
    detect_motion(clip)
    assert clip.reads <= 32


def test_a_compared_pair_tells_turn_and_parallax_apart() -> None:
    """Numbers of one span, against points projected with known cameras."""
    frames = two_layers(2, near_px=6.0, far_px=1.0)[..., 1]
    span = compare(FlowEngine(), frames[0].copy(), frames[1].copy(), first=4, second=5)
    assert (span.first, span.second) == (4, 5)
    assert span.num_points > 200
    assert 1 < span.motion_px < 6
    assert span.static_share < 0.1
    assert span.rigid_share > 0.8
    assert span.rotation_share < 0.7
    assert span.parallax_px > 1


def _cases() -> dict[str, tuple[UInt8, str]]:
    picture = noise_picture(96, 128)
    turns = turning(picture, np.arange(8.0)[:, None] * np.array([[0.002, 0.01, 0.003]]))
    black = np.zeros((8, 96, 128, 3), np.uint8)
    stripes = np.stack([np.roll(np.tile((np.arange(128) // 8 % 2 * 255).astype(np.uint8), (96, 1)), 2 * i, 1)
                        for i in range(8)])  # fmt: skip
    return {
        "black": (black, "unclear"),
        "gray": (np.full((8, 96, 128, 3), 127, np.uint8), "unclear"),
        "1x1": (np.full((8, 1, 1, 3), 200, np.uint8), "unclear"),
        "16x16": (np.stack([shifted(noise_picture(16, 16), i) for i in range(6)]), "unclear"),
        "16x300": (np.stack([shifted(noise_picture(16, 300), i) for i in range(6)]), "unclear"),
        "stripes": (np.repeat(stripes[..., None], 3, axis=3), "unclear"),
        "ends in black": (np.concatenate([turns, black]), "rotating"),
        "begins in black": (np.concatenate([black, turns]), "rotating"),
        "flashes": (np.stack([picture if i % 2 else np.full_like(picture, 255) for i in range(9)]), "unclear"),
        "one frame": (picture[None], "static"),
        "two still frames": (np.stack([picture, picture]), "static"),
        "two frames": (turns[[0, 4]], "rotating"),
    }


@pytest.mark.parametrize("name", list(_cases()))
def test_every_clip_gets_one_verdict(name: str) -> None:
    frames, want = _cases()[name]
    assert verdict(frames) == want


def test_unrelated_frames_are_never_called_still() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (8, 96, 128, 3), dtype=np.uint8)
    assert verdict(noise) != "static"
    halves = [noise_picture(96, 128, seed=seed) for seed in (1, 2)]
    cut = np.stack([shifted(halves[i // 8], 2 * i) for i in range(16)])
    assert verdict(cut) in ("rotating", "moving", "unclear")


def test_times_that_do_not_grow_evenly() -> None:
    frames = turning(noise_picture(96, 128), np.arange(10.0)[:, None] * np.array([[0, 0.01, 0]]))
    times = np.array([0, 0.01, 0.02, 0.5, 0.51, 0.52, 3.0, 3.01, 3.02, 3.03])
    report = detect_motion(ArrayClip(Video(frames=frames, timestamps_s=times)))
    assert report.verdict == "rotating"
    assert all(0 <= span.first < span.second < 10 for span in (*report.short, *report.long))


def test_sentences_are_for_people() -> None:
    assert detect_motion(clip_of(noise_picture(64, 96)[None])).sentence().endswith("one frame, no motion to look for")
    empty = MotionReport(verdict="unclear", short=(), long=())
    assert "source camera" in empty.sentence()
