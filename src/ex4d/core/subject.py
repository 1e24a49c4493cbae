"""The noun `SubjectMask`: a chunk of masks of what stands upright."""

from dataclasses import dataclass

import numpy as np

from ex4d.core.arrays import Bool, Float64, check_array


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectMask:
    """Masks of consecutive frames, drawn by a user or another program.

    Attributes:
        subject: bool [T,H,W], True on people and things that stand upright on the ground.
        timestamps_s: float64 [T], presentation times in seconds, those of the video frames.
    """

    subject: Bool
    timestamps_s: Float64

    def __post_init__(self) -> None:
        check_array("SubjectMask.subject", self.subject, np.bool_, (None, None, None))
        check_array("SubjectMask.timestamps_s", self.timestamps_s, np.float64, (len(self.subject),))

    def __len__(self) -> int:
        return len(self.subject)
