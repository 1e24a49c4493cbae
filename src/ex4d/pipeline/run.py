"""The whole chain for one clip: recon, then completion, for every camera; resumable, published at the end."""

import contextlib
import platform
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ex4d.core.version import __version__
from ex4d.io import prior as names
from ex4d.io.atomic import is_temporary, write_json_atomic
from ex4d.io.cameras.own_json import write_cameras_json
from ex4d.io.prior import REQUIRED, close_prior, open_prior, read_info, write_prior_json
from ex4d.pipeline.complete import fill_result, generate_result
from ex4d.pipeline.config import RunConfig, config_to_dict
from ex4d.pipeline.depth_weights import prepare_depth
from ex4d.pipeline.generation_setup import check_generation
from ex4d.pipeline.ingest import WorkingSource, check_apart, describe_input, ingest
from ex4d.pipeline.plan import camera_slugs
from ex4d.pipeline.progress import Reporter, SilentReporter, timed_stage
from ex4d.pipeline.recon import Geometry, find_geometry, render_camera, write_source_depth
from ex4d.pipeline.sheet import write_sheet
from ex4d.pipeline.view import keeps_time
from ex4d.pipeline.workspace import WORK_FOLDER, Workspace, carried_out, is_complete, open_workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What a run made.

    Attributes:
        folders: the prior folders, one a camera.
        info: their prior.json.
        timings_s: wall-clock seconds a stage.
        notices: everything that was said on the way.
        was_complete: True if nothing had to be done.
    """

    folders: tuple[Path, ...]
    info: tuple[Mapping[str, Any], ...]
    timings_s: Mapping[str, float]
    notices: tuple[str, ...]
    was_complete: bool = False


class _Recorder:
    """Passes a reporter's calls on and keeps the notices for prior.json."""

    def __init__(self, inner: Reporter) -> None:
        self._inner = inner
        self.notices: list[str] = []

    def note(self, text: str) -> None:
        if text not in self.notices:
            self.notices.append(text)
        self._inner.note(text)

    def begin(self, stage: str, total: int | None, unit: str = "frames") -> None:
        self._inner.begin(stage, total, unit)

    def advance(self, count: int = 1) -> None:
        self._inner.advance(count)

    def end(self) -> None:
        self._inner.end()


def run(
    config: RunConfig,
    output: Path | str,
    *,
    resume: bool = False,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> RunResult:
    """Film a clip again from every camera of the config.

    Args:
        config: what to do.
        output: the folder that becomes the prior folder, or holds one a camera if there are several.
        resume: go on with an interrupted run of the same config and input.
        overwrite: replace what an earlier run left in `output`.
        reporter: told of progress and notices; default: silent.

    Raises:
        Ex4dError: anything wrong with the input, the config or the output, before long work where possible.
            An unusable input leaves nothing behind; a failed output keeps finished stages for `resume`.
    """
    recorder = _Recorder(reporter or SilentReporter())
    output = Path(output)
    folders = _folders(camera_slugs(config))
    check_apart(config, output)
    request = {"version": __version__, "config": config_to_dict(config), "input": describe_input(config)}
    wanted = REQUIRED if config.generator == "none" else (*REQUIRED, names.RESULT)
    if resume and is_complete(output, request, folders, wanted):
        return _already_done(output, folders, f"{output} is complete already: nothing to do")
    if config.generator == "wan":
        check_generation(config.generate)
    workspace = open_workspace(output, request, resume=resume, overwrite=overwrite)
    if workspace.publish_pending():
        workspace.close()
        return _already_done(output, folders, f"{output}: the interrupted run was done, its files are in place now")
    with carried_out(workspace):
        return _run_in(workspace, config, request, folders, recorder)


def _folders(slugs: list[str]) -> list[str]:
    """Sub-folder of every camera, with its slash; the output itself for a single one."""
    return [""] if len(slugs) == 1 else [f"{slug}/" for slug in slugs]


def _run_in(
    workspace: Workspace, config: RunConfig, request: dict[str, Any], folders: list[str], recorder: _Recorder
) -> RunResult:
    timings: dict[str, float] = {}
    infos: list[dict[str, Any]] = []
    prepare_depth(config, recorder)
    with contextlib.ExitStack() as stack:
        source = ingest(config, workspace, recorder, timings)
        stack.callback(source.clip.close)
        geometry = find_geometry(config, source, workspace, recorder, timings)
        write_source_depth(geometry, source.fps, workspace, recorder, timings)
        for which, folder in enumerate(folders):
            record = render_camera(config, source, geometry, which, workspace, recorder, timings, folder)
            infos.append(_describe(config, request, source, geometry, which, record))
            _add_shared(workspace, folder, geometry, which)
        for folder, info in zip(folders, infos, strict=True):
            info["result"] = _complete(config, source, workspace, recorder, timings, folder, info)
    for info in infos:
        info["notices"] = list(recorder.notices)
    _publish(workspace, config, folders, infos, timings)
    return RunResult(
        folders=tuple(workspace.output / folder for folder in folders),
        info=tuple(infos),
        timings_s=timings,
        notices=tuple(recorder.notices),
    )


def _describe(
    config: RunConfig,
    request: dict[str, Any],
    source: WorkingSource,
    geometry: Geometry,
    which: int,
    record: dict[str, Any],
) -> dict[str, Any]:
    """prior.json without its notices and result."""
    camera = geometry.survey["cameras"][which]
    coverage = record["coverage"]
    return {
        **request,
        "camera": camera["slug"],
        "seed": config.seed,
        "versions": versions(),
        "height": source.clip.height,
        "width": source.clip.width,
        "fps": str(source.fps),
        "depth": {
            "source": geometry.depth.name,
            "description": geometry.depth.description,
            "scale": geometry.survey["scale"],
            "is_preview": geometry.depth.is_preview,
            "invalid_share": geometry.survey["invalid_share"],
        },
        "intrinsics": geometry.cameras.intrinsics,
        "source_cameras": {"origin": geometry.cameras.origin, "motion": geometry.cameras.motion},
        "z_min": {"depth": camera["z_min"], "source_depth": geometry.survey["z_min"]},
        "saturated_depth_pixels": record["saturated_depth_pixels"],
        "coverage_mean": float(np.mean(coverage)),
        "coverage_min": float(np.min(coverage)),
        "coverage": coverage,
        "audio_start_s": source.audio[1] if source.audio else None,
        "timestamps_s": record["timestamps_s"],
        "source_timestamps_s": source.clip.timestamps_s.tolist(),
    }


def versions() -> dict[str, str]:
    """Of everything that decides bytes."""
    packages = ("numpy", "numba", "av", "opencv-python-headless", "pillow")
    return {"ex4d": __version__, "python": platform.python_version()} | {name: version(name) for name in packages}


def _add_shared(workspace: Workspace, folder: str, geometry: Geometry, which: int) -> None:
    """Cameras, and in a sub-folder the source too: a prior folder stands alone."""
    write_cameras_json(workspace.staged(folder + names.CAMERAS), geometry.planned[which].path)
    write_cameras_json(workspace.staged(folder + names.SOURCE_CAMERAS), geometry.source_path)
    if folder:
        workspace.share(names.SOURCE, folder + names.SOURCE)
        workspace.share(names.SOURCE_DEPTH, folder + names.SOURCE_DEPTH)


def _complete(
    config: RunConfig,
    source: WorkingSource,
    workspace: Workspace,
    recorder: _Recorder,
    timings: dict[str, float],
    folder: str,
    info: dict[str, Any],
) -> dict[str, Any] | None:
    """result.mp4 (if a generator is set) and sheet.png; returns what prior.json says of the result."""
    stage = f"complete-{info['camera']}"
    record = workspace.result(stage)
    if record is None:
        prior = open_prior(workspace.staged(folder + names.PRIOR).parent, info=info)
        try:
            record = dict[str, Any](result=None)
            shown = None
            path = workspace.staged(folder + names.RESULT)
            audio = source.audio if keeps_time(prior.source, prior.path) else None
            if config.generator == "fill":
                record["result"], shown = fill_result(
                    prior, path, config=config, audio=audio, reporter=recorder, timings=timings
                )
            elif config.generator == "wan":
                work = workspace.root / f"windows-{info['camera']}"
                record["result"], shown = generate_result(
                    prior, path, work=work, config=config, audio=audio, reporter=recorder, timings=timings
                )
            with timed_stage(recorder, timings, "sheet", None):
                write_sheet(prior, workspace.staged(folder + names.SHEET), results=shown)
        finally:
            close_prior(prior)
        workspace.finish(stage, record)
    for notice in (record["result"] or {}).get("notices", []):
        recorder.note(notice)
    return record["result"]


def _publish(
    workspace: Workspace,
    config: RunConfig,
    folders: list[str],
    infos: list[dict[str, Any]],
    timings: dict[str, float],
) -> None:
    """Move everything to its final name; each prior.json comes last and says that its folder is complete."""
    files = workspace.root / "files"
    moves: list[str] = []
    outdated: list[str] = []
    for folder, info in zip(folders, infos, strict=True):
        write_json_atomic(workspace.staged(folder + names.TIMINGS), {"seconds": timings})
        write_prior_json(workspace.staged(folder + names.PRIOR).parent, info)
        own = sorted(path for path in (files / folder).rglob("*") if path.is_file() and not is_temporary(path))
        inside = [path.relative_to(files).as_posix() for path in own]
        last = folder + names.PRIOR
        others = [name for name in inside if name != last and not _of_another(name, folder, folders)]
        moves += [*others, last]
        outdated += [folder + name for name in _earlier_files(workspace.output / folder)]
    workspace.publish(moves, outdated=[name for name in outdated if name not in moves or name.endswith(names.PRIOR)])


def _earlier_files(folder: Path) -> list[str]:
    """What a finished run left in a folder: a result, say, that does not belong to the new view."""
    info = read_info(folder)
    if info is None:
        return []
    camera = info.get("camera")
    if not isinstance(camera, str) or not re.fullmatch(r"[\w-][\w.-]*", camera):
        camera = ""  # a stranger's prior.json must not name files of its choice
    fixed = [names.PRIOR, names.COLOR, names.MASK, names.DEPTH, names.SOURCE, names.SOURCE_DEPTH, names.CAMERAS,
             names.SOURCE_CAMERAS, names.TIMINGS, names.PREVIEW, names.SHEET, names.RESULT,
             "DW-Mesh.ply", f"color_{camera}.mp4", f"mask_{camera}.mp4"]  # fmt: skip
    meshes = [path.relative_to(folder).as_posix() for path in folder.glob("meshes/frame_*.*")]
    return [name for name in [*fixed, *meshes] if (folder / name).is_file()]


def _of_another(name: str, folder: str, folders: list[str]) -> bool:
    """Whether a file belongs to another camera, or is the shared original that cameras have linked."""
    return not name.startswith(folder) or any(other and other != folder and name.startswith(other) for other in folders)


def _already_done(output: Path, folders: list[str], notice: str) -> RunResult:
    shutil.rmtree(output / WORK_FOLDER, ignore_errors=True)  # of a run killed on its very last step
    infos = tuple(read_info(output / folder) or {} for folder in folders)
    return RunResult(
        folders=tuple(output / folder for folder in folders),
        info=infos,
        timings_s={},
        notices=(notice,),
        was_complete=True,
    )
