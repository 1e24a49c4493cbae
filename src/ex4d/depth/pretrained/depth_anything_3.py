"""The estimator `depth-anything-3`: depth, cameras and K of many views at once, from ByteDance's package.

A long clip is seen in chunks that share frames. Depth and cameras of a chunk come in a unit and a world of their own:
the shared frames say how both go over into those of the chunk before (scale: median ratio of depths; rotation and
shift: from the shared cameras), and are cross-faded. Errors of these joints add up over a long clip.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from ex4d.core.arrays import Bool, Float32, Float64, UInt8
from ex4d.core.camera import invert_rigid, rebase
from ex4d.core.clip import Clip
from ex4d.core.rotations import nearest_rotation
from ex4d.core.video import Video
from ex4d.depth.estimator import EstimateRequest, SequentialDepth
from ex4d.depth.pretrained.depthcrafter_windows import Windows
from ex4d.depth.pretrained.estimator import pending_depth
from ex4d.depth.pretrained.package import PackageEstimator, is_camera, silenced
from ex4d.depth.pretrained.pictures import MIN_SIDE_PX, check_output, network_size
from ex4d.errors import DepthError
from ex4d.io.rgbd.poses import build_path, nearest_rigid

CHUNKS = Windows(size=64, overlap=16)
_LONG_SIDE = 504
_INSTALL = (
    "pip install 'ex4d[gen]' torchvision addict einops evo imageio 'moviepy<2' omegaconf plyfile pycolmap "
    "&& pip install --no-deps git+https://github.com/ByteDance-Seed/Depth-Anything-3.git"
)
"""Without its own requirements: they pin numpy below 2. These are what its ``api`` module imports."""
_RATIO_STEP = 4
"""Every fourth pixel of every fourth row is enough for the median of a ratio."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """What the network says of some frames.

    Attributes:
        depth: float32 [n,h,w], > 0.
        sky: bool [n,h,w], or None where the network does not look for it.
        camera_to_world: float64 [n,4,4].
        K: float64 [n,3,3], px of `depth`, corner origin.
    """

    depth: Float32
    sky: Bool | None
    camera_to_world: Float64
    K: Float64

    def slice(self, start: int, stop: int | None) -> "Views":
        """Frames ``start:stop``."""
        span = slice(start, stop)
        return Views(
            depth=self.depth[span],
            sky=None if self.sky is None else self.sky[span],
            camera_to_world=self.camera_to_world[span],
            K=self.K[span],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthAnything3Estimator(PackageEstimator):
    """Satisfies `DepthEstimator`."""

    name: str = "depth-anything-3"
    package: str = "depth_anything_3"
    install: str = _INSTALL

    def estimate(self, source: Clip[Video], request: EstimateRequest) -> SequentialDepth:
        """Depth in an unknown unit at the network's size, with the cameras and one K (median over the frames).

        The longer side is by default 504 px, as in the release. Chunks of 64 frames share 16. The world is the camera
        of frame 0; cameras and K are known when the last frame was read.

        Raises:
            WeightsError: package or weights are missing, or do not fit each other.
            ConfigError: a device or size that cannot be had.
            DepthError: while it is read: NaN or infinity (the frame is named), or a network without cameras.
        """
        weights = self.require()
        from ex4d.depth.pretrained.network import pick_device

        device = pick_device(request.device)
        sides = (source.height, source.width)
        default = max(MIN_SIDE_PX, round(_LONG_SIDE * min(sides) / max(sides)))
        size = network_size(*sides, request.short_side or default)
        network = self.load("depth_anything_3.api", "DepthAnything3", weights).to(device)
        depth = pending_depth(source, size, kind="depth", scale="relative", description="Depth Anything 3")
        depth.chunks = self._chunks(source, request, network, depth)
        return depth

    def _chunks(
        self, source: Clip[Video], request: EstimateRequest, network: Any, depth: SequentialDepth
    ) -> Iterator[tuple[Float32, Bool | None]]:
        cameras: list[Float64] = []
        all_K: list[Float64] = []
        for views in join_chunks(self._look(source, network, (depth.height, depth.width)), CHUNKS.overlap):
            cameras.append(views.camera_to_world)
            all_K.append(views.K)
            request.advance(len(views.depth))
            yield views.depth, views.sky
        K: Float64 = np.median(np.concatenate(all_K), axis=0)
        depth.K = K
        world_to_camera = rebase(invert_rigid(np.concatenate(cameras)))
        depth.path = build_path(world_to_camera, K, height=depth.height, width=depth.width)
        depth.notices += (f"{self.name}: one K for the clip, the median of {source.num_frames} frames",)
        joints = len(CHUNKS.plan(source.num_frames)) - 1
        if joints:
            depth.notices += (f"{self.name}: seen in {joints + 1} chunks; scale and cameras may drift at their joints",)

    def _look(self, source: Clip[Video], network: Any, size: tuple[int, int]) -> Iterator[Views]:
        """Each chunk of the clip, in its own unit and world."""
        for start, stop in CHUNKS.plan(source.num_frames):
            pictures = _read(source, start, stop, size)
            with silenced():
                found = network.inference(pictures, process_res=max(size), ref_view_strategy="middle")
            yield self._views(found, start, (stop - start, *size))

    def _views(self, found: Any, start: int, shape: tuple[int, int, int]) -> Views:
        """The package's ``Prediction``, checked; `start`: number of its first frame."""
        if found.extrinsics is None or found.intrinsics is None:
            raise DepthError("cameras from depth-anything-3", "a network without them", "pull its weights again")
        values, K = np.asarray(found.depth, np.float32), np.asarray(found.intrinsics, np.float64)
        if values.shape != shape:
            raise DepthError(f"depth of shape {shape} from depth-anything-3", f"{values.shape}", "report this")
        numbers = list(range(start, start + shape[0]))
        check_output(values, numbers, self.name)
        world_to_camera = np.tile(np.eye(4), (shape[0], 1, 1))
        world_to_camera[:, :3] = np.asarray(found.extrinsics, np.float64)[:, :3]
        for number, matrix in zip(numbers, K, strict=True):
            if not is_camera(matrix):
                raise DepthError(f"a focal length from depth-anything-3 in frame {number}", f"K = {matrix.tolist()}")
        return Views(
            depth=values,
            sky=None if found.sky is None else np.asarray(found.sky, np.bool_),
            camera_to_world=invert_rigid(nearest_rigid(world_to_camera, f"the cameras of {self.name}")),
            K=K,
        )


def _read(source: Clip[Video], start: int, stop: int, size: tuple[int, int]) -> list[UInt8]:
    """Frames ``start:stop`` at a size that the package leaves alone: multiples of 14, the longer ``process_res``."""
    pictures: list[UInt8] = []
    for first in range(start, stop, 8):
        for frame in source.read(first, min(first + 8, stop)).frames:
            how = cv2.INTER_AREA if size[0] < frame.shape[0] else cv2.INTER_CUBIC
            pictures.append(np.asarray(cv2.resize(frame, (size[1], size[0]), interpolation=how), np.uint8))
    return pictures


def join_chunks(chunks: Iterator[Views], shared: int) -> Iterator[Views]:
    """Chunks that share frames, brought into the unit and world of the first: every frame once, in order.

    Args:
        chunks: each but the first begins with the last `shared` frames of its predecessor, and has more than those.
        shared: frames.
    """
    tail: Views | None = None
    for views in chunks:
        joined = views if tail is None else _cross_fade(tail, _align(views, tail))
        if len(joined.depth) > shared:
            yield joined.slice(0, -shared)
        tail = joined.slice(-shared, None)
    assert tail is not None
    yield tail


def _align(views: Views, known: Views) -> Views:
    """A chunk in the unit and world of `known`, which are its first frames."""
    num = len(known.depth)
    ratios: list[float] = []
    for index in range(num):
        pair = [part.depth[index, ::_RATIO_STEP, ::_RATIO_STEP].astype(np.float64) for part in (known, views)]
        usable = (pair[0] > 0) & (pair[1] > 0)
        if usable.any():
            ratios.append(float(np.median(np.log(pair[0][usable] / pair[1][usable]))))
    scale = float(np.exp(np.median(ratios))) if ratios else 1.0
    pose = views.camera_to_world.copy()
    pose[:, :3, 3] *= scale
    turns = known.camera_to_world[:, :3, :3] @ np.swapaxes(pose[:num, :3, :3], -1, -2)
    turn = nearest_rotation(turns.mean(axis=0))
    shift = np.median(known.camera_to_world[:, :3, 3] - pose[:num, :3, 3] @ turn.T, axis=0)
    pose[:, :3, :3] = turn @ pose[:, :3, :3]
    pose[:, :3, 3] = pose[:, :3, 3] @ turn.T + shift
    return Views(depth=views.depth * np.float32(scale), sky=views.sky, camera_to_world=pose, K=views.K)


def _cross_fade(known: Views, views: Views) -> Views:
    """`views` whose first frames go over linearly from `known`, which are the same frames."""
    num = len(known.depth)
    share = (np.arange(1, num + 1) / (num + 1))[:, None, None]
    depth, pose = views.depth.copy(), views.camera_to_world.copy()
    depth[:num] = known.depth * (1 - share) + depth[:num] * share
    pose[:num] = known.camera_to_world * (1 - share) + pose[:num] * share
    pose[:num, :3, :3] = nearest_rotation(pose[:num, :3, :3])
    sky = None
    if known.sky is not None and views.sky is not None:
        sky = np.concatenate([np.where(share < 0.5, known.sky, views.sky[:num]), views.sky[num:]])
    return Views(depth=depth, sky=sky, camera_to_world=pose, K=views.K)
