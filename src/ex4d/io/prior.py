"""The prior folder: what `recon` writes and generators, exports and people read.

::

    color.mkv          FFV1, target view, black where unobserved
    mask.mkv           FFV1 gray, 255 = observed
    depth.mkv          FFV1 gray16 codes of the target view (`core.depth_codes`), 0 = unobserved
    source.mkv         FFV1, source frames at working size
    source_depth.mkv   FFV1 gray16 codes of the source depth, 0 = invalid
    cameras.json       target cameras, one a target frame
    source_cameras.json  source cameras, one a source frame
    prior.json         config, seed, versions, input hash, depth source, z_min, timestamps, coverage
    preview.mp4 sheet.png meshes/frame_000000.ply     for people
    timings.json       the only file that may differ between two equal runs
    result.mp4         what `run` and `fill` add
"""

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ex4d.core.arrays import Float64
from ex4d.core.camera import CameraPath
from ex4d.core.depth import DepthScale, DepthVideo
from ex4d.core.depth_codes import decode_depth
from ex4d.core.view import GeometryPrior, RenderedView
from ex4d.errors import CameraPathError, InputError
from ex4d.io.atomic import write_json_atomic
from ex4d.io.cameras.files import read_cameras
from ex4d.io.strict_json import read_json_object
from ex4d.io.video_lossless import LosslessClip, VideoClip

SCHEMA_VERSION = 1
COLOR, MASK, DEPTH = "color.mkv", "mask.mkv", "depth.mkv"
SOURCE, SOURCE_DEPTH = "source.mkv", "source_depth.mkv"
CAMERAS, SOURCE_CAMERAS, PRIOR, TIMINGS = "cameras.json", "source_cameras.json", "prior.json", "timings.json"
REQUIRED = (COLOR, MASK, DEPTH, SOURCE, SOURCE_DEPTH, CAMERAS, SOURCE_CAMERAS)
"""Without these a folder is no prior folder."""
PREVIEW, SHEET, RESULT, MESH = "preview.mp4", "sheet.png", "result.mp4", "meshes/frame_000000.ply"


class CodedDepthClip:
    """A gray16 depth stream as a `Clip[DepthVideo]`."""

    def __init__(self, path: Path, *, z_min: float, scale: DepthScale, timestamps_s: Float64) -> None:
        self._clip = LosslessClip(path, "gray16", timestamps_s=timestamps_s)
        self._z_min = z_min
        self._scale: DepthScale = scale

    @property
    def num_frames(self) -> int:
        return self._clip.num_frames

    @property
    def height(self) -> int:
        return self._clip.height

    @property
    def width(self) -> int:
        return self._clip.width

    @property
    def timestamps_s(self) -> Float64:
        return self._clip.timestamps_s

    def read(self, start: int, stop: int) -> DepthVideo:
        """The chunk of frames ``start:stop``."""
        depth, valid = decode_depth(self._clip.read(start, stop), self._z_min)
        return DepthVideo(depth=depth, valid=valid, timestamps_s=self.timestamps_s[start:stop], scale=self._scale)

    def close(self) -> None:
        """End the decoder."""
        self._clip.close()


class PriorViewClip:
    """color.mkv, mask.mkv and depth.mkv as a `Clip[RenderedView]`."""

    def __init__(self, folder: Path, *, z_min: float, timestamps_s: Float64) -> None:
        self._color = VideoClip(folder / COLOR, timestamps_s=timestamps_s)
        self._mask = LosslessClip(folder / MASK, "gray", timestamps_s=timestamps_s)
        self._depth = LosslessClip(folder / DEPTH, "gray16", timestamps_s=timestamps_s)
        self._z_min = z_min
        sizes = {(clip.height, clip.width) for clip in (self._color, self._mask, self._depth)}
        if len(sizes) > 1:
            raise InputError("color.mkv, mask.mkv and depth.mkv of one size", str(sorted(sizes)), "run recon again")

    @property
    def num_frames(self) -> int:
        return self._color.num_frames

    @property
    def height(self) -> int:
        return self._color.height

    @property
    def width(self) -> int:
        return self._color.width

    @property
    def timestamps_s(self) -> Float64:
        return self._color.timestamps_s

    def read(self, start: int, stop: int) -> RenderedView:
        """The chunk of frames ``start:stop``."""
        depth, _ = decode_depth(self._depth.read(start, stop), self._z_min)
        observed = self._mask.read(start, stop) > 127
        return RenderedView(
            rgb=self._color.read(start, stop).frames,
            observed=observed,
            depth=depth,
            timestamps_s=self.timestamps_s[start:stop],
        )

    def close(self) -> None:
        """End the decoders."""
        for clip in (self._color, self._mask, self._depth):
            clip.close()


def open_prior(folder: Path | str, *, info: Mapping[str, Any] | None = None) -> GeometryPrior:
    """A prior folder as a `GeometryPrior`; frames are read when asked for.

    Args:
        folder: what `recon` wrote.
        info: the content of prior.json where it is not written yet.

    Raises:
        InputError: not a prior folder, or parts of it missing or of another size or count.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError("a prior folder (made by `ex4d recon`)", f"{folder}, which is no folder", "check the name")
    missing = [name for name in REQUIRED if not (folder / name).is_file()]
    if missing or (info is None and not (folder / PRIOR).is_file()):
        raise InputError(
            f"a prior folder in {folder}", f"{', '.join(missing) or PRIOR} missing", "make it with `ex4d recon`"
        )
    data = read_json_object(folder / PRIOR) if info is None else info
    try:
        _check_info(data, is_stored=info is None)
    except (KeyError, TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f"a {PRIOR} as recon writes it in {folder}", reason, "make it again with `ex4d recon`"
        ) from error
    return _assemble(folder, data)


def _check_info(data: Mapping[str, Any], *, is_stored: bool) -> None:
    """Raise ValueError (or what a missing or mistyped field raises) unless every field that is used makes sense."""
    if is_stored and data["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"schema_version {data['schema_version']!r}, not {SCHEMA_VERSION}")
    for name in ("depth", "source_depth"):
        z_min = data["z_min"][name]
        if type(z_min) not in (int, float) or not 1e-12 < z_min < 1e12:
            raise ValueError(f"z_min.{name} = {z_min!r}")
    for name in ("timestamps_s", "source_timestamps_s"):
        times = np.array(data[name], np.float64)
        if times.ndim != 1 or not np.isfinite(times).all() or (np.diff(times) <= 0).any() or (times < 0).any():
            raise ValueError(f"{name} are not increasing times")
    if not 0 < float(Fraction(data["fps"])) <= 100_000:
        raise ValueError(f"fps = {data['fps']!r}")
    if type(data["seed"]) is not int:
        raise ValueError(f"seed = {data['seed']!r}")
    if data["depth"]["scale"] not in ("metric", "relative"):
        raise ValueError(f"depth.scale = {data['depth']['scale']!r}")
    coverage = np.array(data["coverage"], np.float64)
    if coverage.shape != (len(data["timestamps_s"]),) or not ((coverage >= 0) & (coverage <= 1)).all():
        raise ValueError("coverage is not one share a frame")
    if not isinstance(data["config"], Mapping) or not isinstance(data["config"].get("geometry", {}), Mapping):
        raise ValueError("config is no object")


def _assemble(folder: Path, data: Mapping[str, Any]) -> GeometryPrior:
    times = np.array(data["timestamps_s"], np.float64)
    source_times = np.array(data["source_timestamps_s"], np.float64)
    z_min = data["z_min"]
    sizes = f"cameras and frames of one size and number in {folder}"
    path, source_path = _cameras(folder / CAMERAS), _cameras(folder / SOURCE_CAMERAS)
    if len(path) != len(times) or len(source_path) != len(source_times):
        raise InputError(sizes, f"{len(path)} and {len(source_path)} cameras", "make it again with `ex4d recon`")
    if path.source_index.max() >= len(source_times):
        raise InputError(sizes, f"source_index {path.source_index.max()}", "make it again with `ex4d recon`")
    source_depth = CodedDepthClip(
        folder / SOURCE_DEPTH,
        z_min=float(z_min["source_depth"]),
        scale=data["depth"]["scale"],
        timestamps_s=source_times,
    )
    source = VideoClip(folder / SOURCE, timestamps_s=source_times)
    view = PriorViewClip(folder, z_min=float(z_min["depth"]), timestamps_s=times)
    found = (
        {(clip.height, clip.width) for clip in (view, path)},
        {(clip.height, clip.width) for clip in (source, source_depth, source_path)},
    )
    if any(len(one) > 1 for one in found):
        raise InputError(sizes, str([sorted(one) for one in found]), "make it again with `ex4d recon`")
    return GeometryPrior(
        view=view,
        path=path,
        source=source,
        source_depth=source_depth,
        source_path=source_path,
        config=data["config"],
        seed=int(data["seed"]),
        coverage=np.array(data["coverage"], np.float64),
        info=data,
    )


def _cameras(file: Path) -> CameraPath:
    return read_cameras(file).path


def write_prior_json(folder: Path, info: Mapping[str, Any]) -> None:
    """Write prior.json; call it last: its presence says that the folder is complete."""
    write_json_atomic(folder / PRIOR, {"schema_version": SCHEMA_VERSION, **info})


def read_info(folder: Path) -> dict[str, Any] | None:
    """prior.json of a folder, or None where there is no (readable) one."""
    try:
        return read_json_object(folder / PRIOR)
    except CameraPathError:
        return None


def close_prior(prior: GeometryPrior) -> None:
    """End the decoders behind a prior opened by `open_prior`."""
    for clip in (prior.view, prior.source, prior.source_depth):
        if isinstance(clip, PriorViewClip | VideoClip | CodedDepthClip):
            clip.close()
