"""`ex4d prepare DATASET --latents WEIGHTS`: what the frozen encoders make of every sample, as a cache of its own.

The key of a cache names the dataset's content, the encoders' weights and the seed of the erosion: another VAE, or
another dataset, has another cache. Shards of latents go with shards of samples, and are committed in the same way.
"""

import hashlib
import importlib.util
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ex4d.dataset.latents import LATENTS_INFO, LATENTS_SUFFIX, latents_folder
from ex4d.dataset.layout import SCHEMA_VERSION, SampleRow, shard_name
from ex4d.dataset.reader import Dataset
from ex4d.dataset.shards import ShardRecord, ShardWriter, read_record, write_record
from ex4d.errors import Ex4dError, MissingDependencyError, WeightsError
from ex4d.io.atomic import output_error, remove_temporaries, write_json_atomic
from ex4d.jobs.child import Child, ChildDied, ChildSpec
from ex4d.jobs.executor import Executor, Part
from ex4d.model.config import TINY
from ex4d.pipeline.generation_setup import PACKAGES
from ex4d.pipeline.progress import Reporter, SilentReporter
from ex4d.prepare.config import LatentConfig, WorkConfig
from ex4d.weights.files import describe_weights
from ex4d.weights.registry import resolve

_HANDLER = "ex4d.prepare.latent_work:make_handler"
_ENCODERS = ("vae", "image_encoder", "text_encoder", "tokenizer")


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentSettings:
    """What a worker is told once.

    Attributes:
        dataset: its folder.
        base: folder of the weights; None: the random miniature.
        config: see `LatentConfig`.
    """

    dataset: Path
    base: Path | None
    config: LatentConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentJob:
    """A shard of latents to make.

    Attributes:
        shard: its number, that of the samples' shard.
        samples: number in the dataset, and row, of each sample of that shard.
    """

    shard: int
    samples: tuple[tuple[int, SampleRow], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentFactory:
    """Opens workers; see `jobs.WorkerFactory`.

    Attributes:
        settings: of the child.
        key: of the cache.
        work: limits.
    """

    settings: LatentSettings
    key: str
    work: WorkConfig

    def open(self) -> "LatentWorker":
        """A worker with a child process of its own, which keeps the encoders."""
        return LatentWorker(self)


class LatentWorker:
    """Makes one shard of latents after the other."""

    def __init__(self, factory: LatentFactory) -> None:
        self._factory = factory
        limits = factory.work
        spec = ChildSpec(
            handler=_HANDLER, settings=factory.settings, timeout_s=limits.timeout_s, memory_gib=limits.memory_gib
        )
        self._child = Child(spec)

    def run(self, job: LatentJob) -> int:
        """Make and commit a shard; returns the number of samples.

        Raises:
            DatasetError: a sample is damaged.
            OutputError, WeightsError, OutOfMemoryError: it cannot be written, or not be encoded here.
            Ex4dError: the process that encodes ends again and again.
        """
        tar = latents_folder(self._factory.settings.dataset, self._factory.key) / f"{shard_name(job.shard)}.tar"
        rows: list[SampleRow] = []
        with ShardWriter(tar) as writer:
            for number, row in job.samples:
                member = writer.add(row.key, LATENTS_SUFFIX, self._encode(number, row))
                rows.append(SampleRow(key=row.key, shard=job.shard, bucket=row.bucket, caption="", members=(member,)))
        record = ShardRecord(
            plan=self._factory.key,
            size=writer.size,
            sha256=writer.sha256,
            samples=tuple(rows),
            num_items=len(rows),
        )
        write_record(tar, record)
        return len(rows)

    def close(self) -> None:
        """End the child."""
        self._child.close()

    def _encode(self, number: int, row: SampleRow) -> bytes:
        died: ChildDied | None = None
        for _ in range(self._factory.work.retries + 1):
            try:
                return self._child.ask(number)
            except ChildDied as error:
                died = error
        assert died is not None
        raise Ex4dError(f"latents of {row.key}", died.text, "more --timeout or --memory, or fewer --workers") from died


@dataclass(frozen=True, slots=True, kw_only=True)
class Latents:
    """What a run did.

    Attributes:
        folder: of the cache.
        key: its name: what a recipe's ``data.latents`` takes.
        num_samples: that it holds, of all shards that are there.
        num_made: samples that this run encoded.
        num_missing: shards that other parts have yet to make.
        num_bytes: of all shards that are there.
        elapsed_s: wall-clock seconds of the work.
    """

    folder: Path
    key: str
    num_samples: int
    num_made: int
    num_missing: int
    num_bytes: int
    elapsed_s: float


def make_latents(
    folder: Path,
    weights: str,
    config: LatentConfig,
    executor: Executor,
    *,
    work: WorkConfig | None = None,
    part: Part | None = None,
    reporter: Reporter | None = None,
) -> Latents:
    """Cache the latents of a finished dataset; a rerun makes what is missing, a part its share.

    Args:
        folder: the dataset.
        weights: a name of `weights.registry`, a folder, or ``tiny``; no adapter and no transformer are read.
        config: what decides the bytes beside them.
        executor: where shards are made.
        work: limits of workers.
        part: which shards are made.
        reporter: told of progress; default: silent.

    Raises:
        DatasetError: no finished dataset, or damaged.
        WeightsError, MissingDependencyError, OutputError, Ex4dError: see `LatentWorker.run`.
    """
    work, part, reporter = work or WorkConfig(), part or Part(), reporter or SilentReporter()
    base = _find_base(weights)
    dataset = Dataset.open(folder)
    request = _request(dataset, base, config)
    key = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:16]
    cache = latents_folder(folder, key)
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(cache, error) from error
    jobs = _jobs(dataset)
    missing = [number for number in jobs if not _is_done(cache, number, key)]
    settings = LatentSettings(dataset=folder.resolve(), base=base, config=config)
    mine = [jobs[number] for number in part.of(missing)]
    started = time.monotonic()
    num_made = _carry_out(executor, LatentFactory(settings=settings, key=key, work=work), mine, reporter)
    elapsed_s = time.monotonic() - started
    records = {number: record for number in jobs if (record := _is_done(cache, number, key)) is not None}
    if len(records) == len(jobs) and (num_made or not (cache / LATENTS_INFO).exists()):
        shards = {str(n): {"sha256": record.sha256, "size": record.size} for n, record in records.items()}
        write_json_atomic(cache / LATENTS_INFO, {**request, "key": key, "shards": shards})
        remove_temporaries(cache)
    return Latents(
        folder=cache,
        key=key,
        num_samples=sum(record.num_items for record in records.values()),
        num_made=num_made,
        num_missing=len(jobs) - len(records),
        num_bytes=sum(record.size for record in records.values()),
        elapsed_s=elapsed_s,
    )


def _carry_out(executor: Executor, factory: LatentFactory, jobs: list[LatentJob], reporter: Reporter) -> int:
    made = 0
    if not jobs:
        return made
    reporter.begin("latents", sum(len(job.samples) for job in jobs), "samples")
    try:
        for count in executor.run(factory, jobs):
            made += count
            reporter.advance(count)
    finally:
        reporter.end()
    return made


def _jobs(dataset: Dataset) -> dict[int, LatentJob]:
    grouped: dict[int, list[tuple[int, SampleRow]]] = {}
    for number, row in enumerate(dataset.rows):
        grouped.setdefault(row.shard, []).append((number, row))
    return {shard: LatentJob(shard=shard, samples=tuple(samples)) for shard, samples in grouped.items()}


def _is_done(cache: Path, shard: int, key: str) -> ShardRecord | None:
    record = read_record(cache / f"{shard_name(shard)}.tar")
    return record if record is not None and record.plan == key else None


def _find_base(weights: str) -> Path | None:
    """The folder of the encoders; None for the miniature.

    Raises:
        MissingDependencyError: the extra ``train`` is not installed.
        WeightsError: no such weights.
    """
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(package, "train", "--latents")
    if weights == TINY:
        return None
    base = resolve(weights)
    if not (base / "model_index.json").is_file():
        raise WeightsError("a diffusers folder for --latents", str(base), "see `ex4d weights convert` and `pull`")
    return base


def _request(dataset: Dataset, base: Path | None, config: LatentConfig) -> dict[str, Any]:
    """Everything that decides the tensors."""
    return {
        "schema_version": SCHEMA_VERSION,
        "dataset": dataset.fingerprint,
        "weights": {TINY: version("ex4d")} if base is None else _of_encoders(describe_parts(base)),
        "config": {name: value for name, value in asdict(config).items() if name != "device"},
    }


def describe_parts(base: Path) -> dict[str, str]:
    """File → SHA-256 of the encoders alone: the transformer's 33 GB are not read."""
    return {
        f"{part}/{name}": digest
        for part in _ENCODERS
        if (base / part).is_dir()
        for name, digest in describe_weights(base / part).items()
    }


def _of_encoders(hashes: Mapping[str, str]) -> dict[str, str]:
    lost = [part for part in _ENCODERS if not _any_of(hashes, part)]
    if lost:
        raise WeightsError(f"the parts {', '.join(_ENCODERS)}", f"no {', '.join(lost)}", "pull the weights again")
    return dict(hashes)


def _any_of(names: Iterable[str], part: str) -> bool:
    return any(name.startswith(f"{part}/") for name in names)
