"""``ex4d masks``: what a model would be trained on with this clip."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import arg

from ex4d.cli.interrupted import resumable
from ex4d.cli.source_options import SourceOptions, optional
from ex4d.masking.config import STYLES, MaskConfig, TrackerName

if TYPE_CHECKING:
    from ex4d.pipeline.masks_job import MasksRequest
    from ex4d.pipeline.progress import Reporter
    from ex4d.pipeline.stats_folder import StatsFolder

_DEFAULT = MaskConfig()
_AnyStyle = Literal["any", "orbit", "arc", "dolly", "truck", "crane", "spiral"]


@dataclass(frozen=True, kw_only=True)
class _Output:
    """Where to, and what. A base of its own, so that these flags come first in the help."""

    output_dir: Annotated[Path | None, optional("FOLDER", aliases=("-o",))] = None
    """folder to write; it must be new or empty (default: <input>_masks here)"""
    num_masks: int = 4
    """masks to make; each has a seed of its own"""
    kind: Literal["both", "rendering", "tracking"] = "both"
    """rendering: what another camera would have seen of each frame; tracking: regions that follow the content; both:
    by turns"""
    style: _AnyStyle = "any"
    """of the camera moves; any: by the weights that training has"""
    yaw_deg: tuple[float, float] = _DEFAULT.yaw_deg
    """from, to: yaw of orbits and arcs, within -90 to 90; one number twice is that angle"""
    elevation_deg: tuple[float, float] = _DEFAULT.elevation_deg
    """from, to: elevation of arcs, within -60 to 60"""
    tracker: TrackerName = _DEFAULT.tracker
    """follows points; dis needs no weights, the others a package and weights of their own"""
    erode_px: tuple[int, int] = _DEFAULT.erode_px
    """least, most: rim that masks lose"""
    dilate_px: tuple[int, int] = _DEFAULT.dilate_px
    """least, most: rim that masks gain first"""
    noise_px: Annotated[float, arg(metavar="PX")] = _DEFAULT.noise_px
    """smooth displacement of the outlines"""


@dataclass(frozen=True, kw_only=True)
class MasksCommand(SourceOptions, _Output):
    """Simulated masks of a clip, as training hides parts of it: a sheet, a video, and the masks."""

    def resolve(self) -> "MasksRequest":
        """What is asked for.

        Raises:
            ConfigError, InputError: a value out of range, or no INPUT.
        """
        from ex4d.cli.depth import source_config
        from ex4d.pipeline.masks_job import MasksRequest

        masks = MaskConfig(
            yaw_deg=self.yaw_deg,
            elevation_deg=self.elevation_deg,
            tracker=self.tracker,
            erode_px=self.erode_px,
            dilate_px=self.dilate_px,
            noise_px=self.noise_px,
        )
        if self.style != "any":
            masks = replace(masks, **{f"{name}_weight": float(name == self.style) for name in STYLES})
        run = source_config(self, "ex4d masks clip.mp4")
        return MasksRequest(run=run, masks=masks, num_masks=self.num_masks, kinds=self.kind)

    def execute(self) -> int:
        """Write the folder; progress and notices go to stderr, the summary to stdout."""
        import sys

        from rich.console import Console

        from ex4d.cli.quiet import quiet_libraries
        from ex4d.pipeline.progress import ConsoleReporter

        quiet_libraries()
        request = self.resolve()
        source = Path(request.run.input)
        stem = (source.resolve().name if source.is_dir() else source.stem) or "ex4d"
        output = self.output_dir or Path(f"{stem}_masks")
        reporter = ConsoleReporter(Console(stderr=True))
        if self.output_dir is None:
            reporter.note(f"writing to {output} (in the current folder)")
        made = self._run(request, output, reporter)
        sys.stdout.write("\n".join(summary_lines(made)) + "\n")
        return 0

    def _run(self, request: "MasksRequest", output: Path, reporter: "Reporter") -> "StatsFolder":
        from ex4d.pipeline.masks_job import write_masks_folder

        with resumable(output, kept="stages", overwrite=self.overwrite):
            return write_masks_folder(request, output, resume=self.resume, overwrite=self.overwrite, reporter=reporter)


def summary_lines(made: "StatsFolder") -> Iterator[str]:
    """Lines of text for people."""
    from ex4d.pipeline.masks_job import SHEET, STATS

    stats = made.stats
    yield ""
    seconds = sum(made.timings_s.values())
    yield f"done in {seconds:.1f} s: {made.folder}" if made.timings_s else f"nothing to do: {made.folder} is complete"
    yield f"  {stats['num_frames']} frames of {stats['width']}x{stats['height']}, depth: {stats['depth']['source']}"
    for number, mask in enumerate(stats["of_mask"]):
        coverage = mask["coverage"]
        tracked = f"  {mask['tracker']} ({mask['licence']})" if mask["kind"] == "tracking" else ""
        share = f"survived {100 * coverage[0]:.0f} % at first, {100 * coverage[-1]:.0f} % at last"
        yield f"  mask {number:02d}  {mask['kind']:<9}  {mask['cam']:<24}  {share}{tracked}"
        yield from (f"    ! {notice}" for notice in mask["notices"])
    yield f"    {made.folder / SHEET}  the clip, and what is left of it under each mask: look at this first"
    yield f"    {made.folder / 'preview.mp4'}  the same as video; mask_NN.mkv: the masks, 255 = survived"
    yield f"    {made.folder / STATS}  how each was made, and the surviving share of every frame"
    if stats["depth"]["is_preview"]:
        yield f"!! PREVIEW DEPTH ({stats['depth']['source']}): the outlines of these masks are guesses."
