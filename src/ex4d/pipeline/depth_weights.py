"""Before a clip is opened: are the estimators that it asks for ready, and what may be fetched for them."""

import importlib.util
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from ex4d.depth.estimator import DepthEstimator
from ex4d.depth.registry import AUTO, ESTIMATORS, METRIC, find_estimator
from ex4d.depth.result import DepthConfig
from ex4d.depth.source import check_estimator, pick_estimator
from ex4d.errors import ConfigError, WeightsError
from ex4d.io.rgbd.folder import is_rgbd_folder
from ex4d.pipeline.config import RunConfig
from ex4d.pipeline.progress import Reporter
from ex4d.weights.fetch import fetch
from ex4d.weights.manifest import read_manifest
from ex4d.weights.registry import Entry, find_entry, is_pulled

_MB = 10**6


def prepare_depth(config: RunConfig, reporter: Reporter) -> None:
    """Fetch what is missing, where ``--download`` allows it, and complain now of all that is not ready.

    With ``--depth auto`` that is the first of `AUTO` that has weights, unless the input brings depth of its own.

    Raises:
        WeightsError: packages or weights are missing, or not as they were pulled; the message names the command that
            gets them. Packages are looked for before any network is used.
        DepthError: ``--depth`` is neither a name nor something that exists.
        ConfigError: ``--depth-anchor`` names no estimator that knows metres.
        MissingDependencyError, OutputError: see `weights.fetch.fetch`.
    """
    has_depth = is_rgbd_folder(Path(config.input))
    wanted = (_estimator(config.depth, has_depth), _anchor(config.depth))
    for estimator in filter(None, wanted):
        if config.depth.download:
            fetch_missing(estimator, reporter)
        check_estimator(estimator)
        for name in estimator.weights:
            _check_sizes(find_entry(name))


def _estimator(depth: DepthConfig, has_depth: bool) -> DepthEstimator | None:
    """The one that will be asked for depth; None where depth is given."""
    if depth.depth == "auto" and depth.download and not has_depth:
        best = next((estimator for estimator in map(find_estimator, AUTO) if estimator.weights), None)
        if best is not None:
            return best
    named = next((estimator for estimator in ESTIMATORS if estimator.name == depth.depth), None)
    return named or pick_estimator(depth.depth, has_depth=has_depth)


def _anchor(depth: DepthConfig) -> DepthEstimator | None:
    """The one that ``--depth-anchor`` names."""
    if depth.anchor in ("auto", "none", "landmarks"):
        return None
    if depth.anchor not in METRIC:
        raise ConfigError(f"--depth-anchor {', '.join(('auto', 'none', 'landmarks', *METRIC))}", repr(depth.anchor))
    return find_estimator(depth.anchor)


def fetch_missing(estimator: DepthEstimator, reporter: Reporter) -> None:
    """Pull the weights that an estimator lacks, after saying what they are; nothing if it is ready.

    Raises:
        WeightsError: a package is missing (no network is used then), or weights cannot be had.
        MissingDependencyError, OutputError: see `weights.fetch.fetch`.
    """
    if any(importlib.util.find_spec(package) is None for package in estimator.packages):
        check_estimator(estimator)
    for entry in map(find_entry, estimator.weights):
        if is_pulled(entry):
            continue
        try:
            fetch(entry, note=reporter.note, progress=lambda total, name=entry.name: _shown(reporter, name, total))
        except WeightsError as error:
            command = f"ex4d weights pull {entry.name}"
            fix = error.fix if command in error.fix else f"{command}; {error.fix}"
            raise WeightsError(error.expected, error.got, fix) from error


@contextmanager
def _shown(reporter: Reporter, name: str, num_bytes: int) -> Generator[Callable[[int], None], None, None]:
    """A stage of the reporter that lasts as long as a download."""
    told = 0

    def listen(done: int) -> None:
        nonlocal told
        if done // _MB != told:
            reporter.advance(done // _MB - told)
            told = done // _MB

    reporter.begin(f"fetch {name}", num_bytes // _MB, "MB")
    try:
        yield listen
    finally:
        reporter.end()


def _check_sizes(entry: Entry) -> None:
    """Raise `WeightsError` where a file is missing or cut off; its content is looked at when it is loaded."""
    manifest = read_manifest(entry.folder())
    for name, record in manifest.files.items() if manifest else ():
        path = entry.folder() / name
        found = path.stat().st_size if path.is_file() else None
        if found != record.size:
            got = "no such file" if found is None else f"{found} bytes"
            raise WeightsError(f"{record.size} bytes in {path}", got, f"ex4d weights pull {entry.name}")
