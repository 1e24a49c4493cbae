"""The flags of every command that takes a clip: which part of it, where its depth is from, and who filmed it."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

# tyro would write "{None}|FLOAT" and "(default: None)": a plain word, and no default where there is none.
_OptionalFloat = float | None
_OptionalInt = int | None
Flag = Annotated[bool, arg(help_behavior_hint="")]
"""A flag that is off unless it is typed."""


def optional(metavar: str, **more: Any) -> Any:
    """tyro settings of a flag that may be left out."""
    return arg(metavar=metavar, help_behavior_hint="", **more)


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Flags of `run`, `recon` and `depth`. `options.FIELDS` says where each belongs in `RunConfig`."""

    input: Annotated[Positional[str | None], optional("INPUT")] = None
    """a video, a picture, or an RGB-D folder (Record3D, TUM, 7-Scenes)"""

    depth: Annotated[str, arg(metavar="auto|NAME|PATH")] = "auto"
    """auto: the best there is without a download; an estimator's name (layout: instant preview); or a file or
    folder: npz, npy, 16-bit PNG or EXR folder, gray16 video, RGB-D folder"""
    depth_kind: Literal["auto", "depth", "disparity"] = "auto"
    """what a depth file holds; auto: by its name"""
    depth_scale: Annotated[_OptionalFloat, optional("N")] = None
    """numbers per metre in a depth file (default: integers 1000, floats as they are)"""
    max_depth: Annotated[_OptionalFloat, optional("Z")] = None
    """depth beyond this counts as unknown, in the unit of the depth"""
    fov_deg: Annotated[_OptionalFloat, optional("DEG")] = None
    """horizontal field of view of the clip (default: the file's K, else what the clip's motion says, else 58 across)"""
    focal_px: Annotated[_OptionalFloat, optional("PX")] = None
    """the same as a focal length, pixels at the working size"""
    source_cameras: Annotated[str, arg(metavar="auto|static|FILE")] = "auto"
    """the clip's own cameras; auto: found in the clip if it moves; or a file or folder (as for --cam)"""
    depth_anchor: Annotated[str, arg(metavar="auto|none|landmarks|NAME")] = "auto"
    """what gives disparity its scale and shift: a metric estimator, or points seen from several frames"""
    depth_size: Annotated[_OptionalInt, optional("PX")] = None
    """shorter side that a depth network sees (default: 518 on a GPU, 294 on a CPU)"""
    depth_device: Literal["auto", "cpu", "cuda"] = "auto"
    """where depth networks run"""
    subject_mask: Annotated[str | None, optional("PATH")] = None
    """masks of people and things for --depth builtin: pictures, video or npz, white = subject"""
    no_snap: Flag = False
    """leave estimated depth as it is along outlines"""

    start: Annotated[float, arg(metavar="S")] = 0.0
    """first second to use"""
    end: Annotated[_OptionalFloat, optional("S")] = None
    """second to stop at"""
    frames: Annotated[str | None, optional("A:B")] = None
    """frames A to B-1 instead of seconds"""
    max_side: Annotated[_OptionalInt, optional("PX")] = None
    """shrink so that no side is longer (default: native size)"""
    fps: Annotated[_OptionalFloat, optional("FPS")] = None
    """resample to this rate (default: every frame)"""

    seed: int = 0
    """of every random choice"""
    no_cache: Flag = False
    """neither read nor keep estimated depth"""
    download: Flag = False
    """fetch the weights of the depth estimator if they are missing (size and licence are shown first)"""
    resume: Flag = False
    """go on with an interrupted run of the same command"""
    overwrite: Flag = False
    """replace what an earlier run left in the folder"""
