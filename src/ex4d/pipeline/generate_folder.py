"""`ex4d generate`: a prior folder, or a colour and a mask video, → a folder with the video and how it was made."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ex4d.core.clip import iter_chunks
from ex4d.core.version import __version__
from ex4d.core.view import GeometryPrior
from ex4d.errors import Ex4dError, InputError, OutputError
from ex4d.io import prior as names
from ex4d.io.atomic import write_json_atomic
from ex4d.io.prior import close_prior, open_prior
from ex4d.model.config import TINY
from ex4d.pipeline.complete import find_audio
from ex4d.pipeline.generate import run_job
from ex4d.pipeline.generation_job import EngineSettings, GenerationJob, plan_job
from ex4d.pipeline.generation_request import CONFIG, GenerationRequest, absolute
from ex4d.pipeline.generation_setup import check_generation
from ex4d.pipeline.previews import PreviewWriter
from ex4d.pipeline.progress import Reporter, SilentReporter, timed_stage
from ex4d.pipeline.sheet import write_sheet
from ex4d.pipeline.window_source import PriorSource, VideoPairSource
from ex4d.pipeline.workspace import WORK_FOLDER, Workspace, is_complete, open_workspace

if TYPE_CHECKING:
    from ex4d.model.parallel import ParallelContext

_SCHEMA_VERSION = 1
_WINDOWS, _PREVIEWS = "windows", "previews"


def generate_folder(
    request: GenerationRequest,
    output: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    gpus: int = 1,
    preview_every: int = 0,
    reporter: Reporter,
) -> Path:
    """Generate into a folder: result.mp4, config.json, and with a prior sheet.png.

    Args:
        request: what to do.
        output: a new or empty folder.
        resume: go on after the last finished window of the same request.
        overwrite: replace what is there.
        gpus: processes that share the work; more than one only in a process that torchrun started.
        preview_every: write the current guess every so many steps, into ``previews/``; 0 = never.
        reporter: told of progress and notices.

    Returns:
        result.mp4.

    Raises:
        Ex4dError: anything wrong with input, weights, machine or output; finished windows are kept.
    """
    _check_apart(request, output)
    check_generation(request.generate)
    request = absolute(request)
    with _opened(request, reporter) as view, _processes(view.job, gpus) as context:
        settings = EngineSettings(context=context)
        if not settings.is_main:
            _follow(view, output, settings)
            return output / names.RESULT
        identity = {"version": __version__, "request": asdict(request), "inputs": request.inputs}
        if resume and is_complete(output, identity, [""], [names.RESULT], record=CONFIG):
            _meet(context, done=True)
            shutil.rmtree(output / WORK_FOLDER, ignore_errors=True)  # of a run killed on its very last step
            reporter.note(f"{output} is complete already: nothing to do")
            return output / names.RESULT
        workspace = open_workspace(output, identity, resume=resume, overwrite=overwrite)
        try:
            done = workspace.publish_pending()
            _meet(context, done=done)
            if not done:
                _generate(view, workspace, identity, settings, preview_every, reporter)
        except Ex4dError:
            if not any((workspace.root / _WINDOWS).glob("*.json")):
                workspace.abandon()
            raise
        finally:
            workspace.unlock()
        workspace.close()
    return output / names.RESULT


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """An opened request."""

    job: GenerationJob
    fps: Fraction
    audio: tuple[Path, float] | None
    prior: GeometryPrior | None
    notices: Sequence[str] = ()


def _check_apart(request: GenerationRequest, output: Path) -> None:
    for path in request.paths:
        if Path(path).resolve().is_relative_to(output.resolve()):
            raise OutputError(f"an output folder that does not hold {path}", str(output), "choose another one with -o")


@contextmanager
def _opened(request: GenerationRequest, reporter: Reporter) -> Iterator[_View]:
    if request.prior is None:
        pair = VideoPairSource(Path(str(request.color)), Path(str(request.mask)))
        job = plan_job(pair, request.generate, seed=request.seed)
        audio = (Path(str(request.color)), 0.0) if pair.has_audio else None
        yield _View(job=job, fps=pair.fps, audio=audio, prior=None, notices=pair.notices)
        return
    folder = Path(request.prior)
    cameras = [file.parent.name for file in sorted(folder.glob(f"*/{names.PRIOR}"))]
    if cameras and not (folder / names.PRIOR).exists():
        several = f"{len(cameras)} in {folder}: {', '.join(cameras)}"
        raise InputError("the folder of one camera", several, f"type e.g. ex4d generate {folder / cameras[0]}")
    prior = open_prior(folder)
    try:
        job = plan_job(PriorSource(prior.view), request.generate, seed=request.seed)
        audio = find_audio(prior, reporter)
        yield _View(job=job, fps=Fraction(str(prior.info["fps"])), audio=audio, prior=prior)
    finally:
        close_prior(prior)


def _generate(
    view: _View,
    workspace: Workspace,
    identity: Mapping[str, Any],
    settings: EngineSettings,
    preview_every: int,
    reporter: Reporter,
) -> None:
    timings: dict[str, float] = {}
    if view.prior is not None:
        _check_readable(view.prior, reporter, timings)
    previews = PreviewWriter(workspace.root / "files" / _PREVIEWS, preview_every) if preview_every else None
    record, shown = run_job(
        view.job,
        workspace.staged(names.RESULT),
        work=workspace.root / _WINDOWS,
        fps=view.fps,
        audio=view.audio,
        reporter=reporter,
        timings=timings,
        settings=settings if previews is None else previews.settings(settings),
    )
    files = [names.RESULT, *(f"{_PREVIEWS}/{name}" for name in (previews.names if previews else ()))]
    if view.prior is not None:
        write_sheet(view.prior, workspace.staged(names.SHEET), results=shown)
        files.append(names.SHEET)
    record["notices"] = [*view.notices, *record["notices"]]
    for notice in record["notices"]:
        reporter.note(notice)
    write_json_atomic(workspace.staged(CONFIG), {"schema_version": _SCHEMA_VERSION, **identity, "result": record})
    write_json_atomic(workspace.staged(names.TIMINGS), {"seconds": timings})
    workspace.publish([*files, names.TIMINGS, CONFIG])


def _check_readable(prior: GeometryPrior, reporter: Reporter, timings: dict[str, float]) -> None:
    """Decode all that will be read: damage in the middle must not show after hours."""
    clips = (prior.view, prior.source)
    with timed_stage(reporter, timings, "check prior", sum(clip.num_frames for clip in clips)):
        for clip in clips:
            for _, chunk in iter_chunks(clip):
                reporter.advance(len(chunk))


def _follow(view: _View, output: Path, settings: EngineSettings) -> None:
    """What other ranks than 0 do: compute their part, read what rank 0 has written, write nothing."""
    if _meet(settings.context):
        return
    work = output / WORK_FOLDER / _WINDOWS
    run_job(
        view.job,
        output / names.RESULT,
        work=work,
        fps=view.fps,
        audio=None,
        reporter=SilentReporter(),
        timings={},
        settings=settings,
    )


@contextmanager
def _processes(job: GenerationJob, gpus: int) -> "Iterator[ParallelContext | None]":
    if gpus == 1:
        yield None
        return
    from ex4d.model.parallel import open_parallel
    from ex4d.pipeline.engine import plan_processes

    device = "cpu" if job.config.weights == TINY else "cuda"
    with open_parallel(plan_processes(job, gpus), device) as context:
        yield context


def _meet(context: "ParallelContext | None", *, done: bool = False) -> bool:
    """Wait until rank 0 has the folder in order; whether it says that all is done."""
    if context is None:
        return done
    from ex4d.model.parallel import on_main

    return on_main(context, lambda: done)
