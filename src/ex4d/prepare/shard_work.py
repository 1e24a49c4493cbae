"""One shard: its clips in a process of their own, their samples into a tar, and the commit."""

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ex4d.dataset.layout import SHARDS, WORK, SampleRow, shard_name, shard_path
from ex4d.dataset.shards import ShardRecord, ShardWriter, write_record
from ex4d.io.atomic import output_error, write_bytes_atomic
from ex4d.jobs.child import Child, ChildDied, ChildSpec
from ex4d.prepare.clock import Seconds, add_seconds
from ex4d.prepare.config import PrepareConfig, WorkConfig
from ex4d.prepare.encode import SampleFiles
from ex4d.prepare.item_work import ItemResult, ItemSettings
from ex4d.prepare.items import Item
from ex4d.prepare.refused import Left

_HANDLER = "ex4d.prepare.item_work:make_handler"
SECONDS = "seconds"
"""Folder in `WORK`: what finished shards cost; added up when the dataset is finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardJob:
    """A shard to make.

    Attributes:
        number: of the shard.
        items: its clips.
    """

    number: int
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardDone:
    """A shard that is committed.

    Attributes:
        number: of the shard.
        num_items: clips it was made of.
        num_samples: samples in it.
        left: how many clips and segments were left out, by reason.
        seconds: spent, by stage.
    """

    number: int
    num_items: int
    num_samples: int
    left: Mapping[str, int]
    seconds: Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFactory:
    """Opens workers, on any machine that sees dataset and clips under the same names; see `jobs.WorkerFactory`.

    Attributes:
        folder: of the dataset.
        plan: its hash.
        config: what to make.
        work: limits.
        depth: see `ItemSettings`.
        root: see `ItemSettings`.
    """

    folder: Path
    plan: str
    config: PrepareConfig
    work: WorkConfig
    depth: str
    root: Path

    def open(self) -> "ShardWorker":
        """A worker with a child process of its own."""
        return ShardWorker(self)


class ShardWorker:
    """Makes one shard after the other."""

    def __init__(self, factory: ShardFactory) -> None:
        self._factory = factory
        work = factory.folder / WORK
        try:
            (factory.folder / SHARDS).mkdir(parents=True, exist_ok=True)
            (work / SECONDS).mkdir(parents=True, exist_ok=True)
            self._scratch = Path(tempfile.mkdtemp(prefix="scratch-", dir=work))
        except OSError as error:
            raise output_error(work, error) from error
        settings = ItemSettings(config=factory.config, depth=factory.depth, root=factory.root, scratch=self._scratch)
        limits = factory.work
        spec = ChildSpec(handler=_HANDLER, settings=settings, timeout_s=limits.timeout_s, memory_gib=limits.memory_gib)
        self._child = Child(spec)

    def run(self, job: ShardJob) -> ShardDone:
        """Make and commit a shard.

        Raises:
            OutputError: it cannot be written; nothing of it is left then.
            WeightsError, MissingDependencyError, ConfigError: no clip can be worked on.
        """
        path = shard_path(self._factory.folder, job.number)
        rows: list[SampleRow] = []
        left: list[Left] = []
        seconds: Seconds = {}
        with ShardWriter(path) as writer:
            for item in job.items:
                result = self._make(item)
                rows += [_add(writer, job.number, sample) for sample in result.samples]
                left += result.left
                add_seconds(seconds, result.seconds)
        record = ShardRecord(
            plan=self._factory.plan,
            size=writer.size,
            sha256=writer.sha256,
            samples=tuple(rows),
            errors=tuple(entry.to_json() for entry in left),
            num_items=len(job.items),
        )
        cost = {"items": len(job.items), "seconds": seconds}
        note = self._factory.folder / WORK / SECONDS / f"{shard_name(job.number)}.json"
        write_bytes_atomic(note, json.dumps(cost).encode())
        write_record(path, record)
        return ShardDone(
            number=job.number,
            num_items=len(job.items),
            num_samples=len(rows),
            left=Counter(entry.reason for entry in left),
            seconds=seconds,
        )

    def close(self) -> None:
        """End the child and remove its scratch folder."""
        self._child.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _make(self, item: Item) -> ItemResult:
        """What became of a clip; whatever it did to the process that worked on it."""
        died: ChildDied | None = None
        for _ in range(self._factory.work.retries + 1):
            try:
                return self._child.ask(item)
            except ChildDied as error:
                died = error
                self._empty_scratch()
        assert died is not None
        tries = f" ({self._factory.work.retries + 1} tries)" if self._factory.work.retries else ""
        left = Left(item=item.name, segment=None, reason=died.cause, text=f"{died.text}{tries}")
        return ItemResult(samples=(), left=(left,), seconds={})

    def _empty_scratch(self) -> None:
        """Remove what a process left that could not do it itself."""
        for path in self._scratch.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _add(writer: ShardWriter, shard: int, sample: SampleFiles) -> SampleRow:
    members = tuple(writer.add(sample.key, suffix, data) for suffix, data in sample.files)
    return SampleRow(
        key=sample.key,
        shard=shard,
        bucket=sample.bucket,
        caption=sample.caption,
        scores=dict(sample.scores),
        phash=sample.phash,
        members=members,
    )
