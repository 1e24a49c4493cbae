"""The estimator `da3metric-large`: Depth Anything 3's metric network, metres and sky."""

from dataclasses import dataclass

import numpy as np

from ex4d.core.arrays import Float64
from ex4d.core.clip import Clip
from ex4d.core.video import Video
from ex4d.depth.estimator import EstimateRequest, SequentialDepth
from ex4d.depth.intrinsics import DEFAULT_FOCAL_SHARE
from ex4d.depth.pretrained.affine import fit_scale_between
from ex4d.depth.pretrained.estimator import PretrainedEstimator, pending_depth
from ex4d.depth.pretrained.frames import steady_frames
from ex4d.depth.pretrained.pictures import MIN_SIDE_PX, network_size
from ex4d.depth.pretrained.sizes import VIT_LARGE, NetworkSizes
from ex4d.io.intrinsics import scale_intrinsics

CANONICAL_FOCAL_PX = 300.0
"""The network's depth is in metres for this focal length of the picture that it sees."""
_LONG_SIDE = 504
_SKY_FROM = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Da3MetricEstimator(PretrainedEstimator):
    """Satisfies `DepthEstimator`.

    Attributes:
        sizes: of the network; the released weights fit the default only.
    """

    name: str = "da3metric-large"
    sizes: NetworkSizes = VIT_LARGE

    def estimate(self, source: Clip[Video], request: EstimateRequest) -> SequentialDepth:
        """Metres and sky of every frame, at the network's size; the scale is made steady, see `steady`.

        Metres need the focal length; without `request.K` it is taken as 0.9 of the longer side, which is said: a
        focal length that is wrong by some factor makes all metres wrong by the same. Longer side by default 504 px,
        the release's. Float32; some seconds a frame on a CPU. Depth of sky is the network's, beyond what it knows.

        Raises:
            MissingDependencyError, WeightsError: not installed; not pulled, damaged or of another network.
            ConfigError: a device or size that cannot be had.
            DepthError: while it is read: NaN or infinities, the frame is named.
        """
        weights = self.require()
        from ex4d.depth.pretrained.da3_network import load_da3_metric
        from ex4d.depth.pretrained.network import FrameRunner, pick_device
        from ex4d.weights.files import read_tensors

        device = pick_device(request.device)
        sides = (source.height, source.width)
        default = max(MIN_SIDE_PX, round(_LONG_SIDE * min(sides) / max(sides)))
        size = network_size(*sides, request.short_side or default)
        focal_px, notices = _focal_px(request.K, sides, size)
        network = load_da3_metric(read_tensors(weights), self.sizes, f"{weights} (DA3METRIC-LARGE)")
        runner = FrameRunner(network, device, factor=focal_px / CANONICAL_FOCAL_PX, sky_from=_SKY_FROM)
        name = "Depth Anything 3 metric, made steady,"
        depth = pending_depth(source, size, kind="depth", scale="metric", description=name)
        depth.notices = notices
        depth.chunks = steady_frames(source, request, runner, depth, fit=fit_scale_between, name=self.name)
        return depth


def _focal_px(K: Float64 | None, sides: tuple[int, int], size: tuple[int, int]) -> tuple[float, tuple[str, ...]]:
    """Mean of fx and fy in px of the picture that the network sees, and what must be said of it."""
    notices: tuple[str, ...] = ()
    if K is None:
        focal = DEFAULT_FOCAL_SHARE * max(sides)
        K = np.diag([focal, focal, 1.0])
        notices = (f"da3metric-large: metres assume a focal length of {focal:.0f} px (0.9 of the longer side)",)
    seen = scale_intrinsics(K, from_size=sides, to_size=size)
    return float(seen[0, 0] + seen[1, 1]) / 2, notices
