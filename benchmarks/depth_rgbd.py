"""Depth estimators against measured and exact depth: what each makes of the pictures alone.

    python benchmarks/depth_rgbd.py [--sets 7scenes slambook procedural] [--methods constant ramp layout] [--verbose]

Each clip's estimate gets one scale (>= 0) and shift in disparity against the truth, robustly; sky is not measured.
AbsRel and δ1 are means over all known pixels of a clip, then over the clips of a set. ``order``: share of pixel pairs
across object borders that are put at least 3 % apart in the right order; ``sign``: in the right order at all (ties are
wrong); both pooled over a set. ``flicker``: by how much the same surface point jumps from frame to frame beyond its
true motion, % of its distance, mean over points, then clips. Definitions: src/ex4d/depth/measure.py.

Recordings are looked for under EX4D_SHARED or ../shared; without them their sets are skipped. Exits 1 where `builtin`
was measured and misses a goal.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np
from clip_geometry import clip_cameras, clip_geometry
from depth_data import MOTIONS, SEEDS, SETS, ProceduralSize, TruthClip, procedural, recordings

from ex4d.core.clip import Clip, iter_chunks
from ex4d.core.video import Video
from ex4d.depth.cards import CardPlacer
from ex4d.depth.cards_background import find_background
from ex4d.depth.estimator import EstimateRequest, SequentialDepth
from ex4d.depth.layout import LayoutEstimator
from ex4d.depth.measure import (
    BorderPairs,
    border_pairs,
    count_ordered,
    depth_errors,
    fit_clip,
    flicker_by_matches,
    lattice_step,
    raw_disparity,
)
from ex4d.depth.parallax import measure_parallax
from ex4d.depth.parallax_fusion import fuse_parallax
from ex4d.depth.subjects import iter_subjects
from ex4d.io.depth.clip import check_finite, nearest_index
from ex4d.io.depth.raw import RawDepthSource
from ex4d.motion.flow import work_size

Method = Callable[[Clip[Video]], RawDepthSource]

BASELINES = ("constant", "ramp", "layout")
GOAL_ABS_REL_7SCENES = 0.15
GOAL_SECONDS_A_FRAME = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One method on one clip, or on a set (means over its clips, borders pooled).

    Attributes:
        name: the clip or set.
        method: one of `METHODS`.
        abs_rel: mean |z / z_true − 1|.
        delta1: share of pixels within a factor of 1.25.
        num_pairs: pixel pairs across object borders.
        order: share of them ordered rightly by at least 3 %; None without pairs.
        sign: share ordered rightly by anything.
        flicker: mean |Δ log z − Δ log z_true|; None for single photos.
        seconds_a_frame: wall time from the clip in memory to the last depth map.
    """

    name: str
    method: str
    abs_rel: float
    delta1: float
    num_pairs: int
    order: float | None
    sign: float | None
    flicker: float | None
    seconds_a_frame: float


def constant(source: Clip[Video]) -> RawDepthSource:
    """A wall that faces the camera."""
    return _fixed(source, np.ones((source.height, source.width), np.float32))


def ramp(source: Clip[Video]) -> RawDepthSource:
    """Disparity grows evenly from the top row to the bottom row."""
    rows = ((np.arange(source.height) + 0.5) / source.height).astype(np.float32)
    return _fixed(source, np.repeat(rows[:, None], source.width, axis=1))


def _fixed(source: Clip[Video], disparity: np.ndarray) -> SequentialDepth:
    return SequentialDepth(
        num_frames=source.num_frames,
        height=source.height,
        width=source.width,
        timestamps_s=source.timestamps_s,
        chunks=((disparity[None], None) for _ in range(source.num_frames)),
        kind="disparity",
        scale="relative",
    )


def layout(source: Clip[Video]) -> RawDepthSource:
    """The layout preview."""
    return LayoutEstimator().estimate(source, EstimateRequest())


def parallax(source: Clip[Video]) -> RawDepthSource:
    """The parallax of `builtin` alone, continued where it measures nothing; a constant where the camera stands."""
    found = clip_cameras(source)
    if found.landmarks is None:
        return constant(source)
    frames = fuse_parallax(measure_parallax(source, found.path, found.landmarks), found.path)
    return _small(source, (frame.completed() for frame in frames))


def cards(source: Clip[Video]) -> RawDepthSource:
    """The cards of `builtin` alone: subjects on a background; parallax only says what moves."""
    return _small(source, _card_frames(source))


def _card_frames(source: Clip[Video]) -> Iterator[np.ndarray]:
    found = clip_cameras(source)
    evidence = None
    if found.landmarks is not None:
        evidence = (frame.moving for frame in measure_parallax(source, found.path, found.landmarks))
    background, placer = find_background(source), CardPlacer()
    for index, subject in enumerate(iter_subjects(source, cameras=found.path, evidence=evidence)):
        yield placer.place(subject, background.disparity(index), background.ground)


def builtin(source: Clip[Video]) -> RawDepthSource:
    """What ``--depth builtin`` gives: both, fused, at the clip's size."""
    chunk = clip_geometry(source, "builtin")[0].read(0, source.num_frames)
    return SequentialDepth(
        num_frames=source.num_frames,
        height=source.height,
        width=source.width,
        timestamps_s=source.timestamps_s,
        chunks=((depth[None], None) for depth in chunk.depth),
        kind="depth",
        scale="relative",
    )


def _small(source: Clip[Video], disparity: Iterator[np.ndarray]) -> SequentialDepth:
    """Disparity frames at working size."""
    height, width = work_size(source.height, source.width)
    return SequentialDepth(
        num_frames=source.num_frames,
        height=height,
        width=width,
        timestamps_s=source.timestamps_s,
        chunks=((frame[None], None) for frame in disparity),
        kind="disparity",
        scale="relative",
    )


METHODS: dict[str, Method] = {
    "constant": constant,
    "ramp": ramp,
    "layout": layout,
    "parallax": parallax,
    "cards": cards,
    "builtin": builtin,
}


def run_method(method: Method, clip: TruthClip) -> tuple[np.ndarray, float]:
    """Disparity float32 [T,H,W] at the truth's size (nearest sample, as in a run) and seconds a frame."""
    source, parts = clip.clip, []
    began = time.perf_counter()
    raw = method(source)
    for start, chunk in iter_chunks(raw):
        check_finite(chunk, start, allow_negative=raw.kind == "disparity")
        parts.append(raw_disparity(chunk.values, raw.kind, chunk.sky))
    seconds = (time.perf_counter() - began) / source.num_frames
    disparity = np.concatenate(parts)
    if disparity.shape[1:] != clip.depth.shape[1:]:
        rows = nearest_index(disparity.shape[1], clip.depth.shape[1])
        columns = nearest_index(disparity.shape[2], clip.depth.shape[2])
        disparity = disparity[:, rows[:, None], columns]
    return disparity, seconds


def fit_depth(disparity: np.ndarray, clip: TruthClip) -> np.ndarray:
    """Depth float32 [T,H,W] after the clip's one fit, from an even lattice of about 260 000 known pixels."""
    step = lattice_step(*clip.depth.shape)
    lattice = (slice(None), slice(step // 2, None, step), slice(step // 2, None, step))
    known = clip.known[lattice]
    farthest = float(clip.depth[clip.known].max())
    return fit_clip(disparity[lattice][known], clip.depth[lattice][known], farthest=farthest).depth(disparity)


def measure(name: str, clip: TruthClip, borders: Sequence[BorderPairs]) -> Row:
    """One method on one clip; borders: of each frame of the truth."""
    disparity, seconds = run_method(METHODS[name], clip)
    depth = fit_depth(disparity, clip)
    abs_rel, delta1 = depth_errors(depth[clip.known], clip.depth[clip.known])
    counts = np.array([count_ordered(frame, pairs) for frame, pairs in zip(depth, borders, strict=True)])
    num_pairs = sum(len(pairs.near) for pairs in borders)
    order, sign = (counts.sum(axis=0) / num_pairs).tolist() if num_pairs else (None, None)
    jumps = [
        flicker_by_matches(before, after, points, true_before=true_before, true_after=true_after)
        for (before, after), (true_before, true_after), points in zip(
            pairwise(depth), pairwise(clip.depth), clip.matches, strict=True
        )
    ]
    return Row(
        name=clip.name,
        method=name,
        abs_rel=abs_rel,
        delta1=delta1,
        num_pairs=num_pairs,
        order=order,
        sign=sign,
        flicker=float(np.concatenate(jumps).mean()) if jumps else None,
        seconds_a_frame=seconds,
    )


def summarize(name: str, rows: Sequence[Row]) -> Row:
    """A set from its clips, of one method."""
    num_pairs = sum(row.num_pairs for row in rows)
    flicker = [row.flicker for row in rows if row.flicker is not None]

    def pooled(key: str) -> float | None:
        return (
            sum(getattr(row, key) * row.num_pairs for row in rows if row.num_pairs) / num_pairs if num_pairs else None
        )

    return Row(
        name=name,
        method=rows[0].method,
        abs_rel=float(np.mean([row.abs_rel for row in rows])),
        delta1=float(np.mean([row.delta1 for row in rows])),
        num_pairs=num_pairs,
        order=pooled("order"),
        sign=pooled("sign"),
        flicker=float(np.mean(flicker)) if flicker else None,
        seconds_a_frame=float(np.mean([row.seconds_a_frame for row in rows])),
    )


HEADER = (
    f"{'':<24} {'method':<10} {'AbsRel':>7} {'δ1':>6} {'order':>6} {'sign':>6} {'flicker':>8} {'s/frame':>8}   pairs"
)


def format_row(row: Row) -> str:
    """One line under `HEADER`."""
    order, sign, flicker = (
        "–" if value is None else text.format(value)
        for value, text in ((row.order, "{:.3f}"), (row.sign, "{:.3f}"), (row.flicker, "{:.2%}"))
    )
    return (
        f"{row.name:<24} {row.method:<10} {row.abs_rel:>7.3f} {row.delta1:>6.3f} {order:>6} {sign:>6} {flicker:>8} "
        f"{row.seconds_a_frame:>8.3f} {row.num_pairs:>7}"
    )


def report_goals(summary: Sequence[Row]) -> bool:
    """Print every goal of `builtin` beside what was measured (slambook's photos set none); whether all are met."""
    found = {(row.name, row.method): row for row in summary}
    met = True
    for name in SETS:
        own = found.get((name, "builtin"))
        if own is None or name == "slambook":
            continue
        others = [found[name, method] for method in BASELINES if (name, method) in found]
        goals = [("s/frame", own.seconds_a_frame, "<=", GOAL_SECONDS_A_FRAME)]
        if name == "7scenes":
            goals.append(("AbsRel", own.abs_rel, "<=", GOAL_ABS_REL_7SCENES))
        goals += [(f"AbsRel, {row.method}'s", own.abs_rel, "<", row.abs_rel) for row in others]
        goals += [(f"order, {row.method}'s", own.order or 0.0, ">", row.order or 0.0) for row in others]
        for what, value, relation, goal in goals:
            ok = {"<=": value <= goal, "<": value < goal, ">": value > goal}[relation]
            met &= ok
            print(f"{name:<12} {what:<20} {value:6.3f} {relation:>2} {goal:6.3f}  {'met' if ok else 'MISSED'}")
    return met


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="procedural scenes")
    parser.add_argument("--motions", nargs="+", choices=MOTIONS, default=[], help="each seed with each; default: one")
    parser.add_argument("--frames", type=int, default=24, help="of a procedural clip")
    parser.add_argument("--width", type=int, default=384, help="of a procedural clip, px; the height is 2/3 of it")
    parser.add_argument("--verbose", action="store_true", help="a row a clip")
    parser.add_argument("--json", action="store_true", help="all rows as JSON instead of tables")
    return parser.parse_args(arguments)


def clips_of(name: str, args: argparse.Namespace) -> Iterator[TruthClip]:
    """The clips of a set."""
    if name != "procedural":
        return recordings(name)
    size = ProceduralSize(num_frames=args.frames, height=args.width * 2 // 3, width=args.width)
    return procedural(args.seeds, args.motions, size=size)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0 unless `builtin` misses a goal."""
    args = parse(arguments)
    rows: list[Row] = []
    summary: list[Row] = []
    for name in args.sets:
        of_set: list[Row] = []
        for clip in clips_of(name, args):
            borders = [border_pairs(depth, known) for depth, known in zip(clip.depth, clip.known, strict=True)]
            for method in args.methods:
                of_set.append(measure(method, clip, borders))
                if args.verbose and not args.json:
                    print(format_row(of_set[-1]), flush=True)
        if not of_set and not args.json:
            print(f"skipped: no recording of {name} (set EX4D_SHARED)")
        rows += of_set
        mine = ([row for row in of_set if row.method == method] for method in args.methods)
        summary += [summarize(name, part) for part in mine if part]
    if args.json:
        print(json.dumps({"sets": [asdict(row) for row in summary], "clips": [asdict(row) for row in rows]}, indent=1))
        return 0
    print("\n".join(["", HEADER, *map(format_row, summary)]))
    return 0 if report_goals(summary) else 1


if __name__ == "__main__":
    sys.exit(main())
