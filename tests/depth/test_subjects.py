"""Subjects: movers and what stands out are found, with outlines that stay; nothing else is."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np
import pytest

from ex4d.core.camera import CameraPath, pinhole, static_path
from ex4d.core.clip import ArrayClip
from ex4d.core.geometry import rotation_about
from ex4d.core.subject import SubjectMask
from ex4d.core.video import Video
from ex4d.depth.subjects import iter_subjects
from ex4d.depth.subjects_motion import gaps
from ex4d.depth.subjects_outline import outline, regions
from ex4d.depth.subjects_salience import find_salience
from ex4d.scene.clip import CameraMotion, SceneClip, scene_clip
from ex4d.scene.generate import make_scene

HEIGHT, WIDTH = 96, 144


def clip_of(frames: np.ndarray, fps: float = 15) -> ArrayClip[Video]:
    return ArrayClip(Video(frames=frames, timestamps_s=np.arange(len(frames)) / fps))


def texture(seed: int, height: int, width: int, *, sigma: float = 1.5) -> np.ndarray:
    """uint8 [h,w,3]: gray blots."""
    noise = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=(height, width)), (0, 0), sigma)
    gray = np.clip(120 + 40 * noise / noise.std(), 20, 220).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=2)


def disc(x: float, y: float, radius: float) -> np.ndarray:
    row, column = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.hypot(column - x, row - y) < radius


def drifting_disc(positions: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Frames of a dark disc before a still wall with dark sides (so it does not stand out), and its masks."""
    wall, paint = texture(0, HEIGHT, WIDTH), texture(1, HEIGHT, 3 * WIDTH) // 2
    wall[:, :12] = paint[:, :12]
    masks = np.stack([disc(x, 60, 16) for x in positions])
    frames = np.repeat(wall[None], len(positions), axis=0)
    for frame, mask, x in zip(frames, masks, positions, strict=True):
        frame[mask] = np.roll(paint, round(x), axis=1)[:, :WIDTH][mask]
    return frames, masks


def overlap(found: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union of all frames together."""
    return float((found & truth).sum() / max((found | truth).sum(), 1))


def search(frames: np.ndarray, cameras: CameraPath | None = None, fps: float = 15) -> np.ndarray:
    return np.stack(list(iter_subjects(clip_of(frames, fps), cameras=cameras)))


def filmed(seed: int, motion: CameraMotion) -> tuple[SceneClip, np.ndarray, np.ndarray]:
    """A scene, its frames, and where its movers are."""
    scene = make_scene(seed)
    clip = scene_clip(scene, num_frames=10, fps=15, height=160, width=240, camera_motion=motion)
    views = [clip.view(i) for i in range(10)]
    movers = np.stack([np.isin(view.object_id, scene.ids("mover")) for view in views])
    return clip, np.stack([view.rgb for view in views]), movers


def test_a_mover_before_a_still_camera() -> None:
    frames, truth = drifting_disc([40 + 2.0 * i for i in range(10)])
    found = search(frames)
    assert found.shape == truth.shape
    assert found.dtype == np.bool_
    assert overlap(found, truth) > 0.85
    assert min(overlap(a, b) for a, b in zip(found, truth, strict=True)) > 0.75


def test_a_still_path_is_a_still_camera() -> None:
    frames, _ = drifting_disc([40 + 2.0 * i for i in range(8)])
    K = pinhole(focal_px=100, height=HEIGHT, width=WIDTH)
    still = static_path(K=K, num_frames=8, height=HEIGHT, width=WIDTH)
    assert np.array_equal(search(frames, still), search(frames))


def test_the_same_clip_gives_the_same_masks() -> None:
    frames, _ = drifting_disc([50 + 1.5 * i for i in range(6)])
    first = search(frames)
    cv2.setRNGSeed(77)
    assert np.array_equal(search(frames), first)


def test_what_stops_keeps_its_mask() -> None:
    frames, truth = drifting_disc([40 + 2.0 * min(i, 9) for i in range(32)])
    assert find_salience(clip_of(frames)) is None
    found = search(frames)
    assert overlap(found[28:], truth[28:]) > 0.75  # it has stood for 1.3 s; nothing has moved within 0.4 s


def test_a_turning_camera_is_taken_out() -> None:
    frames, path, truth = filmed_turning(0.09)
    assert overlap(search(frames, path), truth) > 0.8
    assert overlap(search(frames), truth) < 0.4  # so the turn was not small


def filmed_turning(step_rad: float) -> tuple[np.ndarray, CameraPath, np.ndarray]:
    """Frames of a turning camera before which a gray disc drifts, its path, and the masks of the disc."""
    wall, K = texture(3, 300, 600), pinhole(focal_px=130, height=HEIGHT, width=WIDTH)
    matrices = np.repeat(np.eye(4)[None], 7, axis=0)
    matrices[:, :3, :3] = [
        rotation_about("y", step_rad * (i - 3)) @ rotation_about("z", step_rad / 2 * i) for i in range(7)
    ]
    from_corner = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]])
    on_wall = np.array([[1, 0, 230], [0, 1, 100], [0, 0, 1]])
    truth = np.stack([disc(60 + 3 * i, 60, 14) for i in range(7)])
    frames = np.empty((7, HEIGHT, WIDTH, 3), np.uint8)
    for frame, matrix, mask in zip(frames, matrices, truth, strict=True):
        carry = from_corner @ K @ matrix[:3, :3] @ np.linalg.inv(on_wall @ from_corner @ K)
        frame[:] = cv2.warpPerspective(wall, carry, (WIDTH, HEIGHT))
        frame[mask] = (70, 70, 70)
    path = CameraPath(
        K=np.repeat(K[None], 7, axis=0), world_to_camera=matrices, source_index=np.arange(7), height=HEIGHT,
        width=WIDTH,
    )  # fmt: skip
    return frames, path, truth


@pytest.mark.parametrize(("seed", "motion"), [(1, "static"), (5, "pan")])
def test_movers_of_scenes(seed: int, motion: CameraMotion) -> None:
    clip, frames, truth = filmed(seed, motion)
    found = search(frames, clip.path)
    assert (found & truth).sum() / truth.sum() > 0.75


def test_evidence_replaces_the_search() -> None:
    frames, moving = drifting_disc([40 + 2.0 * i for i in range(6)])
    frames[:, disc(110, 40, 14)] = (60, 60, 190)
    marked = np.repeat(disc(110, 40, 13)[None], 6, axis=0)
    found = np.stack(
        list(iter_subjects(clip_of(frames), cameras=None, evidence=(m.astype(np.float32) for m in marked)))
    )
    assert overlap(found, marked) > 0.8
    assert not (found & moving).any()


def test_a_drawn_mask_replaces_the_search() -> None:
    frames, _ = drifting_disc([40 + 2.0 * i for i in range(3)])
    large = np.repeat(np.repeat(frames, 4, axis=1), 4, axis=2)  # 576 px wide: searched at 384
    drawn = np.zeros(large.shape[:3], np.bool_)
    drawn[:, 120:240, 60:180] = True
    subject = ArrayClip(_mask(drawn))
    found = np.stack(list(iter_subjects(clip_of(large), cameras=None, subject=subject)))
    assert found.shape == (3, 256, 384)
    expected = np.zeros(found.shape, np.bool_)
    expected[:, 80:160, 40:120] = True
    assert np.array_equal(found, expected)


class _mask(SubjectMask):  # noqa: N801
    """A chunk that can be cut, as clips in memory need."""

    __slots__ = ()

    def __init__(self, subject: np.ndarray) -> None:
        super().__init__(subject=subject, timestamps_s=np.arange(len(subject)) / 15)

    @property
    def height(self) -> int:
        return self.subject.shape[1]

    @property
    def width(self) -> int:
        return self.subject.shape[2]

    def slice(self, start: int, stop: int) -> "_mask":
        return _mask(self.subject[start:stop])


def test_nothing_is_found_where_nothing_is() -> None:
    assert not search(np.repeat(texture(5, HEIGHT, WIDTH)[None], 4, axis=0)).any()
    assert not search(np.full((3, HEIGHT, WIDTH, 3), 90, np.uint8)).any()
    assert not search(np.full((1, 16, 16, 3), 90, np.uint8)).any()


def test_clouds_are_no_subject() -> None:
    frames = np.repeat(texture(6, HEIGHT, WIDTH)[None], 8, axis=0) // 2
    for i, frame in enumerate(frames):
        frame[:50] = (110, 165, 235)
        frame[disc(50 + 3 * i, 22, 10)] = (240, 243, 250)
    assert search(frames)[:, :46].mean() < 0.01


def test_what_stands_out_is_found_in_a_photo() -> None:
    photo = texture(7, HEIGHT, WIDTH, sigma=4)
    statue = np.zeros((HEIGHT, WIDTH), np.bool_)
    statue[30:80, 60:85] = True
    photo[statue] = (190, 60, 40)
    assert overlap(search(photo[None]), statue[None]) > 0.85


def test_what_hangs_or_has_the_colors_around_it_does_not_stand_out() -> None:
    picture = texture(7, HEIGHT, WIDTH, sigma=4)
    picture[10:40, 60:85] = (190, 60, 40)
    assert find_salience(clip_of(picture[None])) is None
    alike = texture(8, HEIGHT, WIDTH)
    alike[30:80, 60:85] = texture(9, HEIGHT, WIDTH)[30:80, 60:85]
    assert find_salience(clip_of(alike[None])) is None


def test_outline_follows_colors() -> None:
    frame, truth = drifting_disc([70])
    swollen = cv2.dilate(truth[0].astype(np.uint8), np.ones((11, 11), np.uint8)).astype(np.float32)
    nothing = np.zeros(truth[0].shape, np.bool_)
    cut = outline(frame[0], swollen, nothing)
    assert overlap(swollen > 0, truth[0]) < 0.65 < 0.95 < overlap(cut, truth[0])
    gray = texture(0, HEIGHT, WIDTH)  # no colour tells the region from the rest: at least it is not lost
    assert overlap(outline(gray, swollen, nothing), swollen > 0) > 0.3


def test_regions_are_sorted_and_specks_are_dropped() -> None:
    mask = disc(30, 30, 8) | disc(100, 60, 14)
    mask[90, 5:8] = True
    found = regions(mask)
    assert [region.sum() for region in found] == [disc(100, 60, 14).sum(), disc(30, 30, 8).sum()]


def test_gaps_follow_the_frame_rate() -> None:
    assert gaps(np.arange(50) / 30) == (3, 10)
    assert gaps(np.arange(50) / 10) == (1, 4)
    assert gaps(np.arange(3) / 30) == (2,)
    assert gaps(np.array([0.0])) == ()


@dataclass
class Watched:
    """A clip that notes which frames are read."""

    num_frames: int
    height: int = 32
    width: int = 48
    read_up_to: int = 0
    starts: list[int] = field(default_factory=list)

    @property
    def timestamps_s(self) -> np.ndarray:
        return np.arange(self.num_frames) / 30

    def read(self, start: int, stop: int) -> Video:
        if stop - start > 1:  # single frames are looks at the whole clip, before the search
            self.read_up_to = max(self.read_up_to, stop)
        base = texture(0, self.height, self.width)
        frames = np.stack([np.roll(base, i, axis=1) for i in range(start, stop)])
        return Video(frames=frames, timestamps_s=self.timestamps_s[start:stop])


def test_only_a_few_frames_ahead_are_read() -> None:
    source = Watched(num_frames=70)
    masks: Iterator[np.ndarray] = iter_subjects(source, cameras=None)
    for index in range(70):
        next(masks)
        assert source.read_up_to <= index + 32
    assert next(masks, None) is None
