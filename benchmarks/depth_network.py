"""The gate of a small video depth network: trained on procedural scenes only, judged against `builtin`.

    python benchmarks/depth_network.py make FOLDER --seeds 1000 1240    # training clips, about 6 s each
    python benchmarks/depth_network.py train FOLDER --minutes 30        # writes FOLDER/network.pt
    python benchmarks/depth_network.py judge FOLDER [--sets procedural 7scenes 7scenes-photos] [--seeds 100 ...]

The network corrects `builtin`: it sees the picture, its neighbours' gray, parallax and its confidence, what moves, and
`builtin`'s disparity, and puts out what to add to the log of the latter; where parallax is sure, little or nothing.
It passes if it is better than `builtin` on procedural scenes of held-out seeds in ``order`` and in ``AbsRel``, and not
worse in AbsRel on 7-Scenes, as a clip and as single photos (where nothing but the picture helps); exits 1 otherwise.
``network-still`` is the same network on clips without parallax only. Columns: see depth_rgbd.py. Training uses a GPU
where there is one.
"""

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import depth_rgbd
import numpy as np
import torch
from clip_geometry import clip_geometry
from depth_data import MOTIONS, SEEDS, SETS, ProceduralSize, TruthClip, procedural, recordings
from depth_network_data import FIRST_SEED, NUM_FRAMES, NetworkInput, make_training_clip, network_input
from depth_network_training import DepthNetwork, stack, train
from torch import nn
from torch.nn import functional

from ex4d.core.arrays import Float32
from ex4d.core.clip import Clip
from ex4d.core.video import Video
from ex4d.depth.estimator import SequentialDepth
from ex4d.depth.measure import border_pairs
from ex4d.io.atomic import atomic_path

METHODS = ("builtin", "network", "network-still")
PHOTOS = "7scenes-photos"
"""Every fifth frame of 7-Scenes as a clip of its own, where no parallax helps."""
_SETS = (*SETS, PHOTOS)
_CHUNK = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Exam:
    """A clip with truth, and what the product finds in its pictures alone.

    Attributes:
        clip: the truth.
        base: float32 [T,H,W], `builtin`'s disparity.
        seen: what the network gets.
        base_s: seconds a frame that cameras and `builtin` took.
    """

    clip: TruthClip
    base: Float32
    seen: NetworkInput
    base_s: float


def prepare(clip: TruthClip, folder: Path) -> Exam:
    """Run the chain on a clip, once: kept in ``folder/judge``."""
    kept = folder / "judge" / f"{clip.name.replace(' ', '-')}.npz"
    if not kept.is_file():
        base, seen, seconds = look(clip.clip)
        kept.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(kept) as temporary:
            np.savez(temporary, base=base, rgb=seen.rgb, maps=seen.maps, gap=seen.gap, seconds=seconds)
    with np.load(kept) as stored:
        seen = NetworkInput(rgb=stored["rgb"], maps=stored["maps"], gap=int(stored["gap"]))
        return Exam(clip=clip, base=stored["base"], seen=seen, base_s=float(stored["seconds"]))


def look(source: Clip[Video]) -> tuple[Float32, NetworkInput, float]:
    """`builtin`'s disparity float32 [T,H,W], the network's input, and seconds a frame of the former."""
    began = time.perf_counter()
    depth, _, cameras = clip_geometry(source, "builtin")
    seconds = (time.perf_counter() - began) / source.num_frames
    base = np.reciprocal(depth.read(0, source.num_frames).depth, dtype=np.float32)
    landmarks = cameras.landmarks
    # Both in the unit of the cameras as they were found, not as they were scaled to the depth.
    return base, network_input(source, base, None if landmarks is None else cameras.path, landmarks), seconds


def correct(network: nn.Module, base: Float32, seen: NetworkInput) -> Float32:
    """Disparity float32 [T,H,W] of the network, of the same T,H,W as `builtin`'s ``base``."""
    index = np.arange(len(base))
    times = [np.clip(index + step, 0, len(base) - 1) for step in (0, -seen.gap, seen.gap)]
    rgb = torch.from_numpy(np.stack([seen.rgb[t] for t in times]).transpose(0, 1, 4, 2, 3) / np.float32(255))
    maps = torch.from_numpy(seen.maps.astype(np.float32))
    parts: list[Float32] = []
    with torch.no_grad():
        for start in range(0, len(base), _CHUNK):
            part = slice(start, start + _CHUNK)
            log = network(stack(rgb[0, part], rgb[1, part], rgb[2, part], maps[part]))
            full = functional.interpolate(log[:, None], base.shape[1:], mode="bilinear", align_corners=False)[:, 0]
            parts.append(base[part] * np.exp(full.numpy()))
    return np.concatenate(parts)


def judge(network: nn.Module, exams: Iterable[Exam]) -> list[depth_rgbd.Row]:
    """A row of each of `METHODS` for every clip."""
    rows: list[depth_rgbd.Row] = []
    for exam in exams:
        clip = exam.clip
        borders = [border_pairs(depth, known) for depth, known in zip(clip.depth, clip.known, strict=True)]
        began = time.perf_counter()
        corrected = correct(network, exam.base, exam.seen)
        still = corrected if not exam.seen.maps[:, 1].any() else exam.base
        extra_s = (time.perf_counter() - began) / len(exam.base)
        for name, disparity in zip(METHODS, (exam.base, corrected, still), strict=True):
            with patch.dict(depth_rgbd.METHODS, {name: lambda source, found=disparity: _found(source, found)}):
                row = depth_rgbd.measure(name, clip, borders)
            rows.append(replace(row, seconds_a_frame=exam.base_s + (0 if name == "builtin" else extra_s)))
    return rows


def _found(source: Clip[Video], disparity: Float32) -> SequentialDepth:
    return SequentialDepth(
        num_frames=source.num_frames,
        height=disparity.shape[1],
        width=disparity.shape[2],
        timestamps_s=source.timestamps_s,
        chunks=iter([(disparity, None)]),
        kind="disparity",
        scale="relative",
    )


def report(rows: Sequence[depth_rgbd.Row], name: str) -> dict[str, depth_rgbd.Row]:
    """Print a set by kind of motion and as a whole; the summary by method."""
    summary: dict[str, depth_rgbd.Row] = {}
    for method in METHODS:
        mine = [row for row in rows if row.method == method]
        if not mine:
            continue
        for motion in MOTIONS:
            part = [row for row in mine if row.name.endswith(f" {motion}")]
            if part:
                print(depth_rgbd.format_row(depth_rgbd.summarize(f"{name}, {motion}", part)))
        summary[method] = depth_rgbd.summarize(name, mine)
        print(depth_rgbd.format_row(summary[method]), flush=True)
    return summary


def passes(found: dict[str, dict[str, depth_rgbd.Row]], candidate: str) -> bool:
    """Print the gate's conditions for one of `METHODS`; whether all hold. A set that was not measured fails."""
    passed = True
    for name, key, sign in (
        ("procedural", "order", -1),
        ("procedural", "abs_rel", 1),
        ("7scenes", "abs_rel", 1),
        (PHOTOS, "abs_rel", 1),
    ):
        if name not in found:
            print(f"gate, {candidate}: {name} {key} not measured")
            passed = False
            continue
        own, other = (float(getattr(found[name][method], key) or 0) for method in (candidate, "builtin"))
        ok = sign * own < sign * other or (name != "procedural" and own == other)
        print(f"gate, {candidate}: {name} {key} {own:.4f}, builtin {other:.4f}: {'met' if ok else 'MISSED'}")
        passed &= ok
    return passed


def clips_of(name: str, args: argparse.Namespace) -> Iterator[TruthClip]:
    """The clips of a set."""
    if name == PHOTOS:
        return (photo for clip in recordings("7scenes") for photo in _photos(clip))
    if name != "procedural":
        return recordings(name)
    size = ProceduralSize(num_frames=args.frames, height=args.width * 2 // 3, width=args.width)
    return procedural(args.seeds, args.motions, size=size)


def _photos(clip: TruthClip) -> Iterator[TruthClip]:
    for index in range(0, len(clip.depth), 5):
        one = slice(index, index + 1)
        video = Video(frames=clip.video.frames[one], timestamps_s=clip.video.timestamps_s[one])
        name = f"{clip.name} photo {index}"
        yield replace(clip, name=name, video=video, depth=clip.depth[one], known=clip.known[one], matches=())


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("make", "train", "judge"))
    parser.add_argument("folder", type=Path, help="of training clips and the network")
    parser.add_argument("--seeds", type=int, nargs="+", default=None, help="make: first and last + 1; judge: all")
    parser.add_argument("--minutes", type=float, default=30, help="train: wall time")
    parser.add_argument("--steps", type=int, default=None, help="train: at most")
    parser.add_argument("--start", type=Path, default=None, help="train: weights to go on from")
    parser.add_argument("--checkpoint", default="network.pt", help="judge: which file of the folder")
    parser.add_argument("--sets", nargs="+", choices=_SETS, default=list(_SETS))
    parser.add_argument("--motions", nargs="+", choices=MOTIONS, default=[], help="each seed with each; default: one")
    parser.add_argument("--frames", type=int, default=None, help="of a procedural clip; default 8 and 24")
    parser.add_argument("--width", type=int, default=384, help="of a procedural clip, px; the height is 2/3 of it")
    args = parser.parse_args(arguments)
    args.seeds = args.seeds or ([FIRST_SEED, FIRST_SEED + 240] if args.what == "make" else list(SEEDS))
    args.frames = args.frames or (NUM_FRAMES if args.what == "make" else ProceduralSize().num_frames)
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    """Make clips, train or judge; 1 where the gate is not passed."""
    args = parse(arguments)
    if args.what == "make":
        args.folder.mkdir(parents=True, exist_ok=True)
        for seed in range(args.seeds[0], args.seeds[-1]):
            print(make_training_clip(seed, args.folder, num_frames=args.frames, width=args.width), flush=True)
        return 0
    if args.what == "train":
        train(args.folder, minutes=args.minutes, steps=args.steps, start=args.start)
        return 0
    network = DepthNetwork().eval()
    network.load_state_dict(torch.load(args.folder / args.checkpoint, map_location="cpu", weights_only=True))
    found: dict[str, dict[str, depth_rgbd.Row]] = {}
    print(depth_rgbd.HEADER)
    for name in args.sets:
        rows = judge(network, (prepare(clip, args.folder) for clip in clips_of(name, args)))
        if rows:
            found[name] = report(rows, name)
        else:
            print(f"skipped: no recording of {name} (set EX4D_SHARED)")
    verdicts = [passes(found, candidate) for candidate in METHODS[1:]]
    return 0 if any(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
