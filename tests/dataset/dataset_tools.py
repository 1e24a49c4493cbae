"""A dataset of a few tiny samples, written by the format's own writers."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from ex4d.core.video import Video
from ex4d.dataset.index import read_index, write_index
from ex4d.dataset.layout import DATASET, INDEX, SCHEMA_VERSION, SHARDS, Bucket, SampleRow, shard_path
from ex4d.dataset.shards import ShardRecord, ShardWriter, write_record
from ex4d.prepare.encode import encode_files

SMALL: Bucket = (5, 32, 48)
TALL: Bucket = (5, 48, 32)


def make_sample(seed: int, bucket: Bucket) -> tuple[Video, list[np.ndarray]]:
    """A smooth picture that moves, and two masks."""
    count, height, width = bucket
    t, y, x = np.mgrid[0:count, 0:height, 0:width].astype(np.float64)
    frames = np.stack([120 + 80 * np.sin((x + 2 * t) / 9 + seed), 4 * y % 256, 100 + 0 * x], -1)
    video = Video(frames=frames.astype(np.uint8), timestamps_s=np.arange(count) / 8)
    rng = np.random.default_rng(seed)
    blocks = rng.random((2, count, height // 16, width // 16)) > 0.4  # large enough to survive erosion
    return video, list(blocks.repeat(16, axis=2).repeat(16, axis=3))


def write_dataset(folder: Path, buckets: tuple[Bucket, ...] = (SMALL, TALL, SMALL)) -> list[SampleRow]:
    """One sample of each of these buckets, two in a shard; returns their rows."""
    (folder / SHARDS).mkdir(parents=True)
    rows: list[SampleRow] = []
    shards: list[dict[str, Any]] = []
    for number in range(-(-len(buckets) // 2)):
        path, first = shard_path(folder, number), len(rows)
        with ShardWriter(path) as writer:
            for seed in range(2 * number, min(2 * number + 2, len(buckets))):
                rows.append(add_sample(writer, number, seed, buckets[seed], folder))
        record = ShardRecord(plan="p", size=writer.size, sha256=writer.sha256, samples=tuple(rows[first:]), num_items=2)
        write_record(path, record)
        shards.append({"sha256": writer.sha256, "size": writer.size, "num_samples": len(rows) - first})
    write_index(folder / INDEX, rows)
    info = {
        "schema_version": SCHEMA_VERSION,
        "num_samples": len(rows),
        "fingerprint": read_index(folder / INDEX).fingerprint(),
        "index_sha256": hashlib.sha256((folder / INDEX).read_bytes()).hexdigest(),
        "shards": shards,
    }
    (folder / DATASET).write_text(json.dumps(info), "utf-8")
    return rows


def add_sample(writer: ShardWriter, shard: int, seed: int, bucket: Bucket, scratch: Path) -> SampleRow:
    """Append a sample to a shard."""
    video, masks = make_sample(seed, bucket)
    files = encode_files(video, masks, {"key": f"s{seed}"}, fps=8.0, crf=1, scratch=scratch)
    members = tuple(writer.add(f"s{seed}", suffix, data) for suffix, data in files)
    return SampleRow(
        key=f"s{seed}",
        shard=shard,
        bucket=bucket,
        caption=f"caption {seed}",
        scores={"motion": seed + 0.5},
        phash=f"{seed:048x}",
        members=members,
    )
