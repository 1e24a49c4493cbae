"""What a tiny model is trained and judged on: procedural clips of 96x64 px with true depth and simulated masks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ex4d.core.arrays import Bool, Float32, UInt8
from ex4d.core.camera import CameraPath
from ex4d.core.clip import ArrayClip
from ex4d.core.seeding import make_rng
from ex4d.core.video import Video
from ex4d.dataset.layout import Bucket, SampleRow
from ex4d.dataset.sample import TrainingSample
from ex4d.io.atomic import atomic_path
from ex4d.masking.config import MaskConfig
from ex4d.masking.simulate import simulate_masks
from ex4d.scene.clip import CameraMotion, SceneClip, scene_clip
from ex4d.scene.generate import make_scene

BUCKET: Bucket = (13, 64, 96)
FPS = 8.0
HELD_OUT = range(100_000, 100_016)
"""Seeds of scenes that are never trained on."""

_MASKS_A_CLIP = 3
_MOTIONS: tuple[CameraMotion, ...] = ("static", "pan", "handheld", "dolly")


def film(seed: int) -> SceneClip:
    """The clip of a scene's seed."""
    motion = _MOTIONS[int(make_rng(seed, "camera motion").integers(len(_MOTIONS)))]
    num_frames, height, width = BUCKET
    return scene_clip(
        make_scene(seed), num_frames=num_frames, fps=FPS, height=height, width=width, camera_motion=motion
    )


@dataclass(frozen=True, slots=True)
class Filmed:
    """A clip with everything that is known of it.

    Attributes:
        video: 13 frames of 96x64 px.
        depth: true, float32 [T,H,W], metres.
        path: its cameras.
        survived: bool [M,T,H,W].
    """

    video: Video
    depth: Float32
    path: CameraPath
    survived: Bool


def make_filmed(seed: int, *, num_masks: int = _MASKS_A_CLIP) -> Filmed:
    """Film a scene and simulate masks on it."""
    clip = film(seed)
    video, depth = clip.read(0, clip.num_frames), clip.depth.read(0, clip.num_frames)
    survived = [
        simulate_masks(ArrayClip(video), ArrayClip(depth), clip.path, config=MaskConfig(), seed=100 * seed + which)
        for which in range(num_masks)
    ]
    masks = np.stack([mask.survived for mask in survived])
    return Filmed(video=video, depth=depth.depth, path=clip.path, survived=masks)


def store(folder: Path, seed: int) -> Path:
    """A training clip as a file, made if it is not there."""
    path = folder / f"{seed}.npz"
    if not path.is_file():
        made = make_filmed(seed)
        with atomic_path(path) as temporary:
            np.savez_compressed(temporary, frames=made.video.frames, survived=made.survived)
    return path


class ClipSource:
    """Stored clips, and each of them mirrored, as training asks for a dataset's samples."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.rows = [
            SampleRow(key=f"{path.stem}{side}", shard=0, bucket=BUCKET, caption="")
            for path in paths
            for side in ("", "-mirrored")
        ]
        self.buckets: Mapping[Bucket, Sequence[int]] = {BUCKET: range(len(self.rows))}
        self.fingerprint = f"{len(paths)} procedural clips"
        self._clips: list[tuple[UInt8, Bool]] = []
        for path in paths:
            with np.load(path) as stored:
                self._clips.append((stored["frames"], stored["survived"]))

    def read(self, number: int) -> TrainingSample:
        """A clip, mirrored if its number is odd."""
        frames, survived = self._clips[number // 2]
        if number % 2:
            frames, survived = frames[:, :, ::-1], survived[..., ::-1]
        times = np.arange(len(frames), dtype=np.float64) / FPS
        video = Video(frames=np.ascontiguousarray(frames), timestamps_s=times)
        return TrainingSample(key=self.rows[number].key, video=video, survived=np.ascontiguousarray(survived))

    def read_latents(self, number: int, cache_key: str) -> Mapping[str, np.ndarray] | None:
        """Nothing is cached: the codec costs nothing."""
        return None
