"""Does the camera move? Always asked, and always answered with its evidence."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from ex4d.core.arrays import Float64, UInt8
from ex4d.core.camera import pinhole
from ex4d.core.clip import Clip
from ex4d.core.video import Video
from ex4d.motion.flow import FlowEngine, follow, gray_frame, is_consistent, texture, work_size
from ex4d.motion.tracks import MIN_TEXTURE
from ex4d.motion.two_view import INLIER_PX, relative_pose, rotation_between

Verdict = Literal["static", "rotating", "moving", "unclear"]

STATIC_PX = 0.6
"""A point that moved less did not move, px of pictures 384 wide."""
SHORT_S, LONG_S = 0.3, 1.5
_NUM_SPANS = 8
_GRID_PX = 6
_MIN_POINTS = 100
_LONG_SURVIVORS = 1 / 3
_STATIC_SHARE = 0.5
_ROTATING_SHARE = 0.75
_GUESSED_FOCAL_SHARE = 0.9
_RIM_SHARE = 0.2
_DRIFT_PX = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Two frames compared.

    Attributes:
        first: frame.
        second: a later frame.
        num_points: textured points that flow could follow there and back.
        motion_px: median length of their motion, px of pictures 384 wide.
        rim_px: the same in the outer fifth at the left, right and top, where the background is.
        static_share: share of points that did not move.
        rotation_share: share that a turn of the camera explains.
        rigid_share: share that a moved camera and a still scene explain.
        parallax_px: median motion that is left of the rigid points after the turn is taken out.
    """

    first: int
    second: int
    num_points: int
    motion_px: float = 0.0
    rim_px: float = 0.0
    static_share: float = 0.0
    rotation_share: float = 0.0
    rigid_share: float = 0.0
    parallax_px: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionReport:
    """What the detector found.

    Attributes:
        verdict: ``static``: most of the picture stands still; ``rotating``: it turns without parallax, or drifts by
            less than 3 px in 1.5 s at its rim, whatever a subject does inside; ``moving``: neither explains it, so the
            camera goes somewhere; ``unclear``: too few points to follow.
        short: spans of about 0.3 s.
        long: spans of about 1.5 s.
    """

    verdict: Verdict
    short: tuple[Span, ...]
    long: tuple[Span, ...]

    def sentence(self) -> str:
        """For people."""
        if not self.short:
            return "source camera: one frame, no motion to look for"
        spans = [span for span in self.short if span.num_points >= _MIN_POINTS]
        if self.verdict == "unclear":
            return "source camera: unclear, too little texture to follow"
        moved = float(np.median([span.motion_px for span in spans or self.long]))
        parallax = max((span.parallax_px for span in (*self.short, *self.long)), default=0.0)
        text = {"static": "stands still", "rotating": "turns on the spot", "moving": "moves"}[self.verdict]
        return f"source camera: {text} (points move {moved:.1f} px in {SHORT_S:g} s, parallax up to {parallax:.1f} px)"

    def as_dict(self) -> dict[str, Any]:
        """JSON types only."""
        return asdict(self)


def detect_motion(source: Clip[Video]) -> MotionReport:
    """Compare some frames of a clip with later ones: at most 32 frames are looked at, whatever its length.

    Args:
        source: any clip; one frame counts as static.
    """
    if source.num_frames < 2:
        return MotionReport(verdict="static", short=(), long=())
    engine = FlowEngine()
    size = work_size(source.height, source.width)

    def frame(index: int) -> UInt8:
        return gray_frame(source.read(index, index + 1).frames[0], size)

    found: list[tuple[Span, ...]] = []
    for seconds in (SHORT_S, LONG_S):
        pairs = _pairs(source.timestamps_s, seconds)
        found.append(tuple(compare(engine, frame(a), frame(b), first=a, second=b) for a, b in pairs))
    return MotionReport(verdict=_judge(*found), short=found[0], long=found[1])


def _pairs(timestamps_s: Float64, seconds: float) -> Iterator[tuple[int, int]]:
    """Frames about `seconds` apart, spread over the clip; the whole of a clip that is shorter."""
    num = len(timestamps_s)
    interval = (timestamps_s[-1] - timestamps_s[0]) / (num - 1)
    gap = min(max(1, round(seconds / interval)) if interval > 0 else 1, num - 1)
    for first in np.unique(np.linspace(0, num - 1 - gap, _NUM_SPANS).round().astype(int)):
        yield int(first), int(first) + gap


def compare(engine: FlowEngine, a: UInt8, b: UInt8, *, first: int = 0, second: int = 1) -> Span:
    """What moved between two gray frames uint8 [h,w]."""
    forward, backward = engine.flow(a, b), engine.flow(b, a)
    usable = is_consistent(forward, backward) & (texture(a) > MIN_TEXTURE)
    usable &= follow(forward, texture(b)) > MIN_TEXTURE  # flow into black finds back, but found nothing
    y, x = np.nonzero(usable[3:-3:_GRID_PX, 3:-3:_GRID_PX])
    y, x = 3 + _GRID_PX * y, 3 + _GRID_PX * x
    if len(x) < _MIN_POINTS:
        return Span(first=first, second=second, num_points=len(x))
    here = np.stack([x, y], axis=1).astype(np.float64) + 0.5
    there = (here + forward[y, x]).astype(np.float64)
    height, width = a.shape
    K = pinhole(focal_px=_GUESSED_FOCAL_SHARE * max(height, width), height=height, width=width)
    moved = np.linalg.norm(there - here, axis=1)
    rim = (np.abs(here[:, 0] / (width / 2) - 1) > 1 - 2 * _RIM_SHARE) | (here[:, 1] < _RIM_SHARE * height)
    _, left = rotation_between(here, there, K)
    pose = relative_pose(here, there, K)
    rigid = np.zeros(len(x), np.bool_) if pose is None else pose.inlier
    return Span(
        first=first,
        second=second,
        num_points=len(x),
        motion_px=float(np.median(moved)),
        rim_px=float(np.median(moved[rim] if rim.any() else moved)),
        static_share=float((moved < STATIC_PX).mean()),
        rotation_share=float((left < INLIER_PX).mean()),
        rigid_share=float(rigid.mean()),
        parallax_px=float(np.median(left[rigid])) if rigid.any() else 0.0,
    )


def _judge(short: tuple[Span, ...], long: tuple[Span, ...]) -> Verdict:
    """Short spans find shake, long ones slow drift; spans that lost sight of the scene do not count."""
    kept = [[span for span in spans if span.num_points >= _MIN_POINTS] for spans in (short, long)]
    if not any(kept):
        return "unclear"
    if kept[0]:  # after a fast turn, the few points that flow still matches are matched wrongly
        enough = _LONG_SURVIVORS * float(np.median([span.num_points for span in kept[0]]))
        kept[1] = [span for span in kept[1] if span.num_points >= enough]

    def typical(name: str, percentile: float) -> list[float]:
        found = [[getattr(span, name) for span in spans] for spans in kept if spans]
        return [float(np.percentile(values, percentile)) for values in found]

    # A quarter of the spans is enough: a camera may stand for most of the clip, and then go.
    if min(typical("static_share", 25)) >= _STATIC_SHARE:
        return "static"
    turns = min(typical("rotation_share", 25)) >= _ROTATING_SHARE or max(typical("rim_px", 75)) < _DRIFT_PX
    return "rotating" if turns else "moving"
