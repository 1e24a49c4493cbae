"""What every RGB-D folder comes down to before it is opened: lists of files, cameras and a unit."""

from dataclasses import dataclass, field
from pathlib import Path

from ex4d.core.arrays import Float64


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One RGB-D recording, listed but not read.

    Attributes:
        color_files: one picture a frame.
        depth_files: one depth file a frame.
        timestamps_s: float64 [N].
        divisor: stored depth numbers per metre.
        unknown_code: stored number that means "unknown" beside 0, or None.
        K: float64 [3,3] or [N,3,3], pixels of the colour pictures, corner origin, or None.
        default_focal: focal length over width of this kind of recording, used without K, or None.
        camera_to_world: float64 [N,4,4], OpenCV camera axes, any world, or None.
        notices: what was assumed or left out.
        description: for people.
    """

    color_files: list[Path]
    depth_files: list[Path]
    timestamps_s: Float64
    divisor: float
    unknown_code: float | None = None
    K: Float64 | None = None
    default_focal: float | None = None
    camera_to_world: Float64 | None = None
    notices: list[str] = field(default_factory=list)
    description: str = "RGB-D folder"
