"""The background that cards stand on where nothing is measured: the layout's ground, walls and sky, at working size."""

from dataclasses import dataclass

import numpy as np

from ex4d.core.arrays import Bool, Float32
from ex4d.core.clip import Clip
from ex4d.core.video import Video
from ex4d.depth.estimator import EstimateRequest
from ex4d.depth.layout import LayoutDepth, LayoutEstimator
from ex4d.io.depth.clip import nearest_index
from ex4d.motion.flow import work_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Background:
    """The background of one clip; use `find_background`.

    Attributes:
        layout: of the clip, at its own size.
        ground: float32 [h,w], disparity without sky, larger = nearer.
    """

    layout: LayoutDepth
    ground: Float32

    def disparity(self, index: int) -> Float32:
        """float32 [h,w] > 0: of a frame, with its sky."""
        return np.reciprocal(self._depth(index), dtype=np.float32)

    def sky(self, index: int) -> Bool:
        """bool [h,w]: where a frame shows sky."""
        return self._depth(index) > 1.001 / self.ground

    def _depth(self, index: int) -> Float32:
        values = self.layout.read(index, index + 1).values[0]
        height, width = self.ground.shape
        rows, columns = nearest_index(values.shape[0], height), nearest_index(values.shape[1], width)
        return values[rows[:, None], columns]


def find_background(source: Clip[Video]) -> Background:
    """Look at some frames of a clip and fix its background."""
    layout = LayoutEstimator().estimate(source, EstimateRequest())
    height, width = work_size(source.height, source.width)
    rows, columns = nearest_index(source.height, height), nearest_index(source.width, width)
    return Background(layout=layout, ground=np.ascontiguousarray(layout.base[rows[:, None], columns]))
