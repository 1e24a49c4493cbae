"""From pictures to cameras: the detector and the odometry on procedural scenes with things that move by themselves."""

from dataclasses import dataclass

import numpy as np
import pytest

from ex4d.core.arrays import UInt8
from ex4d.core.camera import CameraPath
from ex4d.core.clip import ArrayClip
from ex4d.core.video import Video
from ex4d.motion.detector import detect_motion
from ex4d.motion.odometry import Odometry, find_cameras, follow_clip
from ex4d.scene.clip import CameraMotion
from helpers import rotation_error_deg
from motion.motion_tools import FPS, Filmed, angle_deg, clip_of, filmed, noise_picture, shifted, turning

VERDICTS: dict[CameraMotion, str] = {
    "static": "static", "pan": "rotating", "handheld": "moving", "dolly": "moving",
}  # fmt: skip


def odometry(clip: ArrayClip[Video], truth: CameraPath) -> Odometry | None:
    return find_cameras(follow_clip(clip), truth.K[0], height=clip.height, width=clip.width)


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """Of a found path: rotations in degrees, directions of eyes from the first one, and the way's end as a share."""

    turn_deg: float
    direction_deg: float
    way: float


def errors(found: CameraPath, truth: CameraPath) -> Errors:
    turns = [
        rotation_error_deg(a[:3, :3], b[:3, :3])
        for a, b in zip(found.world_to_camera, truth.world_to_camera, strict=True)
    ]
    eyes, want = found.center, truth.center
    length = np.linalg.norm(want, axis=1)
    far = length > 0.3 * length.max()
    scale = float((eyes * want).sum() / (eyes * eyes).sum())
    return Errors(
        turn_deg=max(turns),
        direction_deg=float(np.median([angle_deg(a, b) for a, b in zip(eyes[far], want[far], strict=True)])),
        way=float(np.linalg.norm(scale * eyes - want, axis=1).max() / length.max()),
    )


@pytest.mark.parametrize("motion", list(VERDICTS))
@pytest.mark.parametrize("seed", [0, 3])
def test_the_detector_tells_how_the_camera_moves(seed: int, motion: CameraMotion) -> None:
    assert detect_motion(filmed(seed, motion).clip).verdict == VERDICTS[motion]


@pytest.mark.parametrize("seed", [0, 3])
def test_a_dolly_is_found(seed: int) -> None:
    scene = filmed(seed, "dolly")
    found = odometry(scene.clip, scene.path)
    assert found is not None
    assert found.kind == "full"
    assert found.is_found.all()
    assert found.share > 0.6
    assert np.array_equal(found.path.world_to_camera[0], np.eye(4))
    got = errors(found.path, scene.path)
    assert got.turn_deg < 0.6
    assert got.direction_deg < 10
    assert got.way < 0.12


@pytest.mark.parametrize("motion", ["static", "pan"])
@pytest.mark.parametrize("seed", [0, 3])
def test_a_camera_on_the_spot_gets_turns_only(seed: int, motion: CameraMotion) -> None:
    """Whatever moves in the scene."""
    scene = filmed(seed, motion)
    found = odometry(scene.clip, scene.path)
    assert found is not None
    assert found.kind == "rotation"
    assert not found.path.center.any()
    turns = zip(found.path.world_to_camera, scene.path.world_to_camera, strict=True)
    assert max(rotation_error_deg(a[:3, :3], b[:3, :3]) for a, b in turns) < 0.1


@pytest.mark.parametrize("seed", [1, 3])
def test_a_shaken_camera_is_found_where_its_shifts_show(seed: int) -> None:
    scene = filmed(seed, "handheld", height=256, width=384)
    found = odometry(scene.clip, scene.path)
    assert found is not None
    if found.kind == "full":
        got = errors(found.path, scene.path)
        assert got.turn_deg < 0.5
        assert got.direction_deg < 15
    else:  # shifts of 3 cm look like turns, and are taken for such
        assert errors_of_turns(found.path, scene.path) < 2
    if seed == 3:
        assert found.kind == "full"


def errors_of_turns(found: CameraPath, truth: CameraPath) -> float:
    pairs = zip(found.world_to_camera, truth.world_to_camera, strict=True)
    return max(rotation_error_deg(a[:3, :3], b[:3, :3]) for a, b in pairs)


def frames_of(scene: Filmed) -> UInt8:
    return scene.clip.read(0, scene.clip.num_frames).frames


def test_a_camera_that_waits_and_then_moves() -> None:
    scene = filmed(3, "dolly")
    frames = frames_of(scene)
    clip = clip_of(np.concatenate([np.repeat(frames[:1], 12, axis=0), frames]), FPS)
    assert detect_motion(clip).verdict == "moving"
    found = odometry(clip, scene.path)
    assert found is not None
    assert found.kind == "full"
    eyes = found.path.center
    assert np.linalg.norm(eyes[:12], axis=1).max() < 0.02 * np.linalg.norm(eyes[-1])
    assert np.median([angle_deg(a, b) for a, b in zip(eyes[20:], scene.path.center[8:], strict=True)]) < 10


def test_a_camera_that_stops() -> None:
    scene = filmed(3, "dolly")
    frames = frames_of(scene)
    found = odometry(clip_of(np.concatenate([frames, np.repeat(frames[-1:], 12, axis=0)]), FPS), scene.path)
    assert found is not None
    assert found.kind == "full"
    rest = found.path.center[len(frames) :]
    assert np.linalg.norm(rest - rest[0], axis=1).max() < 0.01 * np.linalg.norm(rest[0])


def test_a_portrait_clip() -> None:
    scene = filmed(3, "dolly", height=288, width=192)
    assert detect_motion(scene.clip).verdict == "moving"
    found = odometry(scene.clip, scene.path)
    assert found is not None
    assert found.kind == "full"
    assert (found.path.height, found.path.width) == (288, 192)
    got = errors(found.path, scene.path)
    assert got.turn_deg < 2.5
    assert got.direction_deg < 10


@pytest.mark.parametrize("num", [2, 3, 4, 5])
def test_a_clip_of_a_few_frames(num: int) -> None:
    """The first, the last, and some between of a dolly: far apart, or close together."""
    scene = filmed(0, "dolly")
    frames = frames_of(scene)
    for chosen in (np.linspace(0, 12, num).round().astype(int), np.arange(num)):
        found = odometry(clip_of(frames[chosen], FPS), scene.path)
        assert found is not None
        assert len(found.path) == num
        if found.kind == "full":
            eye, want = found.path.center[-1], scene.path.center[chosen[-1]]
            assert angle_deg(eye, want) < 30


def test_a_flat_clip_has_no_cameras(path_of: CameraPath) -> None:
    for value in (0, 128, 255):
        assert odometry(clip_of(np.full((6, 64, 96, 3), value, np.uint8)), path_of) is None
    assert odometry(clip_of(noise_picture(64, 96)[None]), path_of) is None


@pytest.fixture
def path_of() -> CameraPath:
    return filmed(0, "static", num=1, height=64, width=96).path


def _hard_cut() -> UInt8:
    a, b = frames_of(filmed(0, "dolly")), frames_of(filmed(3, "dolly"))
    return np.concatenate([a[:8], b[:8]])


def _mover_fills_the_frame() -> UInt8:
    back, front = noise_picture(192, 288, seed=1), noise_picture(192, 288, seed=2)
    frames = np.repeat(back[None], 12, axis=0).copy()
    for i, frame in enumerate(frames):
        frame[10:182, 14:274] = shifted(front, 3 * i, np.sin(i))[10:182, 14:274]
    return frames


def _gaps() -> UInt8:
    frames = frames_of(filmed(0, "dolly")).copy()
    frames[6:9] = 0
    return frames


def _flashes() -> UInt8:
    frames = frames_of(filmed(0, "dolly")).copy()
    frames[::3] = 255
    return frames


def _white_noise() -> UInt8:
    return np.random.default_rng(0).integers(0, 256, (8, 96, 128, 3), dtype=np.uint8)


def _huge() -> UInt8:
    """Sides of 2000 px."""
    large = np.kron(noise_picture(100, 200), np.ones((2, 10, 1), np.uint8))
    return np.stack([np.roll(large, 9 * i, axis=1) for i in range(4)])


def _zoom() -> UInt8:
    """The middle of a picture, always the same number of pixels of a finer and finer grid."""
    picture = noise_picture(480, 640, finest_px=20)
    steps = [5 - 0.2 * i for i in range(10)]
    rows, columns = np.arange(-48, 48), np.arange(-64, 64)
    return np.stack([picture[(240 + s * rows).astype(int)[:, None], (320 + s * columns).astype(int)] for s in steps])


@pytest.mark.parametrize(
    "make", [_hard_cut, _mover_fills_the_frame, _gaps, _flashes, _white_noise, _huge, _zoom], ids=lambda f: f.__name__
)
def test_awkward_clips_have_one_outcome(make) -> None:  # pyright: ignore[reportMissingParameterType]
    frames = make()
    clip = clip_of(frames)
    assert detect_motion(clip).verdict in ("static", "rotating", "moving", "unclear")
    K = filmed(0, "static", num=1, height=64, width=96).path.K[0]
    found = find_cameras(follow_clip(clip), K, height=clip.height, width=clip.width)
    if found is not None:
        assert len(found.path) == len(found.is_found) == len(frames)
        assert found.sentence()
        assert 0 <= found.share <= 1


def test_black_frames_in_between_are_bridged() -> None:
    scene = filmed(0, "dolly")
    found = odometry(clip_of(_gaps(), FPS), scene.path)
    assert found is not None
    assert not found.is_found[6:9].any() or found.kind == "rotation"


def test_fast_turns_are_followed() -> None:
    """5 degrees a frame: what is seen is renewed every ten frames."""
    turns = np.radians(5) * np.arange(16)[:, None] * np.array([[0, 1.0, 0]])
    frames = turning(noise_picture(144, 216, finest_px=9), turns)
    scene = filmed(0, "static", num=16, height=144, width=216)
    found = odometry(clip_of(frames), scene.path)
    assert found is not None
    assert found.kind == "rotation"
    total = found.path.world_to_camera[-1, :3, :3]
    assert np.degrees(np.arccos((np.trace(total) - 1) / 2)) == pytest.approx(75, abs=1)


@pytest.mark.prove
@pytest.mark.parametrize("motion", list(VERDICTS))
def test_the_detector_is_right_in_other_scenes(motion: CameraMotion) -> None:
    found = [detect_motion(filmed(seed, motion, height=256, width=384).clip).verdict for seed in range(40, 52)]
    assert sum(one == VERDICTS[motion] for one in found) >= 11
