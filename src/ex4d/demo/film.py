"""The scene as a user would have it: an H.264 clip, and depth beside it as from a depth camera."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from ex4d.core.clip import iter_chunks
from ex4d.io.atomic import atomic_path
from ex4d.io.encode_delivery import DeliveryWriter
from ex4d.pipeline.progress import Reporter
from ex4d.scene.clip import SceneClip

CLIP, DEPTH = "scene.mp4", "scene_depth.npz"


def film(clip: SceneClip, folder: Path, *, fps: Fraction, reporter: Reporter) -> tuple[Path, Path]:
    """Write ``scene.mp4`` and ``scene_depth.npz`` (``depth`` float32 [T,H,W] metres, ``K`` [3,3]).

    Raises:
        OutputError: the folder cannot be written to.
    """
    video, depth = folder / CLIP, folder / DEPTH
    reporter.begin("film the scene", clip.num_frames)
    try:
        with DeliveryWriter(video, height=clip.height, width=clip.width, fps=fps) as writer:
            for _, chunk in iter_chunks(clip):
                writer.write(chunk.frames, chunk.timestamps_s)
                reporter.advance(len(chunk))
        with atomic_path(depth) as temporary:
            np.savez(temporary, depth=np.concatenate(list(_depth(clip))), K=clip.path.K[0])
    finally:
        reporter.end()
    return video, depth


def _depth(clip: SceneClip) -> Iterator[np.ndarray]:
    for _, chunk in iter_chunks(clip.depth):
        yield chunk.depth
