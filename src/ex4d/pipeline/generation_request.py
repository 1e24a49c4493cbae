"""What `ex4d generate` is asked for: read, checked, made absolute; and where its video goes."""

import os
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ex4d.errors import ConfigError, Ex4dError, InputError, OutputError
from ex4d.io import prior as names
from ex4d.io.atomic import atomic_path
from ex4d.model.config import TINY, GenerateConfig
from ex4d.pipeline.config import config_from_dict
from ex4d.pipeline.ingest import hash_path
from ex4d.weights.headers import read_json
from ex4d.weights.registry import ENTRIES

CONFIG = "config.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One `ex4d generate`.

    Attributes:
        prior: a prior folder; None with `color` and `mask`.
        color: colour video of the target view.
        mask: mask video, white = observed.
        seed: of noise and of the release's random erosion.
        generate: settings.
    """

    prior: str | None = None
    color: str | None = None
    mask: str | None = None
    seed: int = 0
    generate: GenerateConfig = field(default_factory=GenerateConfig)

    def __post_init__(self) -> None:
        pair = (self.color is not None, self.mask is not None)
        if (self.prior is not None) == any(pair) or pair[0] != pair[1]:
            raise ConfigError(
                "a prior folder, or --color-video and --mask-video",
                "both" if self.prior is not None and any(pair) else "neither, or one video alone",
                "type e.g. ex4d generate out/",
            )
        if not 0 <= self.seed < 2**63:
            raise ConfigError("--seed from 0 to 2^63 - 1", str(self.seed))

    @property
    def paths(self) -> list[str]:
        """What is read: a folder, or two files."""
        return [path for path in (self.prior, self.color, self.mask) if path is not None]

    @property
    def inputs(self) -> dict[str, str]:
        """SHA-256 of what is read."""
        if self.prior is not None:
            folder = Path(self.prior)
            return {name: hash_path(folder / name) for name in (names.PRIOR, names.COLOR, names.MASK)}
        return {name: hash_path(Path(str(path))) for name, path in (("color", self.color), ("mask", self.mask))}


def read_request(file: Path) -> GenerationRequest:
    """The request that a config.json (or its folder) is from.

    Raises:
        InputError: no such file, or nothing of that kind.
        ConfigError: a setting that this version does not know or accept.
    """
    stored = _read_config(file).get("request")
    if not isinstance(stored, dict):
        expected = f"a {CONFIG} that `ex4d generate` wrote, at {file}"
        raise InputError(expected, "JSON without a request", "a prior.json is repeated by `ex4d run --from`")
    return config_from_dict(GenerationRequest, stored, "request")


def changed_inputs(file: Path, request: GenerationRequest) -> tuple[str, ...]:
    """What a request reads that is not what it was when the config.json (or its folder) was written."""
    stored = _read_config(file).get("inputs")
    before = stored if isinstance(stored, dict) else {}
    return tuple(name for name, digest in request.inputs.items() if before.get(name) != digest)


def _read_config(file: Path) -> dict[str, Any]:
    file = file / CONFIG if file.is_dir() else file
    try:
        return read_json(file)
    except Ex4dError as error:
        expected = f"a {CONFIG} that `ex4d generate` wrote, at {file}"
        raise InputError(expected, error.got, "check the name") from error


def check_video_place(request: GenerationRequest, final: Path, *, replace: bool) -> None:
    """Refuse, before the long work, a place where `place_video` could not or must not put the video.

    Args:
        request: its inputs must stay.
        final: the place.
        replace: a file that is there may go.

    Raises:
        ConfigError, OutputError: what is wrong with it.
    """
    if final.suffix.lower() != ".mp4":
        raise ConfigError("--output-video FILE.mp4", str(final))
    if not final.parent.is_dir():
        raise OutputError(f"a folder for {final}", f"{final.parent} is none", "make it first")
    if final.is_dir() or (final.exists() and not replace):
        raise OutputError(f"no file at {final}", "one is there", "use --overwrite to replace it")
    place, inputs = final.resolve(), [Path(name).resolve() for name in request.paths]
    if place in inputs or (final.exists() and place.parent in inputs):
        raise OutputError("an --output-video that is no input", str(final), "choose another name")


def absolute(request: GenerationRequest) -> GenerationRequest:
    """Inputs and weights by absolute path, so that config.json can be repeated from anywhere."""

    def resolved(name: str | None) -> str | None:
        return None if name is None else str(Path(name).resolve())

    def found(name: str) -> str:
        return name if name in (TINY, "auto", *ENTRIES) else str(Path(name).expanduser().resolve())

    config = request.generate
    return replace(
        request,
        prior=resolved(request.prior),
        color=resolved(request.color),
        mask=resolved(request.mask),
        generate=replace(config, weights=found(config.weights), adapter=found(config.adapter)),
    )


def place_video(result: Path, final: Path) -> Path:
    """Put a copy of the video where the release's command would (a hard link where that works)."""
    with atomic_path(final) as temporary:
        try:
            os.link(result, temporary)
        except OSError:
            shutil.copyfile(result, temporary)
    return final
