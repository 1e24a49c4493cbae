"""From what a person types (``orbit-left:45``) to a `CameraPath`."""

import difflib
import math
import re
from dataclasses import dataclass

import numpy as np

from ex4d.camera.config import PathRequest, linear_progress, smoothstep
from ex4d.camera.presets import DEGREES, PRESETS, Preset, Value, value_text
from ex4d.core.arrays import Float64
from ex4d.core.camera import CameraPath
from ex4d.errors import CameraPathError

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)")
_SEE = "see `ex4d run --help` for all presets"


@dataclass(frozen=True, slots=True, kw_only=True)
class PathSpec:
    """A parsed ``NAME[:VALUE]``.

    Attributes:
        preset: the row of the table.
        values: its numbers, defaults filled in.
        given: True when the numbers were typed.
    """

    preset: Preset
    values: tuple[float, ...]
    given: bool

    @property
    def slug(self) -> str:
        """A name for folders and files on any system: ``orbit-left_45``, ``-45``, ``full``."""
        numbers = [f"{value:.12g}" for value in self.values]
        if self.preset.name == DEGREES:
            return numbers[0]
        return "_".join([self.preset.name, *(numbers if self.given else [])])


def parse_spec(spec: str) -> PathSpec:
    """Parse a preset and check its values; needs no clip, so that a typing error stops before any work.

    Args:
        spec: ``NAME`` or ``NAME:VALUE`` (``arc:YAW,ELEV``), or a bare number of degrees in [-90, 90], or ``180``.

    Raises:
        CameraPathError: unknown name (with near matches), a value that is missing, not a number or out of range.
    """
    text = spec.strip()
    if text not in PRESETS and _NUMBER.fullmatch(text):
        return _parse_degrees(text)
    name, colon, tail = text.partition(":")
    if name not in PRESETS or name == DEGREES:
        raise _unknown(text, name)
    preset = PRESETS[name]
    if not colon:
        return PathSpec(preset=preset, values=tuple(value.default for value in preset.values), given=False)
    if not preset.values:
        raise CameraPathError(f"the preset {name!r} without a value", f"{text!r}", f"type --cam {name}")
    parts = tail.split(",")
    if len(parts) != len(preset.values):
        usage = f"{name}:{','.join(value.name for value in preset.values)}"
        raise CameraPathError(f"{usage} ({len(preset.values)} numbers)", f"{text!r}", _describe(preset))
    numbers = tuple(_number(part, value, preset) for part, value in zip(parts, preset.values, strict=True))
    return PathSpec(preset=preset, values=numbers, given=True)


def _parse_degrees(text: str) -> PathSpec:
    degrees = float(text)
    if degrees == 180:
        return PathSpec(preset=PRESETS["180"], values=(), given=False)
    limit = PRESETS[DEGREES].values[0]
    if not limit.low <= degrees <= limit.high:
        raise CameraPathError(
            "a number of degrees from -90 to 90, or the preset 180",
            f"{text}",
            f"type e.g. --cam 60, or --cam orbit-{'right' if degrees > 0 else 'left'}:{min(abs(degrees), 180):g}",
        )
    return PathSpec(preset=PRESETS[DEGREES], values=(degrees + 0.0,), given=True)


def _number(text: str, value: Value, preset: Preset) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not value.low <= number <= value.high:
        raise CameraPathError(
            f"{preset.name}:{value.name} from {value.low:g} to {value.high:g}", f"{text!r}", _describe(preset)
        )
    return number + 0.0


def _describe(preset: Preset) -> str:
    values = "; ".join(value_text(value) for value in preset.values)
    return f"{preset.usage}: {preset.summary} ({values}); {_SEE}"


def _unknown(text: str, name: str) -> CameraPathError:
    names = [preset for preset in PRESETS if preset != DEGREES]
    stem = name.lower().replace("_", "-")
    near = [other for other in names if other.replace("_", "-") == stem]
    near += [other for other in difflib.get_close_matches(stem, names, n=4, cutoff=0.55) if other not in near]
    near += [other for other in names if stem and other.startswith(f"{stem}-") and other not in near]
    hint = f"did you mean {', '.join(near)}? " if near else f"known: a number from -90 to 90, {', '.join(names)}. "
    return CameraPathError("a camera preset NAME[:VALUE]", f"{text!r}", hint + _SEE)


def build_path(spec: str | PathSpec, request: PathRequest) -> CameraPath:
    """The cameras of a preset for a clip.

    Frame 0 is the source view (identity, the source K), whatever the preset; a path of one frame is that
    view. Ours move with smoothstep easing, the official ones linearly.

    Args:
        spec: what was typed, or its parsed form.
        request: the source view, pivot and frames.

    Returns:
        `CameraPath` of N cameras in the world of source frame 0.

    Raises:
        CameraPathError: the preset is unknown or its value out of range.
    """
    parsed = parse_spec(spec) if isinstance(spec, str) else spec
    progress = linear_progress(request.num_frames)
    s = progress if parsed.preset.official else smoothstep(progress)
    poses = parsed.preset.build(parsed.values, request, s)
    return CameraPath(
        K=poses.K,
        world_to_camera=poses.world_to_camera,
        source_index=request.source_index.copy(),
        height=request.height,
        width=request.width,
    )


def path_notices(spec: str | PathSpec, request: PathRequest) -> tuple[str, ...]:
    """What a person should know of a path before it is rendered."""
    parsed = parse_spec(spec) if isinstance(spec, str) else spec
    if request.num_frames == 1 and parsed.preset.name != "static":
        return (
            f"camera {parsed.slug}: one output frame shows the start of the path, the source view; "
            "ask for more frames with --num-frames to see it move",
        )
    return ()


def relative_to(path: CameraPath, world_to_camera: Float64) -> CameraPath:
    """The same motion started from another camera: each output is ``path[i] · world_to_camera``.

    Args:
        path: a path that starts at the identity.
        world_to_camera: float64 [4,4], the camera to start from (e.g. of the frozen frame of a moving
            source), or float64 [N,4,4], one a frame (e.g. to keep the shake of the source).

    Returns:
        `CameraPath` of the same K, frames and size.

    Raises:
        ValueError: the shape is neither, or the transform is not rigid.
    """
    matrices = np.broadcast_to(world_to_camera, path.world_to_camera.shape)
    return CameraPath(
        K=path.K,
        world_to_camera=path.world_to_camera @ matrices,
        source_index=path.source_index,
        height=path.height,
        width=path.width,
    )
