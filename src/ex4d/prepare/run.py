"""`ex4d prepare`: clips to a dataset, shard by shard, on any executor; what is finished is never done again."""

import contextlib
import shutil
import time
from collections import Counter
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ex4d.dataset.index import require_pyarrow
from ex4d.dataset.layout import DATASET, PLAN, SHARDS, WORK
from ex4d.errors import Ex4dError, OutputError
from ex4d.io.atomic import output_error, remove_temporaries
from ex4d.jobs.executor import Executor, Part
from ex4d.pipeline.progress import Reporter, SilentReporter
from ex4d.prepare.clock import Seconds, add_seconds
from ex4d.prepare.config import PrepareConfig, WorkConfig
from ex4d.prepare.finish import finish, finished, missing_shards, withdraw
from ex4d.prepare.input_folder import FolderItems
from ex4d.prepare.items import ItemSource
from ex4d.prepare.plan import Plan, claim, make_plan
from ex4d.prepare.shard_work import ShardDone, ShardFactory, ShardJob

try:
    import fcntl
except ImportError:  # Windows: two runs in one folder are not kept apart
    fcntl = None

_LOCK = "lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a run did.

    Attributes:
        folder: the dataset.
        info: its dataset.json; None while other parts' shards are missing.
        num_shards: of the plan.
        num_missing: shards that other parts have yet to make.
        num_made: shards that this run made.
        num_items: clips in them.
        left: clips and segments that this run left out, by reason.
        seconds: wall-clock and processor seconds of this run's workers, by stage.
        elapsed_s: wall-clock seconds of the work.
    """

    folder: Path
    info: Mapping[str, Any] | None
    num_shards: int
    num_missing: int
    num_made: int
    num_items: int
    left: Mapping[str, int]
    seconds: Seconds
    elapsed_s: float


def prepare(
    source: ItemSource,
    folder: Path,
    config: PrepareConfig,
    executor: Executor,
    *,
    work: WorkConfig | None = None,
    part: Part | None = None,
    reporter: Reporter | None = None,
) -> Prepared:
    """Make a dataset, or this machine's part of one; a rerun goes on where an earlier run ended.

    Args:
        source: where the clips are from.
        folder: the dataset; new, empty, or begun with the same settings and clips.
        config: what to make.
        executor: where shards are made.
        work: limits of workers.
        part: which shards are made; the run that makes the last one finishes the dataset.
        reporter: told of progress and notices; default: silent.

    Raises:
        InputError, DatasetError, OutputError, ConfigError, WeightsError, MissingDependencyError: before long work where
            it can be known. Bad clips raise nothing: they are recorded.
    """
    work, part, reporter = work or WorkConfig(), part or Part(), reporter or SilentReporter()
    require_pyarrow()
    _check_apart(source, folder)
    plan = make_plan(source, config)
    for notice in source.notices():
        reporter.note(notice)
    _make_folder(folder)
    claim(folder, plan)
    with _locked(folder, shared=part.count > 1) as is_alone:
        if is_alone:
            _sweep(folder)
        missing = missing_shards(folder, plan)
        if missing:
            with contextlib.suppress(FileNotFoundError):
                (folder / DATASET).unlink()
        reporter.note(_announcement(plan, missing))
        factory = ShardFactory(
            folder=folder.resolve(),
            plan=plan.hash,
            config=config,
            work=work,
            depth=plan.header["depth"]["name"],
            root=source.root,
        )
        mine = [ShardJob(number=n, items=tuple(plan.shard(n))) for n in part.of(missing)]
        started = time.monotonic()
        with _failing(folder, plan, is_alone=is_alone):
            done = _make_shards(executor, factory, mine, reporter)
        elapsed_s = time.monotonic() - started
        left_over = missing_shards(folder, plan)
        info = None
        if not left_over:
            info = finished(folder, plan) or finish(folder, plan, config.gates.max_hash_distance, source.notices())
            shutil.rmtree(folder / WORK, ignore_errors=True)
    return _summary(folder, plan, done, info, num_missing=len(left_over), elapsed_s=elapsed_s)


def _make_shards(
    executor: Executor, factory: ShardFactory, jobs: list[ShardJob], reporter: Reporter
) -> list[ShardDone]:
    done: list[ShardDone] = []
    if not jobs:
        return done
    reporter.begin("prepare", sum(len(job.items) for job in jobs), "clips")
    try:
        for shard in executor.run(factory, jobs):
            done.append(shard)
            reporter.advance(shard.num_items)
    finally:
        reporter.end()
    return done


def _summary(
    folder: Path,
    plan: Plan,
    done: list[ShardDone],
    info: Mapping[str, Any] | None,
    *,
    num_missing: int,
    elapsed_s: float,
) -> Prepared:
    left: Counter[str] = Counter()
    seconds: Seconds = {}
    for shard in done:
        left.update(shard.left)
        add_seconds(seconds, shard.seconds)
    return Prepared(
        folder=folder,
        info=info,
        num_shards=plan.num_shards,
        num_missing=num_missing,
        num_made=len(done),
        num_items=sum(shard.num_items for shard in done),
        left=left,
        seconds=seconds,
        elapsed_s=elapsed_s,
    )


def _announcement(plan: Plan, missing: list[int]) -> str:
    done = plan.num_shards - len(missing)
    text = f"{len(plan.items)} clips in {plan.num_shards} shards"
    return f"{text}, {done} of them finished already" if done else text


@contextlib.contextmanager
def _failing(folder: Path, plan: Plan, *, is_alone: bool) -> Generator[None, None, None]:
    """An error before the first shard leaves nothing that would refuse a corrected command; a full disk is said of the
    folder that was asked for.
    """
    try:
        yield
    except Ex4dError as error:
        if is_alone and len(missing_shards(folder, plan)) == plan.num_shards:
            withdraw(folder)
        if isinstance(error, OutputError):
            raise OutputError(f"to be able to write {folder}", error.got, error.fix) from error
        raise


def _check_apart(source: ItemSource, folder: Path) -> None:
    """A dataset inside the folder of its clips would be read as clips the next time; tables name what they mean."""
    inside = folder.resolve()
    if isinstance(source, FolderItems) and inside.is_relative_to(source.root):
        raise OutputError(
            f"a dataset outside of its clips ({source.root})", str(folder), "choose another folder with -o"
        )


def _make_folder(folder: Path) -> None:
    """Make it; refuse one that is not a dataset's."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = sorted(entry.name for entry in folder.iterdir())
        if names and PLAN not in names and names != [WORK]:
            raise OutputError(
                f"an empty or new folder at {folder}", f"one that holds {names[0]!r}", "choose another -o"
            )
    except OSError as error:
        raise output_error(folder, error) from error


@contextlib.contextmanager
def _locked(folder: Path, *, shared: bool) -> Generator[bool, None, None]:
    """Whether this run is the only one in the folder; runs of different parts share it.

    Raises:
        OutputError: another run is at work.
    """
    try:
        (folder / WORK).mkdir(exist_ok=True)
        file = (folder / WORK / _LOCK).open("w")
    except OSError as error:
        raise output_error(folder, error) from error
    with file:
        yield _lock(file, folder, shared=shared)


def _lock(file: IO[str], folder: Path, *, shared: bool) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OutputError(
            f"no other run at work in {folder}", "one is", "wait for it, or give each run its --shard I/N"
        ) from error
    except OSError:  # a file system without locks: shards are still whole or absent
        return False
    return not shared


def _sweep(folder: Path) -> None:
    """Remove what killed runs left half-written; only where no other run is at work."""
    for path in (folder / WORK).glob("scratch-*"):
        shutil.rmtree(path, ignore_errors=True)
    for place in (folder, folder / SHARDS):
        if place.is_dir():
            remove_temporaries(place)
