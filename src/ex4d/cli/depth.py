"""``ex4d depth``: depth and cameras of a clip, as files."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import UseAppendAction, arg

from ex4d.cli.interrupted import resumable
from ex4d.cli.options import FIELDS
from ex4d.cli.source_options import SourceOptions, optional

if TYPE_CHECKING:
    from ex4d.pipeline.config import RunConfig
    from ex4d.pipeline.progress import Reporter
    from ex4d.pipeline.stats_folder import StatsFolder

_VERDICTS = {
    "static": "stands still",
    "rotating": "turns on the spot",
    "moving": "moves",
    "unclear": "unclear, too little texture to follow",
}
_ORIGINS = {
    "depth": "cameras came with the depth",
    "file": "cameras from the file",
    "static": "taken to stand still",
    "odometry": "cameras found in the clip",
    "not found": "could not be followed, taken to stand still",
}


@dataclass(frozen=True, kw_only=True)
class _Output:
    """Where to, and as what. A base of its own, so that these flags come first in the help."""

    output_dir: Annotated[Path | None, optional("FOLDER", aliases=("-o",))] = None
    """folder to write; it must be new or empty (default: <input>_depth here)"""
    format: Annotated[
        UseAppendAction[tuple[Literal["npz", "exr", "mkv"], ...]], arg(metavar="npz|exr|mkv", help_behavior_hint="")
    ] = ()
    """of the depth maps; npz: float32 with the cameras; exr: a float32 image a frame; mkv: FFV1, 16 bits; repeat the
    flag for several (default: npz)"""


@dataclass(frozen=True, kw_only=True)
class DepthCommand(SourceOptions, _Output):
    """Depth and cameras of a clip as files, with a preview and numbers for every frame."""

    def resolve(self) -> "RunConfig":
        """The settings that `recon` would have from the same flags.

        Raises:
            ConfigError, InputError: a value out of range, or no INPUT.
        """
        return source_config(self, "ex4d depth clip.mp4")

    def execute(self) -> int:
        """Write the folder; progress and notices go to stderr, the summary to stdout."""
        import sys

        from rich.console import Console

        from ex4d.cli.quiet import quiet_libraries
        from ex4d.pipeline.progress import ConsoleReporter

        quiet_libraries()
        config = self.resolve()
        output = self.output_dir or default_output(config.input)
        reporter = ConsoleReporter(Console(stderr=True))
        if self.output_dir is None:
            reporter.note(f"writing to {output} (in the current folder)")
        made = self._run(config, output, reporter)
        sys.stdout.write("\n".join(summary_lines(made)) + "\n")
        return 0

    def _run(self, config: "RunConfig", output: Path, reporter: "Reporter") -> "StatsFolder":
        from ex4d.pipeline.depth_job import write_depth_folder

        with resumable(output, kept="stages", overwrite=self.overwrite):
            return write_depth_folder(
                config,
                output,
                formats=self.format or ("npz",),
                resume=self.resume,
                overwrite=self.overwrite,
                reporter=reporter,
            )


def source_config(options: SourceOptions, example: str) -> "RunConfig":
    """The settings that `recon` would have from the same flags.

    Args:
        options: what was typed.
        example: of the command, for whom forgets the input.

    Raises:
        ConfigError, InputError: a value out of range, or no INPUT.
    """
    from ex4d.errors import InputError
    from ex4d.pipeline.config import RunConfig

    if not options.input:
        raise InputError("an INPUT: a video, picture or RGB-D folder", "none", f"type e.g. {example}")
    sections: dict[str, dict[str, Any]] = {}
    for name, (section, field) in FIELDS.items():
        if hasattr(options, name):
            sections.setdefault(section, {})[field] = getattr(options, name)
    sections["depth"] |= {"cache": not options.no_cache, "snap": not options.no_snap, "download": options.download}
    base, top = RunConfig(input=options.input, generator="none"), sections.pop("")
    return replace(base, **top, **{name: replace(getattr(base, name), **v) for name, v in sections.items()})


def default_output(given: str) -> Path:
    """``<input>_depth`` in the current folder."""
    source = Path(given)
    return Path(f"{(source.resolve().name if source.is_dir() else source.stem) or 'ex4d'}_depth")


def summary_lines(made: "StatsFolder") -> Iterator[str]:
    """Lines of text for people."""
    stats = made.stats
    yield ""
    yield (
        f"done in {sum(made.timings_s.values()):.1f} s: {made.folder}"
        if made.timings_s
        else (f"nothing to do: {made.folder} is complete")
    )
    yield from _depth_lines(stats)
    cameras = stats["source_cameras"]
    yield f"  source camera: {_VERDICTS[cameras['motion']['verdict']]}; {_ORIGINS[cameras['origin']]}"
    yield f"  {stats['intrinsics']}"
    yield from _file_lines(made.folder, stats)
    if made.timings_s:
        yield f"  seconds a stage: {', '.join(f'{name} {seconds:.1f}' for name, seconds in made.timings_s.items())}"
    if stats["depth"]["is_preview"]:
        source = stats["depth"]["source"]
        yield f"!! PREVIEW DEPTH ({source}): no network has looked at this clip, things are roughly in their place."
        yield "!! For a real result: --depth FILE, an RGB-D recording as INPUT, or `ex4d weights pull vda-small` once."


def _depth_lines(stats: Mapping[str, Any]) -> Iterator[str]:
    depth, mean = stats["depth"], stats["mean"]
    licence = f" ({depth['licence']})" if depth["licence"] else ""
    yield f"  {stats['num_frames']} frames of {stats['width']}x{stats['height']}"
    yield f"  depth: {depth['source']}{licence}, {depth['description']}"
    unit = "metres" if depth["scale"] == "metric" else "unknown unit (relative)"
    nearest, median, farthest = (stats[name] for name in ("nearest", "median", "farthest"))
    yield (
        f"  nearest {nearest:.3g}, median {median:.3g}, farthest {farthest:.3g}, {unit}; "
        f"known {100 * mean['valid_share']:.1f} %"
    )
    flicker = {i: frame["flicker"] for i, frame in enumerate(stats["frames"]) if frame["flicker"] is not None}
    if flicker:
        worst = max(flicker, key=lambda i: flicker[i])
        yield f"  flicker {100 * mean['flicker']:.2f} % a frame, at most {100 * flicker[worst]:.2f} % (frame {worst})"


def _file_lines(folder: Path, stats: Mapping[str, Any]) -> Iterator[str]:
    from ex4d.pipeline.depth_job import EXR_FOLDER, NPZ, PREVIEW, SOURCE_CAMERAS, VIDEO
    from ex4d.pipeline.stats_folder import STATS

    yield f"    {folder / PREVIEW}  the clip beside its depth, red is near: look at this first"
    if "npz" in stats["formats"]:
        yield f"    {folder / NPZ}  for `ex4d run --depth {folder / NPZ}`: depth, K and cameras"
    if "exr" in stats["formats"]:
        yield f"    {folder / EXR_FOLDER}/  an image a frame"
    if "mkv" in stats["formats"]:
        yield f"    {folder / VIDEO}  16-bit codes (see depth.json beside it)"
    yield f"    {folder / STATS}  numbers of every frame; cameras: {SOURCE_CAMERAS}"
