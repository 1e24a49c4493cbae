"""The noun `DepthVideo`: a chunk of depth maps."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ex4d.core.arrays import Bool, Float32, Float64, check_array

DepthScale = Literal["metric", "relative"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthVideo:
    """Depth of consecutive frames.

    Attributes:
        depth: float32 [T,H,W], z along the camera's forward axis in the scene's unit;
            finite and > 0 where `valid`, 0 elsewhere.
        valid: bool [T,H,W], True where the depth is known.
        timestamps_s: float64 [T], presentation times in seconds, those of the video frames.
        scale: ``"metric"`` (the unit is a metre) or ``"relative"`` (unknown unit).
    """

    depth: Float32
    valid: Bool
    timestamps_s: Float64
    scale: DepthScale

    def __post_init__(self) -> None:
        check_array("DepthVideo.depth", self.depth, np.float32, (None, None, None))
        check_array("DepthVideo.valid", self.valid, np.bool_, self.depth.shape)
        check_array("DepthVideo.timestamps_s", self.timestamps_s, np.float64, (len(self.depth),))
        if self.scale not in ("metric", "relative"):
            raise ValueError(f"DepthVideo.scale: expected 'metric' or 'relative', got {self.scale!r}")
        bad = self.valid & ~((self.depth > 0) & np.isfinite(self.depth))
        if bad.any():
            raise ValueError(f"DepthVideo.depth: {int(bad.sum())} valid pixels are not finite and > 0")

    def __len__(self) -> int:
        return len(self.depth)

    @property
    def height(self) -> int:
        return self.depth.shape[1]

    @property
    def width(self) -> int:
        return self.depth.shape[2]

    def slice(self, start: int, stop: int) -> "DepthVideo":
        """Frames ``start:stop`` of this chunk (views, no copy)."""
        return DepthVideo(
            depth=self.depth[start:stop],
            valid=self.valid[start:stop],
            timestamps_s=self.timestamps_s[start:stop],
            scale=self.scale,
        )
