"""What is found out about the source camera from pictures alone, against the truth.

    python benchmarks/motion.py [--sets procedural 7scenes clips] [--seeds 20]

``procedural``: rooms and outdoor places that nothing was tuned on (seeds 200 and up), each filmed by a camera that
stands, pans, shakes and dollies; 24 frames of 384×256 at 15 a second, with things that move by themselves.
``7scenes``: 49 real frames with true cameras; ``clips``: real clips, about which nothing is known.

Detector: verdict a clip; a static camera must be ``static``, a pan ``rotating``, the others ``moving``. Odometry is
told the true K, where there is one. For frames that lie a gap apart: the angle between found and true relative
rotation, and between found and true direction of the shift, where the true shift is at least 2 cm; median and 90th
percentile over all pairs of all clips. Where turns only were found there is no direction. ``f/side``: focal length over
the longer side, from the two-view sweep.

Recordings are looked for under EX4D_SHARED or ../shared; without them their sets are skipped. Exits 1 where the
detector is wrong on more than one clip in twenty, or takes a static camera for a moving one.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from depth_data import FPS, MOTIONS, ProceduralSize, shared_folder

from ex4d.core.arrays import Float64
from ex4d.core.camera import CameraPath, pinhole
from ex4d.core.clip import ArrayClip, Clip
from ex4d.core.video import Video
from ex4d.io.rgbd.folder import open_rgbd
from ex4d.io.video import VideoReader, VideoSelection
from ex4d.motion.detector import detect_motion
from ex4d.motion.focal import sweep_focal
from ex4d.motion.odometry import Odometry, find_cameras, follow_clip
from ex4d.motion.tracks import Tracks
from ex4d.scene.clip import CameraMotion, scene_clip
from ex4d.scene.generate import make_scene

SETS = ("procedural", "7scenes", "clips")
FIRST_SEED = 200
GAPS = (1, 5, 15)
RIGHT: dict[CameraMotion, str] = {"static": "static", "pan": "rotating", "handheld": "moving", "dolly": "moving"}
GOAL_WRONG_SHARE = 0.05
_MIN_SHIFT_M = 0.02
_MAX_FRAMES = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One clip.

    Attributes:
        name: of the clip.
        verdict: the detector's.
        kind: ``full``, ``rotation`` or ``-``.
        share: of the points, fits a still scene.
        focal: found focal length over the longer side, or None.
        true_focal: the true one, or None.
        turns_deg: errors of relative rotations, for each gap.
        directions_deg: errors of the directions of shifts, for each gap.
    """

    name: str
    verdict: str
    kind: str
    share: float
    focal: float | None
    true_focal: float | None
    turns_deg: dict[int, Float64]
    directions_deg: dict[int, Float64]


def look_at(name: str, clip: Clip[Video], truth: CameraPath | None) -> Row:
    """Detector, sweep and odometry on one clip."""
    verdict = detect_motion(clip).verdict
    tracks = follow_clip(clip)
    focal = sweep_focal(tracks) if verdict == "moving" else None
    found = _cameras(clip, tracks, truth, focal=focal, verdict=verdict)
    turns, directions = ({}, {}) if truth is None or found is None else _errors(found, truth)
    return Row(
        name=name,
        verdict=verdict,
        kind="-" if found is None else found.kind,
        share=0.0 if found is None else found.share,
        focal=focal,
        true_focal=None if truth is None else float(truth.K[0, 0, 0]) / max(clip.height, clip.width),
        turns_deg=turns,
        directions_deg=directions,
    )


def _cameras(
    clip: Clip[Video], tracks: Tracks, truth: CameraPath | None, *, focal: float | None, verdict: str
) -> Odometry | None:
    size = {"height": clip.height, "width": clip.width}
    K = truth.K[0] if truth is not None else pinhole(focal_px=(focal or 0.9) * max(clip.height, clip.width), **size)
    return find_cameras(tracks, K, may_shift=verdict == "moving", **size)


def _errors(found: Odometry, truth: CameraPath) -> tuple[dict[int, Float64], dict[int, Float64]]:
    """Degrees, for each gap: of rotations, of directions."""
    turns: dict[int, Float64] = {}
    directions: dict[int, Float64] = {}
    for gap in GAPS:
        (turn, shift), (true_turn, true_shift) = (_relative(path, gap) for path in (found.path, truth))
        cosine = (np.trace(turn @ np.swapaxes(true_turn, 1, 2), axis1=1, axis2=2) - 1) / 2
        turns[gap] = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        far = np.linalg.norm(true_shift, axis=1) >= _MIN_SHIFT_M
        if found.kind == "full" and far.any():
            a, b = shift[far], true_shift[far]
            length = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
            directions[gap] = np.degrees(np.arccos(np.clip((a * b).sum(axis=1) / np.maximum(length, 1e-12), -1, 1)))
    return turns, directions


def _relative(path: CameraPath, gap: int) -> tuple[Float64, Float64]:
    """Rotations [n,3,3] and shifts [n,3] from each frame's camera to that `gap` frames later."""
    a, b = path.world_to_camera[:-gap], path.world_to_camera[gap:]
    turn = b[:, :3, :3] @ np.swapaxes(a[:, :3, :3], 1, 2)
    return turn, b[:, :3, 3] - (turn @ a[:, :3, 3, None])[..., 0]


def procedural(num_seeds: int) -> Iterator[tuple[CameraMotion, Row]]:
    """Every motion in every scene, rendered now."""
    size = ProceduralSize()
    for seed in range(FIRST_SEED, FIRST_SEED + num_seeds):
        scene = make_scene(seed)
        for motion in MOTIONS:
            clip = scene_clip(
                scene, num_frames=size.num_frames, fps=FPS, height=size.height, width=size.width, camera_motion=motion
            )
            smooth = replace(clip, supersample=2)  # as smooth as a camera's pictures
            video = ArrayClip(smooth.read(0, size.num_frames))
            yield motion, look_at(f"{seed} {scene.kind} {motion}", video, clip.path)


def seven_scenes() -> Iterator[Row]:
    """The red kitchen, where it is on this machine."""
    folder = shared_folder() / "clips/rgbd/7scenes_redkitchen"
    if folder.is_dir():
        data = open_rgbd(folder)
        yield look_at("7scenes redkitchen", data.video, data.path)


def real_clips() -> Iterator[Row]:
    """The first 120 frames of each."""
    for path in sorted((shared_folder() / "clips").glob("*.mp4")):
        yield look_at(path.stem, _read(path), None)


def _read(path: Path) -> Clip[Video]:
    with VideoReader(path, selection=VideoSelection(frames=(0, _MAX_FRAMES), max_side=640)) as reader:
        chunks = list(reader)
    frames = np.concatenate([chunk.frames for chunk in chunks])
    return ArrayClip(Video(frames=frames, timestamps_s=np.concatenate([chunk.timestamps_s for chunk in chunks])))


def print_verdicts(rows: list[tuple[CameraMotion, Row]]) -> bool:
    """The detector on procedural scenes; True where the goal is met."""
    names = ("static", "rotating", "moving", "unclear")
    print(f"\n{'camera':<10}" + "".join(f"{name:>10}" for name in names) + f"{'wrong':>10}")
    wrong = 0
    for motion in MOTIONS:
        verdicts = [row.verdict for which, row in rows if which == motion]
        missed = sum(verdict != RIGHT[motion] for verdict in verdicts)
        wrong += missed
        counts = "".join(f"{verdicts.count(name):>10}" for name in names)
        print(f"{motion:<10}{counts}{missed / len(verdicts):>10.1%}")
    alarms = sum(row.verdict != "static" for which, row in rows if which == "static")
    print(f"{'all':<10}{'':>40}{wrong / len(rows):>10.1%}")
    return wrong <= GOAL_WRONG_SHARE * len(rows) and not alarms


def print_errors(rows: list[tuple[str, Row]]) -> None:
    """Odometry by kind of clip."""
    print(
        f"\n{'cameras':<12}{'clips':>6}{'full':>6}{'turns':>6}{'none':>6}{'gap':>5}  rotation, deg      direction, deg"
    )
    for name in dict.fromkeys(which for which, _ in rows):
        chosen = [row for which, row in rows if which == name]
        kinds = "".join(f"{sum(row.kind == kind for row in chosen):>6}" for kind in ("full", "rotation", "-"))
        head = f"{name:<12}{len(chosen):>6}{kinds}"
        for gap in GAPS:
            turns = _spread([row.turns_deg[gap] for row in chosen if gap in row.turns_deg])
            directions = _spread([row.directions_deg[gap] for row in chosen if gap in row.directions_deg])
            print(f"{head:<36}{gap:>5}  {turns:<19}{directions}")
            head = ""


def _spread(parts: list[Float64]) -> str:
    """Median and 90th percentile."""
    if not parts:
        return "-"
    middle, high = np.percentile(np.concatenate(parts), (50, 90))
    return f"{middle:5.2f} (90%: {high:.2f})"


def print_focals(rows: list[tuple[str, Row]]) -> None:
    """The sweep on moving cameras."""
    print(f"\n{'focal length':<14}{'clips':>6}{'found':>6}  median error, worst")
    for name in dict.fromkeys(which for which, _ in rows):
        moving = [row for which, row in rows if which == name and row.verdict == "moving" and row.true_focal]
        errors = [abs(row.focal / row.true_focal - 1) for row in moving if row.focal and row.true_focal]
        worst = f"{np.median(errors):>8.1%} {max(errors):>8.1%}" if errors else "-"
        print(f"{name:<14}{len(moving):>6}{len(errors):>6}  {worst}")


def print_clip(row: Row) -> None:
    """One line a clip."""
    focal = "-" if row.focal is None else f"{row.focal:.2f}"
    true_focal = "" if row.true_focal is None else f" (true {row.true_focal:.2f})"
    print(f"{row.name:<26}{row.verdict:<10}{row.kind:<10}{row.share:>5.0%}  f/side {focal}{true_focal}", flush=True)


def main() -> int:
    """Run from the command line; 0 where the detector's goals are met."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--seeds", type=int, default=20, help="procedural scenes, four clips each")
    options = parser.parse_args()
    rows: list[tuple[CameraMotion, Row]] = []
    others: list[tuple[str, Row]] = []
    print(f"{'clip':<26}{'verdict':<10}{'cameras':<10}{'fits':>5}")
    if "procedural" in options.sets:
        for motion, row in procedural(options.seeds):
            rows.append((motion, row))
            print_clip(row)
    for name, source in (("7scenes", seven_scenes), ("clips", real_clips)):
        for row in source() if name in options.sets else ():
            print_clip(row)
            others += [(name, row)] if row.true_focal else []
    is_good = print_verdicts(rows) if rows else True
    print_errors([*rows, *others])
    print_focals([*rows, *others])
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
