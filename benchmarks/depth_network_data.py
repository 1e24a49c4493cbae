"""What a small video depth network sees and is taught: clips of procedural scenes as arrays of 192x128 px.

Each training clip is eight frames of a scene of its own, 5 to 15 a second, with random field of view, pitch and roll;
half of the cameras stand or pan. Parallax and `builtin`'s depth are made from the true cameras, for speed; where the
product is judged (`network_input`) they come from the cameras that it finds itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from ex4d.core.arrays import Float32, UInt8
from ex4d.core.camera import CameraPath
from ex4d.core.clip import ArrayClip, Clip, iter_chunks
from ex4d.core.geometry import rotation_about
from ex4d.core.seeding import make_rng
from ex4d.core.video import Video
from ex4d.depth.builtin import BuiltinEstimator
from ex4d.depth.estimator import EstimateRequest
from ex4d.depth.measure import border_pairs
from ex4d.depth.parallax import measure_parallax
from ex4d.depth.parallax_fusion import fuse_parallax
from ex4d.io.atomic import atomic_path
from ex4d.io.depth.clip import nearest_index
from ex4d.motion.flow import FlowEngine, gray_frame, work_size
from ex4d.motion.landmarks import Landmarks, find_landmarks
from ex4d.motion.odometry import follow_clip
from ex4d.scene.clip import CameraMotion, SceneClip, moving_path, scene_clip
from ex4d.scene.generate import make_scene

FIRST_SEED = 1000
NUM_FRAMES = 8
LONG_SIDE_PX = 192
_MULTIPLE = 16
_MOTIONS: tuple[CameraMotion, ...] = ("static", "handheld", "pan", "dolly")
_FOV_DEG = (40.0, 90.0)
_PITCH_DEG, _ROLL_DEG = 10.0, 5.0
_FLOW_S = 0.2
_BORDER_PAIRS = 512
_BEST_SHARE = 0.03  # the smallest relative error that parallax claims


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkInput:
    """A clip as the network gets it; h and w are multiples of 16.

    Attributes:
        rgb: uint8 [T,h,w,3].
        maps: float16 [T,6,h,w]: log parallax disparity over the clip's median (0: unknown), its confidence 0 to 1,
            how surely a pixel moves by itself 0 to 1, log `builtin` disparity over the clip's median, and log(1 + px)
            of the flow to 0.2 s before and after that no homography explains.
        gap: frames in 0.2 s, at least 1.
    """

    rgb: UInt8
    maps: np.ndarray
    gap: int


def input_size(height: int, width: int) -> tuple[int, int]:
    """(h, w): longer side 192 px, sides multiples of 16."""
    scale = LONG_SIDE_PX / max(height, width)
    rows, columns = (max(1, round(side * scale / _MULTIPLE)) * _MULTIPLE for side in (height, width))
    return rows, columns


def sample(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Maps [...,H,W] at another size, nearest samples: depths are never blended."""
    rows, columns = nearest_index(maps.shape[-2], size[0]), nearest_index(maps.shape[-1], size[1])
    return maps[..., rows[:, None], columns]


def network_input(
    source: Clip[Video], base: Float32, path: CameraPath | None, landmarks: Landmarks | None
) -> NetworkInput:
    """Assemble a clip.

    Args:
        source: the clip.
        base: float32 [T,H,W] > 0, `builtin`'s disparity, any size.
        path: cameras, None where they do not shift.
        landmarks: what these see, or None.
    """
    size = input_size(source.height, source.width)
    frames = np.concatenate([chunk.frames for _, chunk in iter_chunks(source)])
    rgb = np.stack([cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA) for frame in frames])
    log_base = np.log(sample(base, size))
    middle = float(np.median(log_base))
    maps = np.zeros((len(rgb), 6, *size), np.float16)
    maps[:, 3] = np.clip(log_base - middle, -4, 4)
    if path is not None and landmarks is not None:
        for index, frame in enumerate(fuse_parallax(measure_parallax(source, path, landmarks), path)):
            weight = sample(frame.weight, size)
            log = np.log(np.maximum(sample(frame.disparity, size), np.float32(1e-9))) - middle
            maps[index, 0] = np.where(weight > 0, np.clip(log, -4, 4), 0)
            maps[index, 1] = np.minimum(_BEST_SHARE * np.sqrt(weight), 1)
            maps[index, 2] = sample(frame.moving, size)
    step_s = float(np.diff(source.timestamps_s).mean()) if source.num_frames > 1 else _FLOW_S
    gap = max(1, round(_FLOW_S / step_s))
    maps[:, 4:] = np.log1p(_unexplained_flow(frames, gap, size))
    return NetworkInput(rgb=rgb, maps=maps, gap=gap)


def _unexplained_flow(frames: UInt8, gap: int, size: tuple[int, int]) -> Float32:
    """float32 [T,2,h,w]: length (px at working size) of what is left of the flow after the best homography."""
    engine = FlowEngine()
    grays = [gray_frame(frame, work_size(*frame.shape[:2])) for frame in frames]
    height, width = grays[0].shape
    grid = np.mgrid[0:height, 0:width][::-1].transpose(1, 2, 0).astype(np.float32)
    some = (slice(6, None, 12), slice(6, None, 12))
    out = np.zeros((len(frames), 2, *size), np.float32)
    for index, gray in enumerate(grays):
        for side, other in enumerate((index - gap, index + gap)):
            if not 0 <= other < len(grays):
                continue
            there = grid + engine.flow(gray, grays[other])
            matrix, _ = cv2.findHomography(grid[some].reshape(-1, 2), there[some].reshape(-1, 2), cv2.RANSAC, 1.0)
            if matrix is None:
                continue
            expected = cv2.perspectiveTransform(grid.reshape(1, -1, 2), matrix).reshape(grid.shape)
            left = np.linalg.norm(there - expected, axis=2).clip(0, 100)
            out[index, side] = sample(left.astype(np.float32), size)
    return out


def training_clip(seed: int, *, num_frames: int = NUM_FRAMES, height: int = 256, width: int = 384) -> SceneClip:
    """The film of a seed: scene, camera motion, field of view, pitch, roll and frame rate follow from it."""
    rng = make_rng(seed, "depth network")
    motion = _MOTIONS[seed // 2 % len(_MOTIONS)]  # a room and an outdoor place each
    scene = make_scene(seed)
    fps = float(rng.uniform(5, 15))
    times = np.arange(num_frames) / fps
    path = moving_path(seed, times, height=height, width=width, camera_motion=motion)
    K = path.K.copy()
    K[:, 0, 0] = K[:, 1, 1] = 0.5 * width / np.tan(np.radians(rng.uniform(*_FOV_DEG)) / 2)
    turn = np.eye(4)
    pitch, roll = np.radians(rng.uniform(-_PITCH_DEG, _PITCH_DEG)), np.radians(rng.uniform(-_ROLL_DEG, _ROLL_DEG))
    turn[:3, :3] = rotation_about("z", float(roll)) @ rotation_about("x", float(pitch))
    path = replace(path, K=K, world_to_camera=turn @ path.world_to_camera)
    clip = scene_clip(scene, num_frames=num_frames, fps=fps, height=height, width=width, path=path)
    return replace(clip, supersample=2)


def make_training_clip(seed: int, folder: Path, *, num_frames: int = NUM_FRAMES, width: int = 384) -> Path:
    """Render a training clip and keep it as ``SEED.npz``, if it is not there yet."""
    target = folder / f"{seed}.npz"
    if target.is_file():
        return target
    clip = training_clip(seed, num_frames=num_frames, height=width * 2 // 3, width=width)
    views = [clip.view(index) for index in range(num_frames)]
    video = ArrayClip(Video(frames=np.stack([view.rgb for view in views]), timestamps_s=clip.timestamps_s))
    shifts = bool(np.ptp(clip.path.camera_to_world[:, :3, 3], axis=0).max() > 1e-3)
    landmarks = find_landmarks(follow_clip(video), clip.path) if shifts else None
    request = EstimateRequest(cameras=clip.path, landmarks=landmarks)
    estimate = BuiltinEstimator().estimate(video, request)
    base = np.concatenate([np.reciprocal(chunk.values, dtype=np.float32) for _, chunk in iter_chunks(estimate)])
    seen = network_input(video, base, clip.path if shifts else None, landmarks)
    size = seen.rgb.shape[1:3]
    depth = sample(np.stack([view.depth for view in views]), size)
    known = sample(~np.stack([view.sky for view in views]), size)
    with atomic_path(target) as temporary:
        np.savez(
            temporary,
            rgb=seen.rgb,
            maps=seen.maps,
            gap=seen.gap,
            depth=depth.astype(np.float32),
            known=known,
            pairs=_pairs(depth, known, seed),
        )
    return target


def _pairs(depth: Float32, known: np.ndarray, seed: int) -> np.ndarray:
    """int32 [T,2,512]: flat indices of pixels nearer and farther at object borders; drawn with repetition."""
    rng = make_rng(seed, "border pairs")
    out = np.zeros((len(depth), 2, _BORDER_PAIRS), np.int32)
    for index, (z, seen) in enumerate(zip(depth, known, strict=True)):
        found = border_pairs(z, seen)
        if len(found.near):
            chosen = rng.integers(len(found.near), size=_BORDER_PAIRS)
            out[index] = np.stack([found.near[chosen], found.far[chosen]])
    return out


def stored_clips(folder: Path) -> Sequence[Path]:
    """The clips that a folder holds by now."""
    return sorted(path for path in folder.glob("*.npz") if path.stem.isdigit())
