"""The estimators `da2-small`, `da2-metric-indoor` and `da2-metric-outdoor`: Depth Anything V2 Small, made steady."""

from dataclasses import dataclass

from ex4d.core.clip import Clip
from ex4d.core.video import Video
from ex4d.depth.estimator import EstimateRequest, SequentialDepth
from ex4d.depth.pretrained.affine import fit_affine_between, fit_scale_between
from ex4d.depth.pretrained.estimator import PretrainedEstimator, default_short_side, pending_depth
from ex4d.depth.pretrained.frames import steady_frames
from ex4d.depth.pretrained.pictures import network_size
from ex4d.depth.pretrained.sizes import VIT_SMALL, NetworkSizes


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthAnythingEstimator(PretrainedEstimator):
    """Satisfies `DepthEstimator`.

    Attributes:
        max_depth_m: farthest depth that the metric network knows, of its config; None: the relative network.
        sizes: of the network; the released weights fit the default only.
    """

    max_depth_m: int | None = None
    sizes: NetworkSizes = VIT_SMALL

    def estimate(self, source: Clip[Video], request: EstimateRequest) -> SequentialDepth:
        """Disparity (affine in 1/z, >= 0) or metres of every frame, at the network's size; see `steady`.

        Disparity: scale and shift of neighbouring frames are made equal. Metres: their scale, so that over a second
        or so the network's own metres are kept. Shorter side by default 518 px, as the networks were trained; for
        disparity on the CPU 294 px, which takes a third of the time (metres depend on the size, so they keep it).

        Raises:
            MissingDependencyError, WeightsError: not installed; not pulled, damaged or of another network.
            ConfigError: a device or size that cannot be had.
            DepthError: while it is read: NaN or infinities, the frame is named.
        """
        weights = self.require()
        from ex4d.depth.pretrained.da2_network import load_depth_anything_2
        from ex4d.depth.pretrained.network import FrameRunner, pick_device

        device = pick_device(request.device)
        is_metric = self.max_depth_m is not None
        default = default_short_side(source.height, source.width, full=is_metric or device.type == "cuda")
        size = network_size(source.height, source.width, request.short_side or default)
        network = FrameRunner(load_depth_anything_2(weights, self.sizes, self.max_depth_m), device)
        name = "Depth Anything V2 Small, made steady,"
        if is_metric:
            depth, fit = pending_depth(source, size, kind="depth", scale="metric", description=name), fit_scale_between
        else:
            depth = pending_depth(source, size, kind="disparity", scale="relative", description=name)
            fit = fit_affine_between
        depth.chunks = steady_frames(source, request, network, depth, fit=fit, name=self.name)
        return depth
