"""Which pixels are a subject: what moves by itself, and what stands out; a mask a frame, steady in time.

1. Evidence: where flow contradicts the camera (`subjects_motion`), or what the caller knows. Sky never moves.
2. Memory: what was a subject is carried along by flow and forgotten over some seconds, so that things that stop keep
   their mask.
3. A subject that clearly stands out from the rim of the picture is added, moving or not (`subjects_salience`).
4. Outlines follow the colours of the picture (`subjects_outline`).
5. They are averaged over a few frames along the flow.

Everything streams; about 30 frames of at most 384 px are held.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from ex4d.core.arrays import Bool, Float32, UInt8
from ex4d.core.camera import CameraPath
from ex4d.core.clip import Clip, iter_chunks
from ex4d.core.subject import SubjectMask
from ex4d.core.video import Video
from ex4d.depth.layout import is_sky, sky_share
from ex4d.depth.subjects_motion import MotionSearch, gaps, iter_motion
from ex4d.depth.subjects_outline import outline
from ex4d.depth.subjects_salience import find_salience
from ex4d.motion.flow import FlowEngine, follow, gray_frame, is_consistent, work_size

_HALF_LIFE_S = 6.0
_LEARNING = 0.5
_NEIGHBOR_WEIGHT = 0.6
_LOOK_AHEAD = 4


def iter_subjects(
    source: Clip[Video],
    *,
    cameras: CameraPath | None,
    subject: Clip[SubjectMask] | None = None,
    evidence: Iterator[Float32] | None = None,
) -> Iterator[Bool]:
    """Find what stands upright before the background.

    Args:
        source: any clip.
        cameras: one a frame; their turns are taken out of the motion (their shifts are not: parallax then looks like
            motion, unless `evidence` is given). None: the camera stands still, as it does where all are the same.
        subject: masks drawn by a user, which replace the search.
        evidence: float32 [h,w] a frame at `flow.work_size`, 0..1: how surely a pixel moves by itself; replaces the
            flow residual.

    Yields:
        bool [h,w] a frame at `flow.work_size`, True on subjects. Sky never is one.
    """
    size = work_size(source.height, source.width)
    if subject is not None:
        for _, chunk in iter_chunks(subject):
            for drawn in chunk.subject:
                small = cv2.resize(drawn.astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA)
                yield np.asarray(small > 0.5)
        return
    if evidence is None:
        turning = cameras if cameras is not None and _turns(cameras) else None
        evidence = iter_motion(source, MotionSearch(cameras=turning, size=size, gaps=gaps(source.timestamps_s)))
    yield from _steady(_outlined(source, size, evidence))


def _turns(cameras: CameraPath) -> bool:
    turned = np.abs(cameras.world_to_camera[:, :3, :3] - cameras.world_to_camera[0, :3, :3]).max() > 1e-6
    return bool(turned or (np.ptp(cameras.K, axis=0) > 0).any())


@dataclass(frozen=True, slots=True)
class _Link:
    """Flow between a frame and the one before it, and where it can be believed."""

    to_before: Float32  # [h,w,2]
    is_known: Bool  # [h,w]
    from_before: Float32
    is_known_before: Bool

    @staticmethod
    def of(engine: FlowEngine, before: UInt8, gray: UInt8) -> "_Link":
        to_before, from_before = engine.flow(gray, before), engine.flow(before, gray)
        known = is_consistent(to_before, from_before), is_consistent(from_before, to_before)
        return _Link(to_before, known[0], from_before, known[1])

    def forward(self, values: Float32) -> Float32:
        """Values [h,w] or [h,w,c] of the frame before, in this one; 0 where nothing is known."""
        return _carry(self.to_before, self.is_known, values)

    def backward(self, values: Float32) -> Float32:
        """Values of this frame in the one before."""
        return _carry(self.from_before, self.is_known_before, values)


def _carry(flow: Float32, is_known: Bool, values: Float32) -> Float32:
    carried = np.nan_to_num(follow(flow, values))
    carried[~is_known] = 0
    return carried


@dataclass(frozen=True, slots=True)
class _Outlined:
    """A frame's subject, not yet steady."""

    subject: Bool
    link: _Link | None  # to the frame before


def _outlined(source: Clip[Video], size: tuple[int, int], evidence: Iterator[Float32]) -> Iterator[_Outlined]:
    """Steps 1 to 4."""
    salience = find_salience(source)
    times = source.timestamps_s
    interval_s = float(times[-1] - times[0]) / max(len(times) - 1, 1)
    keep = np.float32(0.5 ** (interval_s / _HALF_LIFE_S))
    engine = FlowEngine()
    before: UInt8 | None = None
    memory = np.zeros(size, np.float32)
    for frame, moving in zip(_iter_frames(source), evidence, strict=True):
        gray = gray_frame(frame, size)
        link = None if before is None else _Link.of(engine, before, gray)
        rgb = _shrink(frame, size)
        moves = np.where(is_sky(rgb, sky_share(rgb)), np.float32(0), moving)
        memory = np.zeros(size, np.float32) if link is None else keep * link.forward(memory)
        likelihood = np.maximum(moves, memory)
        if salience is not None:
            likelihood = np.maximum(likelihood, salience.likelihood(frame, size))
        subject = outline(rgb, likelihood, memory > 0.5)
        # What is seen once is not remembered; what is not inside the outline is not carried on.
        memory += (1.0 if link is None else _LEARNING) * np.maximum(moves - memory, 0)
        memory[~subject] = 0
        before = gray
        yield _Outlined(subject, link)


def _steady(frames: Iterator[_Outlined]) -> Iterator[Bool]:
    """Step 5: a weighted vote of the frames before and of `_LOOK_AHEAD` frames after, along the flow."""
    waiting: deque[_Outlined] = deque()
    votes: Float32 | None = None
    for frame in frames:
        waiting.append(frame)
        if len(waiting) > _LOOK_AHEAD:
            votes = _past(waiting[0], votes)
            yield _decide(waiting, votes)
            waiting.popleft()
    while waiting:
        votes = _past(waiting[0], votes)
        yield _decide(waiting, votes)
        waiting.popleft()


def _own(frame: _Outlined) -> Float32:
    """float32 [h,w,2]: votes for a subject, and votes."""
    return np.stack([frame.subject, np.ones_like(frame.subject)], axis=-1).astype(np.float32)


def _past(frame: _Outlined, votes: Float32 | None) -> Float32:
    """Votes of a frame and of all before it."""
    if votes is None or frame.link is None:
        return _own(frame)
    return (_own(frame) + _NEIGHBOR_WEIGHT * frame.link.forward(votes)).astype(np.float32)


def _decide(waiting: deque[_Outlined], past: Float32) -> Bool:
    """The first waiting frame's mask, from the votes of its past and of the frames that wait behind it."""
    future = np.zeros_like(past)
    for frame in reversed(list(waiting)[1:]):
        assert frame.link is not None
        future = (_NEIGHBOR_WEIGHT * frame.link.backward(_own(frame) + future)).astype(np.float32)
    total = past + future
    return total[..., 0] > 0.5 * total[..., 1]


def _iter_frames(source: Clip[Video]) -> Iterator[UInt8]:
    for _, chunk in iter_chunks(source):
        yield from chunk.frames


def _shrink(frame: UInt8, size: tuple[int, int]) -> UInt8:
    return np.asarray(cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)
