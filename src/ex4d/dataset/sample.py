"""The noun `TrainingSample`: one clip of a dataset, and what of it the model is allowed to see."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ex4d.core.arrays import Bool, check_array
from ex4d.core.video import Video


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSample:
    """A target clip with its simulated masks.

    Attributes:
        key: name of the sample, unique in its dataset; no dots, no slashes.
        video: the target, T = 4k+1 frames with sides in multiples of 16 px.
        survived: bool [M,T,H,W], M >= 1 simulated masks; True where the model may see the target's pixel. Not eroded.
        caption: of the clip; may be empty.
        info: JSON of where it is from and how each mask was made (``masks``, a list of M).
    """

    key: str
    video: Video
    survived: Bool
    caption: str = ""
    info: Mapping[str, Any] = field(default_factory=lambda: dict[str, Any]())

    def __post_init__(self) -> None:
        check_array("TrainingSample.survived", self.survived, np.bool_, (None, *self.video.frames.shape[:3]))
