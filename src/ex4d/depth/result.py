"""What `resolve_depth` is told and what it returns."""

import math
from dataclasses import dataclass, field

from ex4d.core.arrays import Float64, Int64
from ex4d.core.camera import CameraPath, static_path
from ex4d.core.clip import Clip
from ex4d.core.depth import DepthVideo
from ex4d.depth.estimator import Device
from ex4d.depth.mapping import DEFAULT_FLOOR, MappingName
from ex4d.errors import ConfigError
from ex4d.io.depth.files import KindOption
from ex4d.io.rgbd.poses import build_path


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthConfig:
    """Where depth comes from and how it is read.

    Attributes:
        depth: ``"auto"`` (given > estimator whose weights are on disk > layout preview), an estimator's name,
            or a file or folder.
        kind: what a file holds; ``"auto"`` decides by its name.
        scale: numbers per metre in a file (1000 = millimetres), > 0; None: by the file's type.
        mapping: how disparity becomes depth: ``"floor"`` or ``"official"``.
        floor: disparity of the farthest surface when the nearest is 1, in (0, 1); ``"floor"`` mapping only.
        max_depth: largest valid depth in the unit of the given depth, > 0; None: no limit.
        anchor: what ties disparity without scale and shift to depth: ``"auto"`` (a metric estimator that is on disk,
            else landmarks where the camera moves, else `floor`), ``"none"``, ``"landmarks"`` or an estimator's name.
        subject_mask: file or folder of masks of what stands upright, for ``builtin``; None: it looks for itself.
        short_side: shorter side that networks see, px; None: their own choice.
        device: where networks run.
        snap: whether estimates are freed of pixels that float between two surfaces.
        cache: whether estimators' results are kept and reused.
        download: whether weights that are missing may be fetched.
    """

    depth: str = "auto"
    kind: KindOption = "auto"
    scale: float | None = None
    mapping: MappingName = "floor"
    floor: float = DEFAULT_FLOOR
    max_depth: float | None = None
    anchor: str = "auto"
    subject_mask: str | None = None
    short_side: int | None = None
    device: Device = "auto"
    snap: bool = True
    cache: bool = True
    download: bool = False

    def __post_init__(self) -> None:
        for name in ("scale", "max_depth"):
            value: float | None = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"depth.{name} > 0", f"{value}")
        if not 0 < self.floor < 1:
            raise ConfigError("depth.floor between 0 and 1", f"{self.floor}")
        if self.kind not in ("auto", "depth", "disparity"):
            raise ConfigError("depth.kind auto, depth or disparity", repr(self.kind))
        if self.short_side is not None and not 56 <= self.short_side <= 2048:
            raise ConfigError("depth.short_side from 56 to 2048 px", str(self.short_side))
        if self.device not in ("auto", "cpu", "cuda"):
            raise ConfigError("depth.device auto, cpu or cuda", repr(self.device))
        if self.mapping not in ("floor", "official"):
            raise ConfigError("depth.mapping floor or official", repr(self.mapping))


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What the working clip is of the whole input: given depth may belong to either.

    Attributes:
        num_frames: frames of the whole input.
        height: px of the whole input (before any resizing).
        width: px.
        frame_index: int64 [T], which input frame each working frame is.
    """

    num_frames: int
    height: int
    width: int
    frame_index: Int64


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthResult:
    """The depth of a run.

    Attributes:
        depth: at the source's size, frame for frame, with the source's timestamps.
        K: float64 [3,3] in pixels of the source, corner origin, or None where the depth brings none.
        path: source cameras in the depth's unit, or None.
        world_to_camera: float64 [T,4,4], poses alone (known even where K is not), or None.
        name: ``"file"``, ``"rgbd"`` or the estimator's name: what is stored.
        description: the same for people.
        is_preview: True where no depth was measured or estimated at all.
        notices: what was assumed or substituted; must be shown.
    """

    depth: Clip[DepthVideo]
    K: Float64 | None
    path: CameraPath | None
    world_to_camera: Float64 | None = None
    name: str
    description: str
    is_preview: bool = False
    notices: tuple[str, ...] = field(default=())

    def source_path(self, K: Float64) -> CameraPath:
        """The source cameras with the chosen K: known poses, else a camera that stands still."""
        if self.path is not None:
            return self.path
        height, width = self.depth.height, self.depth.width
        if self.world_to_camera is not None:
            return build_path(self.world_to_camera, K, height=height, width=width)
        return static_path(K=K, num_frames=self.depth.num_frames, height=height, width=width)
