"""The nouns `RenderedView` and `GeometryPrior`: what the renderer makes and what generators eat."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ex4d.core.arrays import Bool, Float32, Float64, UInt8, check_array
from ex4d.core.camera import CameraPath
from ex4d.core.clip import Clip
from ex4d.core.depth import DepthVideo
from ex4d.core.video import Video


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedView:
    """Consecutive frames seen from the target path.

    Attributes:
        rgb: uint8 [T,H,W,3] sRGB; black where not observed.
        observed: bool [T,H,W], True where the source clip saw the surface in view.
        depth: float32 [T,H,W], z in the target camera, scene units; 0 where not observed.
        timestamps_s: float64 [T].
    """

    rgb: UInt8
    observed: Bool
    depth: Float32
    timestamps_s: Float64

    def __post_init__(self) -> None:
        check_array("RenderedView.rgb", self.rgb, np.uint8, (None, None, None, 3))
        check_array("RenderedView.observed", self.observed, np.bool_, self.rgb.shape[:3])
        check_array("RenderedView.depth", self.depth, np.float32, self.rgb.shape[:3])
        check_array("RenderedView.timestamps_s", self.timestamps_s, np.float64, (len(self.rgb),))

    def __len__(self) -> int:
        return len(self.rgb)

    @property
    def height(self) -> int:
        return self.rgb.shape[1]

    @property
    def width(self) -> int:
        return self.rgb.shape[2]

    def slice(self, start: int, stop: int) -> "RenderedView":
        """Frames ``start:stop`` of this chunk (views, no copy)."""
        return RenderedView(
            rgb=self.rgb[start:stop],
            observed=self.observed[start:stop],
            depth=self.depth[start:stop],
            timestamps_s=self.timestamps_s[start:stop],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GeometryPrior:
    """All that the geometry says of a new view: what generators, exports and a prior folder hold.

    Attributes:
        view: the target view, N frames.
        path: the target cameras, N of them.
        source: the source clip at working size.
        source_depth: its depth.
        source_path: its cameras, one a source frame.
        config: the resolved configuration, JSON types only.
        seed: the seed all random choices came from.
        coverage: float64 [N], observed share of each target frame, 0–1.
        info: provenance for people and tools (versions, input hash, depth source, notices).
    """

    view: Clip[RenderedView]
    path: CameraPath
    source: Clip[Video]
    source_depth: Clip[DepthVideo]
    source_path: CameraPath
    config: Mapping[str, Any]
    seed: int
    coverage: Float64
    info: Mapping[str, Any] = field(default_factory=lambda: dict[str, Any]())

    def __post_init__(self) -> None:
        num = len(self.path)
        check_array("GeometryPrior.coverage", self.coverage, np.float64, (num,))
        if self.view.num_frames != num:
            raise ValueError(f"GeometryPrior: {self.view.num_frames} view frames for {num} cameras")
        if len(self.source_path) != self.source.num_frames:
            raise ValueError(f"GeometryPrior: {len(self.source_path)} source cameras for {self.source.num_frames}")
