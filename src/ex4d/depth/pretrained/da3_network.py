"""DA3METRIC-LARGE: DINOv2-L and a DPT head with a second, sky, output; no attention between pictures.

Structure from the release's model/dinov2/vision_transformer.py and model/dpt.py with configs/da3metric-large.yaml.
Unlike Depth Anything V2: the last LayerNorm has torch's default epsilon, the coarsest fusion has one residual unit,
depth is the exponential of the last layer, and there is no mask token.
"""

from collections.abc import Mapping

from accelerate import init_empty_weights
from torch import Tensor, nn
from torch.nn.functional import interpolate
from transformers import DepthAnythingForDepthEstimation

from ex4d.depth.pretrained.network import depth_anything_config, fill, make_base
from ex4d.depth.pretrained.official_names import da3_metric_names
from ex4d.depth.pretrained.sizes import PATCH_PX, VIT_LARGE, NetworkSizes

_LAST_NORM_EPS = 1e-5
_HIDDEN = 32
"""Channels between the last two layers of either output."""


class Da3MetricNetwork(nn.Module):
    """Canonical depth and sky of single pictures."""

    def __init__(self, sizes: NetworkSizes = VIT_LARGE) -> None:
        super().__init__()
        config = depth_anything_config(sizes, mask_token=False)
        self.base: DepthAnythingForDepthEstimation = make_base(config)
        self.base.backbone.layernorm.eps = _LAST_NORM_EPS
        self.base.neck.fusion_stage.layers[0].residual_layer1 = nn.Identity()  # never called: it has no second input
        with init_empty_weights(include_buffers=False):
            self.sky = nn.Sequential(
                nn.Conv2d(sizes.fusion // 2, _HIDDEN, 3, padding=1), nn.ReLU(), nn.Conv2d(_HIDDEN, 1, 1)
            )

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Of pictures [n,3,h,w] (ImageNet-normalised RGB, sides multiples of 14), each float32 [n,h,w].

        Returns:
            Depth > 0 in metres for a focal length of 300 px of this picture: metres = focal_px / 300 · depth (README;
            utils/alignment.py takes K of the resized picture). Sky >= 0, open sky from 0.3 on.
        """
        height, width = pictures.shape[2:]
        features = self.base.backbone(pictures).feature_maps
        fused = self.base.neck(features, height // PATCH_PX, width // PATCH_PX)[-1]
        head = self.base.head
        fused = interpolate(head.conv1(fused), (height, width), mode="bilinear", align_corners=True)
        depth = head.conv3(head.conv2(fused).relu()).exp()
        return depth.squeeze(1), self.sky(fused).relu().squeeze(1)


def load_da3_metric(tensors: Mapping[str, Tensor], sizes: NetworkSizes, what: str) -> Da3MetricNetwork:
    """The network with the release's tensors, float32.

    Args:
        tensors: of its ``model.safetensors``.
        sizes: of the network.
        what: the file and its role, for messages.

    Raises:
        WeightsError: lists everything missing, unknown or of another shape.
    """
    network = Da3MetricNetwork(sizes)
    fill(network, tensors, da3_metric_names(sizes), what=what)
    return network
