"""The `depthcrafter` estimator: what the EX-4D release runs. Loads no torch before it is used."""

from dataclasses import dataclass

from ex4d.core.clip import Clip
from ex4d.core.video import Video
from ex4d.depth.estimator import EstimateRequest, SequentialDepth
from ex4d.depth.pretrained.estimator import PretrainedEstimator, pending_depth
from ex4d.errors import ConfigError
from ex4d.weights.registry import resolve

LICENCE = (
    "DepthCrafter License: code and weights for academic, research and education purposes only, never commercial or "
    "production ones; Stable Video Diffusion's parts: stable-video-diffusion-community"
)
OFFICIAL_SEED = 42
_MULTIPLE = 64
_MAX_SIDE = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthCrafterEstimator(PretrainedEstimator):
    """Satisfies `DepthEstimator`: affine-invariant disparity by video diffusion, in windows of 110 frames.

    The result is the mean of the decoded colours, 0–1, not stretched over the clip: the ``official`` mapping does
    that (`mapping.official_depth`), as the release does, and any other mapping does its own.
    """

    name: str = "depthcrafter"

    @property
    def licence(self) -> str:
        """Of code and weights: two licences that are none of SPDX's."""
        return LICENCE

    @property
    def weights(self) -> tuple[str, ...]:
        """The UNet, and the parts of Stable Video Diffusion around it."""
        return (self.name, "svd")

    @property
    def packages(self) -> tuple[str, ...]:
        """Of the extra ``gen``."""
        return ("torch", "diffusers", "transformers", "accelerate", "safetensors")

    def estimate(self, source: Clip[Video], request: EstimateRequest) -> SequentialDepth:
        """Disparity at the size of `network_size`, computed while it is read.

        Seed 0 is the release's 42, seed n is 42 + n.

        Args:
            source: the clip, any size and length.
            request: `short_side`, `device`, `seed` and `advance` count.

        Raises:
            MissingDependencyError, WeightsError: not installed; not pulled, damaged or of another model.
            ConfigError: no CUDA where it was asked for; a size of no use.
            OutOfMemoryError: the GPU is too small.
            DepthError: while it is read: NaN or infinity, the frame is named.
        """
        folder, svd = self.require(), resolve("svd")
        from ex4d.depth.pretrained.depthcrafter_networks import load_depthcrafter
        from ex4d.depth.pretrained.depthcrafter_pipeline import estimate_disparity
        from ex4d.depth.pretrained.network import pick_device

        size = network_size(source.height, source.width, request.short_side)
        model = load_depthcrafter(folder, svd, pick_device(request.device))
        depth = pending_depth(source, size, kind="disparity", scale="relative", description="DepthCrafter")
        depth.notices = (f"licence of {self.name}: {self.licence}",)
        depth.chunks = estimate_disparity(
            model, source, size=size, seed=OFFICIAL_SEED + request.seed, advance=request.advance
        )
        return depth


def network_size(height: int, width: int, short_side: int | None = None) -> tuple[int, int]:
    """(height, width) that the networks see: each side rounded by itself to a multiple of 64, at most 1024.

    The release's rule: a clip is scaled down only if a rounded side is above 1024.

    Args:
        height: of the clip, px.
        width: of the clip, px.
        short_side: the shorter side before rounding instead, px; then there is no largest size.

    Raises:
        ConfigError: `short_side` below 64.
    """
    if short_side is not None and short_side < _MULTIPLE:
        raise ConfigError(f"a short side of at least {_MULTIPLE} px for depthcrafter", f"{short_side}")
    scale = 1.0 if short_side is None else short_side / min(height, width)
    sides = _round(height * scale), _round(width * scale)
    if short_side is None and max(sides) > _MAX_SIDE:
        scale = _MAX_SIDE / max(height, width)
        sides = _round(height * scale), _round(width * scale)
    return sides


def _round(side_px: float) -> int:
    return max(_MULTIPLE, round(side_px / _MULTIPLE) * _MULTIPLE)
