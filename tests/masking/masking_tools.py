"""A small filmed scene and flat worlds, for tests of masks."""

from functools import cache

import numpy as np

from ex4d.core.camera import CameraPath, pinhole, static_path
from ex4d.core.clip import ArrayClip
from ex4d.core.depth import DepthVideo
from ex4d.core.video import Video
from ex4d.masking.config import STYLES, MaskConfig
from ex4d.scene.clip import CameraMotion, scene_clip
from ex4d.scene.generate import make_scene

HEIGHT, WIDTH, NUM_FRAMES = 64, 96, 8
Filmed = tuple[ArrayClip[Video], ArrayClip[DepthVideo], CameraPath]


@cache
def filmed(camera_motion: CameraMotion = "static", num_frames: int = NUM_FRAMES) -> Filmed:
    """A room with exact depth."""
    clip = scene_clip(
        make_scene(300), num_frames=num_frames, fps=12, height=HEIGHT, width=WIDTH, camera_motion=camera_motion
    )
    return ArrayClip(clip.read(0, num_frames)), ArrayClip(clip.depth.read(0, num_frames)), clip.path


def world(frames: np.ndarray, depth: np.ndarray, valid: np.ndarray | None = None) -> Filmed:
    """A clip uint8 [T,H,W,3] and depth float32 [T,H,W] as they are, filmed by a camera that stands still."""
    num, height, width = depth.shape
    times = np.arange(num) / 12
    known = np.ones(depth.shape, np.bool_) if valid is None else valid
    maps = DepthVideo(depth=np.where(known, depth, 0), valid=known, timestamps_s=times, scale="relative")
    path = static_path(
        K=pinhole(focal_px=0.9 * width, height=height, width=width), num_frames=num, height=height, width=width
    )
    return ArrayClip(Video(frames=frames, timestamps_s=times)), ArrayClip(maps), path


def only(style: str, *, rendering: bool, **more: object) -> MaskConfig:
    """Masks of one kind and one style."""
    weights = {f"{name}_weight": float(name == style) for name in STYLES}
    return MaskConfig(rendering_share=float(rendering), **{"pivot_spread": 0.0, **weights, **more})  # pyright: ignore[reportArgumentType]
