"""`--depth builtin`: depth without weights. Parallax where the camera moves, upright cards for what moves by itself.

Where the camera shifts, parallax measures what stands still; where it does not, a layout ramp stands in. On top of
either, subjects become cards at the depth of their feet: wrong in detail, with the real outlines that a mesh tears at.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ex4d.core.arrays import Bool, Float32
from ex4d.core.camera import CameraPath
from ex4d.core.clip import Clip
from ex4d.core.video import Video
from ex4d.depth.anchor import keyframes
from ex4d.depth.cards import CardPlacer
from ex4d.depth.cards_background import find_background
from ex4d.depth.edge_aware import complete
from ex4d.depth.estimator import EstimateRequest, Readiness, SequentialDepth
from ex4d.depth.parallax import ParallaxFrame, measure_parallax
from ex4d.depth.parallax_fusion import fuse_parallax
from ex4d.depth.subjects import iter_subjects
from ex4d.depth.subjects_outline import regions
from ex4d.motion.flow import work_size
from ex4d.motion.landmarks import Landmarks

BUILTIN_NOTICE = (
    "PREVIEW DEPTH: made without a network, from {what}. For better depth: --depth FILE, or "
    "`ex4d weights pull vda-small` once."
)
_MEASURED = 0.6
"""Share of a subject where parallax is sure of itself from which on it is not replaced by a card."""
_SURE = 0.15
"""Relative error of the disparity up to which parallax is sure of itself."""
_FARTHEST = 3.0
"""Nothing but sky lies farther than this many times the farthest landmark."""
_SKY_FACTOR = 4.0
_FAR_PERCENTILE = 98
_MIN_LANDMARKS = 60


@dataclass(frozen=True, slots=True)
class BuiltinEstimator:
    """Satisfies `DepthEstimator`; always ready."""

    name: str = "builtin"
    version: str = "1"
    licence: str = "Apache-2.0"
    purpose: str = "parallax of a moving camera, and upright cards; no download"
    weights: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    is_preview: bool = True
    is_instant: bool = False
    brings_cameras: bool = False

    def ready(self) -> Readiness:
        """Nothing is needed."""
        return Readiness(ready=True)

    def estimate(self, source: Clip[Video], request: EstimateRequest) -> SequentialDepth:
        """Depth in the unit of ``request.cameras`` where they shift, else in an unknown unit.

        Args:
            source: the clip, any size.
            request: `cameras` and `landmarks` decide whether parallax is used; `subject` replaces the search for
                subjects.
        """
        path, landmarks = request.cameras, request.landmarks
        height, width = work_size(source.height, source.width)
        measured = path is not None and landmarks is not None and len(landmarks.points) >= _MIN_LANDMARKS
        if path is not None and landmarks is not None and measured:
            frames = _with_parallax(source, request, path, landmarks)
            what = "the parallax of the moving camera, with upright cards for what moves by itself"
        else:
            frames = _with_ramp(source, request)
            what = "a generic layout (ground, walls, sky), with upright cards for what moves or stands out"
        return SequentialDepth(
            num_frames=source.num_frames,
            height=height,
            width=width,
            timestamps_s=source.timestamps_s,
            chunks=_counted(frames, request),
            kind="depth",
            scale="metric" if measured and request.cameras_metric else "relative",
            description=f"built-in depth: {what}",
            notices=(BUILTIN_NOTICE.format(what=what),),
        )


def _counted(frames: Iterator[Float32], request: EstimateRequest) -> Iterator[tuple[Float32, Bool | None]]:
    """Disparity as depth, one frame at a time."""
    for disparity in frames:
        request.advance(1)
        yield (1 / disparity)[None].astype(np.float32), None


def _with_ramp(source: Clip[Video], request: EstimateRequest) -> Iterator[Float32]:
    """Disparity float32 [h,w] of every frame: the layout, and cards on it."""
    background = find_background(source)
    placer = CardPlacer()
    for index, subject in enumerate(iter_subjects(source, cameras=request.cameras, subject=request.subject)):
        ramp = background.disparity(index)
        yield placer.place(subject, ramp, background.ground)


def _with_parallax(
    source: Clip[Video], request: EstimateRequest, path: CameraPath, landmarks: Landmarks
) -> Iterator[Float32]:
    """Disparity float32 [h,w] of every frame: parallax, and cards on what it cannot measure."""
    farthest = 1 / (_FARTHEST * _far_depth(landmarks, source.num_frames))
    background = find_background(source)
    placer = CardPlacer()
    for index, (frame, subject) in enumerate(_with_subjects(source, request, path, landmarks)):
        yield _compose(frame, subject, placer, farthest=farthest, sky=background.sky(index))


def _with_subjects(
    source: Clip[Video], request: EstimateRequest, path: CameraPath, landmarks: Landmarks
) -> Iterator[tuple[ParallaxFrame, Bool]]:
    """Every frame's parallax with its subject; the search looks a few frames ahead, which wait here."""
    frames = fuse_parallax(measure_parallax(source, path, landmarks), path)
    if request.subject is not None:
        yield from zip(frames, iter_subjects(source, cameras=path, subject=request.subject), strict=True)
        return
    waiting: deque[ParallaxFrame] = deque()

    def evidence() -> Iterator[Float32]:
        for frame in frames:
            waiting.append(frame)
            yield frame.moving

    for subject in iter_subjects(source, cameras=path, evidence=evidence()):
        yield waiting.popleft(), subject


def _far_depth(landmarks: Landmarks, num_frames: int) -> float:
    """Depth that few landmarks lie beyond."""
    depths = np.concatenate([landmarks.seen(frame)[1] for frame in keyframes(num_frames)])
    return float(np.percentile(depths, _FAR_PERCENTILE))


def _compose(frame: ParallaxFrame, subject: Bool, placer: CardPlacer, *, farthest: float, sky: Bool) -> Float32:
    """Disparity float32 [h,w] > 0: measured where parallax is sure, continued elsewhere, cards where things move."""
    weight = frame.weight
    sure = weight >= 1 / _SURE**2
    cards = np.zeros_like(subject)
    for region in regions(subject):
        if sure[region].mean() < _MEASURED:
            cards |= region
    dense = np.maximum(complete(frame.disparity, np.where(cards, 0, weight), frame.gray), np.float32(farthest))
    dense[sky & ~sure] = farthest / _SKY_FACTOR
    return placer.place(cards, dense, dense)
