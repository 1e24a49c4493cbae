"""Clips with exact or measured depth that depth estimators are judged on; read whole, one at a time.

- ``7scenes``: 49 frames of a real room, measured depth and cameras, nothing in it moves.
- ``slambook``: three real photos, each a clip of one frame.
- ``procedural``: rooms and outdoor places that nothing was tuned on (seeds 100 and up), with moving objects, filmed by
  cameras that stand, pan, shake and dolly; rendered once and kept in the cache folder.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import ex4d.scene
from ex4d.core.arrays import Bool, Float32, Float64, Int32, UInt8
from ex4d.core.camera import Camera
from ex4d.core.clip import ArrayClip
from ex4d.core.geometry import pixel_centers, unproject
from ex4d.core.video import Video
from ex4d.depth.measure import PointMatches, lattice_step, match_points
from ex4d.io.atomic import atomic_path
from ex4d.io.rgbd.folder import RgbdInput, open_rgbd
from ex4d.scene.clip import CameraMotion, SceneClip, scene_clip
from ex4d.scene.generate import make_scene
from ex4d.scene.model import Scene
from ex4d.weights.folders import cache_root

SETS = ("7scenes", "slambook", "procedural")
SEEDS = tuple(range(100, 108))
MOTIONS: tuple[CameraMotion, ...] = ("static", "pan", "handheld", "dolly")
FPS = 15.0
_MATCHES_A_FRAME = 1 << 14


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthClip:
    """A clip and what is known about it.

    Attributes:
        name: of the clip.
        video: all frames; estimators see nothing else.
        depth: float32 [T,H,W], metres, > 0 where `known`.
        known: bool [T,H,W]; False on the sky and where a sensor saw nothing.
        matches: T − 1 sets of the same surface points in frames t and t + 1; empty where cameras are not known.
    """

    name: str
    video: Video
    depth: Float32
    known: Bool
    matches: tuple[PointMatches, ...]

    @property
    def clip(self) -> ArrayClip[Video]:
        return ArrayClip(self.video)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProceduralSize:
    """How procedural scenes are filmed; 15 frames a second."""

    num_frames: int = 24
    height: int = 256
    width: int = 384


def shared_folder() -> Path:
    """Where recordings are looked for: EX4D_SHARED, else ../shared."""
    return Path(os.environ.get("EX4D_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def recordings(name: str) -> Iterator[TruthClip]:
    """The clips of ``7scenes`` or ``slambook``; nothing where the recording is not on this machine."""
    folder = shared_folder() / "clips/rgbd" / {"7scenes": "7scenes_redkitchen", "slambook": "slambook2_ch5"}[name]
    if not folder.is_dir():
        return
    data = open_rgbd(folder)
    if name == "7scenes":
        yield _read_recording(name, data, range(data.video.num_frames))
        return
    for index in range(data.video.num_frames):
        yield _read_recording(f"{name} photo {index + 1}", data, range(index, index + 1))


def _read_recording(name: str, data: RgbdInput, frames: range) -> TruthClip:
    maps = data.depth.read(frames.start, frames.stop)
    matches: list[PointMatches] = []
    for index in frames[:-1]:
        assert data.path is not None, f"{name}: a clip has cameras"
        pixels, points = _lattice_points(data.path[index], maps.depth[index], maps.valid[index])
        after = index + 1
        matches.append(match_points(pixels, points, data.path[after], maps.depth[after], maps.valid[after]))
    video = data.video.read(frames.start, frames.stop)
    return TruthClip(name=name, video=video, depth=maps.depth, known=maps.valid, matches=tuple(matches))


def _lattice_points(camera: Camera, depth: Float32, known: Bool) -> tuple[np.ndarray, Float64]:
    """Flat indices int64 [M] of evenly spaced known pixels, and their points float64 [M,3] in the world."""
    step = lattice_step(1, *depth.shape, budget=_MATCHES_A_FRAME)
    chosen = np.zeros(depth.shape, np.bool_)
    chosen[step // 2 :: step, step // 2 :: step] = True
    chosen &= known
    centers = pixel_centers(*depth.shape)[chosen]
    return np.flatnonzero(chosen), unproject(camera, centers, depth[chosen].astype(np.float64))


def default_motion(seed: int) -> CameraMotion:
    """Of eight seeds in a row, a room and an outdoor place get each motion."""
    return MOTIONS[seed // 2 % len(MOTIONS)]


def procedural(
    seeds: Sequence[int] = SEEDS,
    motions: Sequence[CameraMotion] = (),
    *,
    size: ProceduralSize | None = None,
    cache: Path | None = None,
) -> Iterator[TruthClip]:
    """Procedural clips, rendered when first asked for.

    Args:
        seeds: even: rooms, odd: outdoor places.
        motions: each of them for each seed; none: `default_motion`.
        size: default 24 frames of 384×256.
        cache: where they are kept; default ``benchmarks/depth`` in the user's cache folder.
    """
    folder = cache_root() / "benchmarks" / "depth" if cache is None else cache
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        for motion in motions or (default_motion(seed),):
            yield _procedural_clip(seed, motion, size or ProceduralSize(), folder)


def _procedural_clip(seed: int, motion: CameraMotion, size: ProceduralSize, folder: Path) -> TruthClip:
    scene = make_scene(seed)
    path = folder / f"{seed}-{motion}-{size.num_frames}x{size.height}x{size.width}-{_code_version()}.npz"
    clip = scene_clip(
        scene, num_frames=size.num_frames, fps=FPS, height=size.height, width=size.width, camera_motion=motion
    )
    clip = replace(clip, supersample=2)  # as smooth as a camera's pictures
    if not path.is_file():
        with atomic_path(path) as temporary:
            frames, depth, owner = _render(clip)
            np.savez(temporary, frames=frames, depth=depth, owner=owner)
    with np.load(path) as stored:
        frames, depth, owner = stored["frames"], stored["depth"], stored["owner"]
    known = ~np.isin(owner, scene.ids("sky"))
    return TruthClip(
        name=f"{seed} {scene.kind} {motion}",
        video=Video(frames=frames, timestamps_s=clip.timestamps_s),
        depth=depth,
        known=known,
        matches=tuple(_scene_matches(clip, i, depth, known, owner) for i in range(size.num_frames - 1)),
    )


def _render(clip: SceneClip) -> tuple[UInt8, Float32, Int32]:
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        views = list(pool.map(clip.view, range(clip.num_frames)))
    rgb, depth, owner = ([getattr(view, name) for view in views] for name in ("rgb", "depth", "object_id"))
    return np.stack(rgb), np.stack(depth), np.stack(owner)


def _scene_matches(clip: SceneClip, index: int, depth: Float32, known: Bool, owner: Int32) -> PointMatches:
    """Surface points of frame `index` in the next one, moved along with the objects they belong to."""
    pixels, points = _lattice_points(clip.path[index], depth[index], known[index])
    start, end = (float(time) for time in clip.timestamps_s[index : index + 2])
    owners, after = owner[index].ravel()[pixels], index + 1
    for which in np.unique(owners):
        points[owners == which] = _moved(clip.scene, int(which), points[owners == which], start, end)
    return match_points(pixels, points, clip.path[after], depth[after], known[after])


def _moved(scene: Scene, which: int, points: Float64, start_s: float, end_s: float) -> Float64:
    """Points [M,3] of an object at one time where they are at another one."""
    motion = scene.objects[which].motion
    if motion is None:
        return points
    pivot = np.array(motion.pivot_m)
    turn_start, offset_start = motion.pose(start_s)
    turn_end, offset_end = motion.pose(end_s)
    at_rest = (points - pivot - offset_start) @ turn_start
    return at_rest @ turn_end.T + pivot + offset_end


def _code_version() -> str:
    """Changes with the code of the scenes, so that what was rendered by other code is not taken."""
    digest = hashlib.blake2b(digest_size=6)
    for file in sorted(Path(ex4d.scene.__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
