"""The flags that `run` and `recon` share, flat, and how they become a `RunConfig` and back."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from tyro.conf import UseAppendAction, arg

from ex4d.cli.source_options import Flag, SourceOptions, optional

if TYPE_CHECKING:
    from ex4d.pipeline.config import RunConfig

# tyro would write "{None}|FLOAT" and "(default: None)": a plain word, and no default where there is none.
_OptionalFloat = float | None
_OptionalInt = int | None


@dataclass(frozen=True, kw_only=True)
class _Target:
    """Where the new cameras go, and the files. A base of its own, so that these flags come first in the help."""

    cam: Annotated[UseAppendAction[tuple[str, ...]], optional("NAME[:VALUE]")] = ()
    """where the camera goes: degrees, a preset (table below), or a file; repeat the flag for several cameras
    (default: 30)"""
    output_dir: Annotated[Path | None, optional("FOLDER", aliases=("-o",))] = None
    """folder to write; it must be new or empty (default: <input>_<cam> here)"""


@dataclass(frozen=True, kw_only=True)
class ReconOptions(SourceOptions, _Target):
    """Flags of `recon` and `run`. Names on the left are typed; `FIELDS` says where each belongs in `RunConfig`."""

    pivot: Annotated[str, arg(metavar="auto|near|median|PX,PY|Z")] = "auto"
    """depth to turn about; auto: the subject in the middle (20th percentile of the central third)"""
    motion: Literal["relative", "world"] = "relative"
    """where the clip's own camera moves: follow it, or stay with its first view (steady)"""
    freeze: Annotated[_OptionalInt, optional("FRAME")] = None
    """bullet time: hold this frame while the camera moves"""
    num_frames: Annotated[_OptionalInt, optional("N")] = None
    """frames to make, with --freeze or a picture (default: as the clip; 49 for a picture)"""

    geometry: Literal["default", "official"] = "default"
    """how depth becomes a mesh: ours, or as the EX-4D release does it"""
    tear_angle_deg: Annotated[_OptionalFloat, optional("DEG")] = None
    """faces with a smaller angle are torn (default: 15, official 2.5)"""
    tear_disparity_jump: Annotated[float, arg(metavar="SHARE")] = 0.05
    """relative disparity step that makes an occlusion edge (default geometry)"""
    supersample: Literal[1, 2] = 1
    """2: 2x2 samples a pixel"""

    save_mesh: Flag = False
    """also write every frame's mesh, PLY and GLB"""
    official_files: Flag = False
    """also write color_<cam>.mp4, mask_<cam>.mp4 and DW-Mesh.ply as the EX-4D release does"""
    from_: Annotated[Path | None, optional("PRIOR.json", name="from")] = None
    """repeat the run that this prior.json (or its folder) is from; flags typed beside it win"""

    def resolve(self) -> "RunConfig":
        """The settings of a run without completion; what no flag reaches comes from ``--from`` or is the default.

        Raises:
            ConfigError, InputError: a value out of range, no INPUT, or ``--from`` names no prior.json.
        """
        from ex4d.errors import InputError
        from ex4d.pipeline.config import RunConfig

        base = RunConfig(input="") if self.from_ is None else read_config(self.from_)
        sections: dict[str, dict[str, Any]] = {}
        for name, (section, field) in FIELDS.items():
            sections.setdefault(section, {})[field] = getattr(self, name)
        sections["depth"] |= {"cache": not self.no_cache, "snap": not self.no_snap, "download": self.download}
        if self.cam:
            sections["camera"]["cam"] = self.cam
        if not self.input:
            raise InputError("an INPUT: a video, picture or RGB-D folder", "none", "type e.g. ex4d run clip.mp4")
        top = sections.pop("")
        parts = {name: replace(getattr(base, name), **values) for name, values in sections.items()}
        return replace(base, input=self.input, generator="none", **top, **parts)

    @classmethod
    def repeating(cls, prior: Path) -> Self:
        """Options with the settings of an earlier run as defaults.

        `cam` stays empty: what is typed replaces the cameras of that run instead of adding to them.
        """
        config = read_config(prior)
        values = {
            name: getattr(getattr(config, section) if section else config, field)
            for name, (section, field) in FIELDS.items()
        }
        extras = {"no_snap": not config.depth.snap, **cls.repeated_extras(config)}
        return cls(**values, **extras, input=config.input, from_=prior)

    @classmethod
    def repeated_extras(cls, config: "RunConfig") -> dict[str, Any]:
        """The settings of an earlier run that only this command has flags for."""
        return {}


FIELDS: Mapping[str, tuple[str, str]] = {
    "depth": ("depth", "depth"),
    "depth_kind": ("depth", "kind"),
    "depth_scale": ("depth", "scale"),
    "max_depth": ("depth", "max_depth"),
    "depth_anchor": ("depth", "anchor"),
    "depth_size": ("depth", "short_side"),
    "depth_device": ("depth", "device"),
    "subject_mask": ("depth", "subject_mask"),
    "source_cameras": ("camera", "source_cameras"),
    "fov_deg": ("camera", "fov_deg"),
    "focal_px": ("camera", "focal_px"),
    "pivot": ("camera", "pivot"),
    "motion": ("camera", "motion"),
    "freeze": ("camera", "freeze"),
    "num_frames": ("camera", "num_frames"),
    "start": ("clip", "start_s"),
    "end": ("clip", "end_s"),
    "frames": ("clip", "frames"),
    "max_side": ("clip", "max_side"),
    "fps": ("clip", "fps"),
    "geometry": ("geometry", "name"),
    "tear_angle_deg": ("geometry", "tear_angle_deg"),
    "tear_disparity_jump": ("geometry", "tear_disparity_jump"),
    "supersample": ("render", "supersample"),
    "seed": ("", "seed"),
    "save_mesh": ("", "save_meshes"),
    "official_files": ("", "official_files"),
}
"""Flag → (section of `RunConfig`, field); section "" is the top."""


def read_config(prior: Path) -> "RunConfig":
    """The settings stored in a prior.json, given by itself or by its folder.

    Raises:
        InputError: no such file, or nothing of that kind in it.
        ConfigError: a setting that this version does not know or accept.
    """
    from ex4d.errors import CameraPathError, InputError
    from ex4d.io.prior import PRIOR
    from ex4d.io.strict_json import read_json_object
    from ex4d.pipeline.config import RunConfig, config_from_dict

    file = prior / PRIOR if prior.is_dir() else prior
    try:
        stored = read_json_object(file).get("config")
    except CameraPathError as error:
        got = error.got or error.expected
        raise InputError(f"a {PRIOR} that `ex4d recon` or `run` wrote, at {file}", got, "check the name") from error
    if not isinstance(stored, dict):
        raise InputError(f'settings ("config") in {file}', "none", f"pass the {PRIOR} of a finished run")
    return config_from_dict(RunConfig, stored)
