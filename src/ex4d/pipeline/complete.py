"""Prior → finished video, by the generator the config names; for a run in progress or a folder on disk."""

from collections.abc import Mapping
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ex4d.core.arrays import UInt8
from ex4d.core.view import GeometryPrior
from ex4d.errors import OutputError
from ex4d.fill.complete import FrameFill, complete_view
from ex4d.fill.config import FillConfig
from ex4d.io import prior as names
from ex4d.io.encode_delivery import DeliveryWriter
from ex4d.io.prior import close_prior, open_prior, write_prior_json
from ex4d.mesh.config import GeometryConfig
from ex4d.pipeline.config import RunConfig, config_from_dict
from ex4d.pipeline.generate import run_job
from ex4d.pipeline.generation_job import plan_job
from ex4d.pipeline.ingest import hash_path
from ex4d.pipeline.progress import Reporter, timed_stage
from ex4d.pipeline.recon import num_threads
from ex4d.pipeline.sheet import sheet_frames, write_sheet
from ex4d.pipeline.view import keeps_time
from ex4d.pipeline.window_source import PriorSource

FILL_NOTICE = (
    "result.mp4 is a preview: unobserved areas are filled from other frames and from their surroundings, not generated"
)


def fill_result(
    prior: GeometryPrior,
    path: Path,
    *,
    config: RunConfig,
    audio: tuple[Path, float] | None,
    reporter: Reporter,
    timings: dict[str, float],
) -> tuple[dict[str, Any], Mapping[int, UInt8]]:
    """Write result.mp4; returns what prior.json says of it (shares, settings, notices) and the sheet's frames."""
    return _fill(
        prior,
        path,
        fill=config.fill,
        geometry=config.geometry,
        audio=audio,
        reporter=reporter,
        timings=timings,
    )


def generate_result(
    prior: GeometryPrior,
    path: Path,
    *,
    work: Path,
    config: RunConfig,
    audio: tuple[Path, float] | None,
    reporter: Reporter,
    timings: dict[str, float],
) -> tuple[dict[str, Any], Mapping[int, UInt8]]:
    """Write result.mp4 by the diffusion model; `work` keeps finished windows. Returns what `fill_result` does."""
    job = plan_job(PriorSource(prior.view), config.generate, seed=config.seed)
    return run_job(
        job,
        path,
        work=work,
        fps=Fraction(str(prior.info["fps"])),
        audio=audio,
        reporter=reporter,
        timings=timings,
    )


def find_audio(prior: GeometryPrior, reporter: Reporter) -> tuple[Path, float] | None:
    """(file, seconds into it) of the sound of a prior folder's input, where it still lies unchanged."""
    start_s, stored = prior.info.get("audio_start_s"), prior.info.get("input")
    name = prior.config.get("input")
    if not isinstance(start_s, float) or not isinstance(name, str) or not isinstance(stored, Mapping):
        return None
    if not keeps_time(prior.source, prior.path):
        return None
    path = Path(name)
    if not path.is_file() or hash_path(path) != stored.get("sha256"):
        reporter.note(f"no sound: {path} is not there any more, or was changed")
        return None
    return path, start_s


def fill_folder(
    folder: Path, *, fill: FillConfig, overwrite: bool, reporter: Reporter, timings: dict[str, float]
) -> Path:
    """Complete the prior folder that `recon` wrote: adds result.mp4 and redraws sheet.png.

    Raises:
        InputError: not a prior folder.
        OutputError: result.mp4 is there already and `overwrite` is not set.
    """
    prior = open_prior(folder)
    try:
        path = folder / names.RESULT
        if path.exists() and not overwrite:
            raise OutputError(f"no result yet in {folder}", f"{path.name} is there", "use --overwrite to replace it")
        geometry = config_from_dict(GeometryConfig, prior.config.get("geometry", {}), "config.geometry")
        audio = find_audio(prior, reporter)
        record, shown = _fill(
            prior, path, fill=fill, geometry=geometry, audio=audio, reporter=reporter, timings=timings
        )
        write_sheet(prior, folder / names.SHEET, results=shown)
        write_prior_json(folder, {**prior.info, "result": record})
    finally:
        close_prior(prior)
    for notice in record["notices"]:
        reporter.note(notice)
    return path


def _fill(
    prior: GeometryPrior,
    path: Path,
    *,
    fill: FillConfig,
    geometry: GeometryConfig,
    audio: tuple[Path, float] | None,
    reporter: Reporter,
    timings: dict[str, float],
) -> tuple[dict[str, Any], Mapping[int, UInt8]]:
    wanted = set(sheet_frames(len(prior.path)))
    shown: dict[int, UInt8] = {}
    reports: list[FrameFill] = []
    writer = DeliveryWriter(
        path,
        height=prior.view.height,
        width=prior.view.width,
        fps=Fraction(str(prior.info["fps"])),
        audio_from=audio[0] if audio else None,
        audio_start_s=audio[1] if audio else 0.0,
    )
    with timed_stage(reporter, timings, f"fill {prior.info.get('camera', '')}".strip(), len(prior.path)), writer:
        chunks = complete_view(prior, fill, geometry=geometry, num_threads=num_threads(), on_frame=reports.append)
        for chunk in chunks:
            first = len(reports) - len(chunk)
            shown |= {i: chunk.frames[i - first] for i in wanted & set(range(first, len(reports)))}
            writer.write(chunk.frames, chunk.timestamps_s)
            reporter.advance(len(chunk))
    blank = [report.index for report in reports if report.is_blank]
    notices = [FILL_NOTICE, *writer.notices]
    if blank:
        notices.append(f"{len(blank)} frames show nothing that any frame has seen and stay black")
    record = {
        "generator": "fill",
        "settings": asdict(fill),
        "from_other_frames_mean": float(np.mean([report.temporal_share for report in reports])),
        "from_surroundings_mean": float(np.mean([report.spatial_share for report in reports])),
        "notices": notices,
    }
    return record, shown
