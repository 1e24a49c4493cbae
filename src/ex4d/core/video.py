"""The noun `Video`: a chunk of decoded frames."""

from dataclasses import dataclass

import numpy as np

from ex4d.core.arrays import Float64, UInt8, check_array


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """Consecutive frames of a clip.

    Attributes:
        frames: uint8 [T,H,W,3], sRGB (BT.709 primaries), 0–255.
        timestamps_s: float64 [T], true presentation times in seconds, increasing.
    """

    frames: UInt8
    timestamps_s: Float64

    def __post_init__(self) -> None:
        check_array("Video.frames", self.frames, np.uint8, (None, None, None, 3))
        check_array("Video.timestamps_s", self.timestamps_s, np.float64, (len(self.frames),))

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def height(self) -> int:
        return self.frames.shape[1]

    @property
    def width(self) -> int:
        return self.frames.shape[2]

    def slice(self, start: int, stop: int) -> "Video":
        """Frames ``start:stop`` of this chunk (views, no copy)."""
        return Video(frames=self.frames[start:stop], timestamps_s=self.timestamps_s[start:stop])
