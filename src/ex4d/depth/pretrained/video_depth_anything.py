"""The estimator `vda-small`: Video Depth Anything Small, steady disparity of a whole clip."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ex4d.core.arrays import Bool, Float32
from ex4d.core.clip import Clip
from ex4d.core.video import Video
from ex4d.depth.estimator import EstimateRequest, SequentialDepth
from ex4d.depth.pretrained.estimator import PretrainedEstimator, default_short_side, iter_pictures, pending_depth
from ex4d.depth.pretrained.pictures import name_frames, network_size
from ex4d.depth.pretrained.sizes import VIT_SMALL, NetworkSizes
from ex4d.depth.pretrained.vda_windows import stitch_windows

if TYPE_CHECKING:
    from ex4d.depth.pretrained.vda_network import VdaRunner


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoDepthAnythingEstimator(PretrainedEstimator):
    """Satisfies `DepthEstimator`.

    Attributes:
        sizes: of the network; the released weights fit the default only.
    """

    name: str = "vda-small"
    sizes: NetworkSizes = VIT_SMALL

    def estimate(self, source: Clip[Video], request: EstimateRequest) -> SequentialDepth:
        """Disparity (affine in 1/z, one affine for the clip, >= 0) of every frame, at the network's size.

        fp16 on CUDA, float32 on the CPU. Default shorter side 518 px on CUDA and 294 px on the CPU, less for pictures
        wider than 16:9 as in the release. Frames are read once; one window of 32 is held.

        Raises:
            MissingDependencyError, WeightsError: not installed; not pulled, damaged or of another network.
            ConfigError: a device or size that cannot be had.
            DepthError: while it is read: NaN or infinities, the frame is named.
        """
        weights = self.require()
        from ex4d.depth.pretrained.network import pick_device
        from ex4d.depth.pretrained.vda_network import VdaRunner

        device = pick_device(request.device)
        default = default_short_side(source.height, source.width, full=device.type == "cuda")
        size = network_size(source.height, source.width, request.short_side or default)
        runner = VdaRunner(weights, sizes=self.sizes, device=device)
        name = "Video Depth Anything Small"
        depth = pending_depth(source, size, kind="disparity", scale="relative", description=name)
        depth.chunks = self._chunks(source, request, runner, depth)
        return depth

    def _chunks(
        self, source: Clip[Video], request: EstimateRequest, runner: "VdaRunner", depth: SequentialDepth
    ) -> Iterator[tuple[Float32, Bool | None]]:
        misfits: list[int] = []
        encoded = _encode(source, request, runner, (depth.height, depth.width))
        for values in stitch_windows(encoded, source.num_frames, runner, on_misfit=misfits.append, name=self.name):
            yield values, None
        if misfits:
            depth.notices += (
                f"{self.name}: from frame {name_frames(misfits)} on the network sees the clip unlike before; "
                "there its disparity is joined by a shift alone",
            )


def _encode(source: Clip[Video], request: EstimateRequest, runner: "VdaRunner", size: tuple[int, int]) -> Iterator[Any]:
    """What the network makes of each frame: most of the work, so that progress is told here."""
    for _, pictures, _ in iter_pictures(source, size):
        encoded = runner.encode(pictures)
        request.advance(len(pictures))  # before the last is taken: nobody asks for another
        yield from encoded
