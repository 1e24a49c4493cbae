"""The registry of depth estimators, and which of them are taken unasked. Imports no torch."""

from ex4d.depth.builtin import BuiltinEstimator
from ex4d.depth.estimator import DepthEstimator
from ex4d.depth.layout import LayoutEstimator
from ex4d.depth.pretrained.depth_anything import DepthAnythingEstimator
from ex4d.depth.pretrained.depth_anything_3 import DepthAnything3Estimator
from ex4d.depth.pretrained.depth_anything_metric import Da3MetricEstimator
from ex4d.depth.pretrained.depthcrafter import DepthCrafterEstimator
from ex4d.depth.pretrained.moge import MogeEstimator
from ex4d.depth.pretrained.video_depth_anything import VideoDepthAnythingEstimator

ESTIMATORS: tuple[DepthEstimator, ...] = (
    VideoDepthAnythingEstimator(),
    DepthAnythingEstimator(name="da2-small"),
    DepthAnythingEstimator(name="da2-metric-indoor", max_depth_m=20),
    DepthAnythingEstimator(name="da2-metric-outdoor", max_depth_m=80),
    Da3MetricEstimator(),
    MogeEstimator(),
    DepthAnything3Estimator(),
    DepthCrafterEstimator(),
    BuiltinEstimator(),
    LayoutEstimator(),
)
"""All that ``--depth`` knows by name."""

AUTO = ("vda-small", "builtin")
"""What ``--depth auto`` takes: the first that is ready. Both may be used for anything."""

METRIC = ("moge", "da3metric-large", "da2-metric-indoor", "da2-metric-outdoor")
"""Estimators that know metres: what ``--depth-anchor`` knows by name."""

AUTO_ANCHORS = METRIC[:2]
"""What ``--depth-anchor auto`` takes: the first that is ready. The others know rooms or streets only."""


def find_estimator(name: str) -> DepthEstimator:
    """The estimator of a name that is known to be in `ESTIMATORS`."""
    return next(estimator for estimator in ESTIMATORS if estimator.name == name)
