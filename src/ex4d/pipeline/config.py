"""What a run is: one frozen tree of settings, stored with every output and enough to repeat it."""

import difflib
import math
import os
import textwrap
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from typing import Any, Literal, TypeVar

from ex4d.depth.result import DepthConfig
from ex4d.errors import ConfigError
from ex4d.fill.config import FillConfig
from ex4d.mesh.config import GeometryConfig
from ex4d.model.config import GenerateConfig

Motion = Literal["relative", "world"]
Generator = Literal["fill", "wan", "none"]
T = TypeVar("T")
_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", types.NoneType: "nothing"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipConfig:
    """Which part of the input is used, and at which size.

    Attributes:
        start_s: first time, seconds from the first frame.
        end_s: end, exclusive, seconds; None = to the end.
        frames: ``"A:B"``, frames A to B-1 instead of times; either side may be empty.
        fps: resample to this rate; None = every frame, true timestamps.
        max_side: shrink so that no side is longer, px; None = native size.
    """

    start_s: float = 0.0
    end_s: float | None = None
    frames: str | None = None
    fps: float | None = None
    max_side: int | None = None

    def frame_range(self) -> tuple[int, int | None] | None:
        """(first, stop) of `frames`, stop None = to the end; None if not given."""
        if self.frames is None:
            return None
        first, colon, stop = self.frames.partition(":")
        try:
            numbers = int(first or 0), int(stop) if stop else None
            if not colon or numbers[0] < 0 or (numbers[1] is not None and numbers[1] <= numbers[0]):
                raise ValueError
        except ValueError:
            raise ConfigError("--frames A:B with 0 <= A < B", repr(self.frames), "type e.g. --frames 0:49") from None
        return numbers

    def __post_init__(self) -> None:
        if self.frame_range() is not None and (self.start_s > 0 or self.end_s is not None):
            raise ConfigError("either --frames or --start/--end", "both", "drop one of them")
        if not 0 <= self.start_s < math.inf:
            raise ConfigError("--start of at least 0 seconds", str(self.start_s))
        if self.end_s is not None and not self.start_s < self.end_s < math.inf:
            raise ConfigError(f"--end after --start ({self.start_s:g} s)", str(self.end_s))
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise ConfigError("--fps above 0, at most 1000", str(self.fps))
        if self.max_side is not None and self.max_side < 16:
            raise ConfigError("--max-side of at least 16 px", str(self.max_side))


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraConfig:
    """Where the new cameras go.

    Attributes:
        cam: presets ``NAME[:VALUE]``, keyframe files or camera files; one prior folder each.
        pivot: ``auto``, ``near``, ``median``, ``PX,PY`` or a depth in scene units.
        source_cameras: ``auto`` (those that come with the depth, else found in the clip where it moves), ``static``,
            or a file or folder of cameras, one a frame.
        motion: where the source camera is known to move: ``relative`` adds the path to its motion (keeps the
            shake, as EX-4D does), ``world`` starts at its first view and ignores how it moves on (steady).
        freeze: hold this source frame (an index into the selected frames) while the camera moves.
        num_frames: output frames; only with `freeze` or a still.
        fov_deg: horizontal field of view of the source camera, degrees.
        focal_px: focal length of the source camera, px at the working size.
    """

    cam: tuple[str, ...] = ("30",)
    pivot: str = "auto"
    source_cameras: str = "auto"
    motion: Motion = "relative"
    freeze: int | None = None
    num_frames: int | None = None
    fov_deg: float | None = None
    focal_px: float | None = None

    def __post_init__(self) -> None:
        if not self.cam:
            raise ConfigError("at least one --cam", "none", "type e.g. --cam 30")
        if len(set(self.cam)) != len(self.cam):
            raise ConfigError("different cameras", f"the same --cam twice: {', '.join(self.cam)}")
        if self.motion not in ("relative", "world"):
            raise ConfigError("--motion relative or world", repr(self.motion))
        if self.freeze is not None and self.freeze < 0:
            raise ConfigError("--freeze FRAME >= 0", str(self.freeze))
        if self.fov_deg is not None and not 0 < self.fov_deg < 180:
            raise ConfigError("--fov-deg between 0 and 180", str(self.fov_deg))
        if self.focal_px is not None and not 0 < self.focal_px < math.inf:
            raise ConfigError("--focal-px above 0", str(self.focal_px))
        if self.fov_deg is not None and self.focal_px is not None:
            raise ConfigError("one of --fov-deg and --focal-px", "both", "drop one of them")
        if self.pivot not in ("auto", "default", "near", "median") and not _are_numbers(self.pivot):
            raise ConfigError("--pivot auto, near, median, PX,PY or a depth", repr(self.pivot))
        if self.num_frames is not None and not 1 <= self.num_frames <= 100_000:
            raise ConfigError("--num-frames from 1 to 100000", str(self.num_frames))


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderConfig:
    """How meshes are drawn.

    Attributes:
        supersample: 1, or 2 for 2×2 samples a pixel (softer edges; the source view is then not bit-exact).
    """

    supersample: int = 1

    def __post_init__(self) -> None:
        if self.supersample not in (1, 2):
            raise ConfigError("--supersample 1 or 2", str(self.supersample))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """Everything that decides the bytes of a run.

    Attributes:
        input: the video, still or RGB-D folder, as typed.
        clip: which part of it.
        camera: the new cameras.
        depth: where depth comes from.
        geometry: how depth becomes a mesh.
        render: how meshes are drawn.
        generator: what completes the unobserved pixels: ``fill`` (no model), ``wan`` (EX-4D's diffusion model),
            ``none`` (prior only).
        fill: settings of ``fill``.
        generate: settings of ``wan``.
        seed: of every random choice.
        save_meshes: also write every frame's mesh, PLY and GLB.
        official_files: also write ``color_<cam>.mp4``, ``mask_<cam>.mp4`` and ``DW-Mesh.ply``.
    """

    input: str
    clip: ClipConfig = field(default_factory=ClipConfig)
    camera: CameraConfig = field(default_factory=CameraConfig)
    depth: DepthConfig = field(default_factory=DepthConfig)
    geometry: GeometryConfig = field(default_factory=GeometryConfig)
    render: RenderConfig = field(default_factory=RenderConfig)
    generator: Generator = "fill"
    fill: FillConfig = field(default_factory=FillConfig)
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    seed: int = 0
    save_meshes: bool = False
    official_files: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "input", os.fspath(self.input))  # a Path is as good as its text
        if self.generator not in ("fill", "wan", "none"):
            raise ConfigError("--generator fill, wan or none", repr(self.generator))
        if not 0 <= self.seed < 2**63:
            raise ConfigError("--seed from 0 to 2^63 - 1", str(self.seed))


def _are_numbers(text: str) -> bool:
    try:
        return all(math.isfinite(float(part)) for part in text.split(","))
    except ValueError:
        return False


def config_to_dict(config: RunConfig) -> dict[str, Any]:
    """JSON types only. Whether depth is cached, or weights are fetched, changes no byte and is left out."""
    data = asdict(config)
    data["camera"]["cam"] = list(config.camera.cam)
    for name in ("cache", "download"):
        del data["depth"][name]
    return data


def config_from_dict(kind: type[T], data: Mapping[str, Any], where: str = "config") -> T:
    """The inverse of `config_to_dict` for any of the classes above; validates and names unknown fields.

    Raises:
        ConfigError: a field that does not exist, has another type or is out of range.
    """
    known = fields(kind)  # pyright: ignore[reportArgumentType]
    _check_names([entry.name for entry in known], data, where)
    for entry in known:
        if entry.name not in data and entry.default is MISSING and entry.default_factory is MISSING:
            raise ConfigError(f"{_join(where, entry.name)}, which has no default", "none", f"add {entry.name}")
    hints = typing.get_type_hints(kind)
    return kind(**{name: _convert(hints[name], value, _join(where, name)) for name, value in data.items()})


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _check_names(known: Sequence[str], given: Iterable[str], where: str) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        fix = f"did you mean {near[0]}?" if near else "remove it; was another version used?"
        raise ConfigError(f"only known fields{where and f' in {where}'} ({', '.join(known)})", ", ".join(unknown), fix)


def _convert(hint: Any, value: Any, where: str) -> Any:
    if is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"a group of fields at {where}", _shown(value))
        return config_from_dict(typing.cast(type[Any], hint), value, where)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"a list at {where}", _shown(value))
        return tuple(_convert(typing.get_args(hint)[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if typing.get_origin(hint) is Literal:
        return value
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if float in allowed and type(value) is int:
        return float(value)
    if type(value) not in allowed:
        raise ConfigError(f"{' or '.join(_WORDS.get(kind, str(kind)) for kind in allowed)} at {where}", _shown(value))
    return value


def _shown(value: Any) -> str:
    """As it was written, but short."""
    return textwrap.shorten(repr(value), 80, placeholder=" …")
