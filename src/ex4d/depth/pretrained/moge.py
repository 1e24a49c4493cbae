"""The estimator `moge`: MoGe-2 from Microsoft's package, metres, focal length and sky, frame by frame."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from ex4d.core.arrays import Bool, Float32, Float64, UInt8
from ex4d.core.clip import Clip, iter_chunks
from ex4d.core.video import Video
from ex4d.depth.estimator import EstimateRequest, SequentialDepth
from ex4d.depth.pretrained.estimator import pending_depth
from ex4d.depth.pretrained.package import PackageEstimator, is_camera, silenced
from ex4d.depth.pretrained.pictures import check_output
from ex4d.errors import ConfigError

if TYPE_CHECKING:
    import torch

_PATCH_PX = 14
_MIN_SIDE_PX = 56
_BEST_LEVEL, _FASTEST_LEVEL = 9, 0
"""MoGe's ``resolution_level``: tokens a picture, by default 3600 and 1200."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MogeEstimator(PackageEstimator):
    """Satisfies `DepthEstimator`."""

    name: str = "moge"
    package: str = "moge"
    install: str = "pip install 'ex4d[gen]' git+https://github.com/microsoft/MoGe.git"

    def estimate(self, source: Clip[Video], request: EstimateRequest) -> SequentialDepth:
        """Metres and sky of every frame, at the clip's size (or at `request.short_side`), and one K.

        Each frame is looked at by itself: its flicker is left as it is. Depth is 0 and sky True wherever MoGe's mask
        has no surface. With `request.K` its horizontal field of view is given to MoGe, otherwise K is the median over
        the frames, with the principal point in the middle; it is known when the last frame was read.

        Raises:
            WeightsError: package or weights are missing, or do not fit each other.
            ConfigError: no CUDA where it was asked for, or a shorter side below 56 px.
            DepthError: while it is read: NaN, the frame is named.
        """
        weights = self.require()
        from ex4d.depth.pretrained.network import pick_device

        device = pick_device(request.device)
        size, options = _options(source, request, full=device.type == "cuda")
        network = self.load("moge.model.v2", "MoGeModel", weights).to(device)
        depth = pending_depth(source, size, kind="depth", scale="metric", description="MoGe-2, frame by frame,")
        depth.chunks = self._chunks(source, request, _Look(network, device, options), depth)
        return depth

    def _chunks(
        self, source: Clip[Video], request: EstimateRequest, look: "_Look", depth: SequentialDepth
    ) -> Iterator[tuple[Float32, Bool | None]]:
        size = (depth.height, depth.width)
        all_K: list[Float64] = []
        for start, chunk in iter_chunks(source):
            for number, frame in enumerate(chunk.frames, start):
                values, surface, K = look(_resize(frame, size))
                check_output(values[None], [number], self.name)
                if is_camera(K):  # a frame without any surface has none
                    all_K.append(K)
                request.advance(1)
                yield values[None], ~surface[None]
        depth.K = np.median(all_K, axis=0) if all_K else None
        how = "as given" if request.K is not None else f"the median of {len(all_K)} frames"
        depth.notices += (f"{self.name}: one focal length for the clip, {how}; flicker is left as it is",)


class _Look:
    """MoGe of one frame, from NumPy to NumPy."""

    def __init__(self, network: Any, device: "torch.device", options: dict[str, Any]) -> None:
        self._network, self._device, self._options = network, device, options

    def __call__(self, frame: UInt8) -> tuple[Float32, Bool, Float64]:
        """Depth float32 [H,W] (0: none), where there is a surface bool [H,W], and K px, of a frame uint8 [H,W,3]."""
        import torch

        height, width = frame.shape[:2]
        picture = torch.from_numpy(frame).to(self._device).permute(2, 0, 1).float() / 255
        with silenced():
            found = self._network.infer(picture, **self._options)
        depth = found["depth"].float().cpu().numpy()
        surface = found["mask"].cpu().numpy().astype(np.bool_) if "mask" in found else np.isfinite(depth)
        K = found["intrinsics"].double().cpu().numpy() * np.array([[width], [height], [1.0]])
        return np.where(surface, depth, np.float32(0)), surface, K


def _options(source: Clip[Video], request: EstimateRequest, *, full: bool) -> tuple[tuple[int, int], dict[str, Any]]:
    """(height, width) of the pictures, and MoGe's arguments."""
    size, options = (source.height, source.width), dict[str, Any](use_fp16=full)
    if request.short_side is None:
        options["resolution_level"] = _BEST_LEVEL if full else _FASTEST_LEVEL
    else:
        if request.short_side < _MIN_SIDE_PX:
            raise ConfigError(f"a shorter side of at least {_MIN_SIDE_PX} px for moge", f"{request.short_side}")
        scale = request.short_side / min(size)
        size = (round(size[0] * scale), round(size[1] * scale))
        options["num_tokens"] = round(size[0] * size[1] / _PATCH_PX**2)
    if request.K is not None:
        options["fov_x"] = 2 * math.degrees(math.atan(source.width / (2 * request.K[0, 0])))
    return size, options


def _resize(frame: UInt8, size: tuple[int, int]) -> UInt8:
    if frame.shape[:2] == size:
        return frame
    how = cv2.INTER_AREA if size[0] < frame.shape[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(frame, (size[1], size[0]), interpolation=how), np.uint8)
