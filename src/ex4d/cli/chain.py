"""What `run` and `recon` do: settings, output folder, progress, the run, the summary."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ex4d.cli.interrupted import resumable
from ex4d.cli.options import ReconOptions
from ex4d.cli.summary import print_summary
from ex4d.pipeline.config import RunConfig
from ex4d.pipeline.plan import camera_slugs
from ex4d.pipeline.progress import ConsoleReporter
from ex4d.pipeline.run import RunResult, run

_MAX_NAMED_CAMERAS = 3


def run_chain(options: ReconOptions) -> int:
    """Carry out `run` or `recon`. Progress and notices go to stderr, the summary to stdout."""
    config = options.resolve()
    output = options.output_dir or default_output(config)
    reporter = ConsoleReporter(Console(stderr=True))
    if options.output_dir is None:
        reporter.note(f"writing to {output}{'' if output.is_absolute() else ' (in the current folder)'}")
    result = run_resumable(config, output, resume=options.resume, overwrite=options.overwrite, reporter=reporter)
    print_summary(result, output)
    return 0


def run_resumable(
    config: RunConfig, output: Path, *, resume: bool, overwrite: bool, reporter: ConsoleReporter
) -> RunResult:
    """`pipeline.run.run`; when interrupted, says what can be kept."""
    with resumable(output, kept="stages", overwrite=overwrite):
        return run(config, output, resume=resume, overwrite=overwrite, reporter=reporter)


def default_output(config: RunConfig) -> Path:
    """``<input>_<cam>`` in the current folder: ``clip_60``, ``clip_60_full``, ``clip_5-cameras``.

    Raises:
        CameraPathError: an unknown camera.
    """
    source = Path(config.input)
    stem = (source.resolve().name if source.is_dir() else source.stem) or "ex4d"
    slugs: Sequence[str] = camera_slugs(config)
    named = slugs if len(slugs) <= _MAX_NAMED_CAMERAS else [f"{len(slugs)}-cameras"]
    return Path("_".join([stem, *named]))
