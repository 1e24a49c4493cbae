"""Shards, index and reader: what is written reads back, damage is told apart, webdataset reads the same bytes."""

import gc
import json
import pickle
import sys
import tarfile
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import webdataset
from safetensors.numpy import save

from dataset.dataset_tools import SMALL, TALL, make_sample, write_dataset
from ex4d.dataset.index import read_index
from ex4d.dataset.latents import LATENTS_SUFFIX, latents_folder
from ex4d.dataset.layout import DATASET, INDEX, SampleRow, row_from_json, shard_name, shard_path
from ex4d.dataset.reader import Dataset
from ex4d.dataset.shards import ShardRecord, ShardWriter, read_record, record_path, write_record
from ex4d.errors import DatasetError, OutputError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[SampleRow]]:
    folder = tmp_path_factory.mktemp("dataset") / "ds"
    return folder, write_dataset(folder)


def test_samples_read_back(made: tuple[Path, list[SampleRow]]) -> None:
    folder, rows = made
    dataset = Dataset.open(folder)
    assert list(dataset.rows) == rows
    assert dataset.rows[-1] == rows[-1]
    assert dataset.rows[:2] == rows[:2]
    assert dataset.buckets == {SMALL: [0, 2], TALL: [1]}
    for number, bucket in enumerate((SMALL, TALL, SMALL)):
        sample = dataset.read(number)
        video, masks = make_sample(number, bucket)
        assert sample.key == f"s{number}"
        assert sample.caption == f"caption {number}"
        assert sample.info["key"] == sample.key
        assert np.array_equal(sample.survived, np.stack(masks))
        assert np.allclose(sample.video.timestamps_s, video.timestamps_s, atol=1e-4)
        assert np.abs(sample.video.frames.astype(int) - video.frames).mean() < 6  # chroma of H.264 has half the size
    assert dataset.verify() == 3
    dataset.close()


def test_equal_samples_give_equal_bytes(made: tuple[Path, list[SampleRow]], tmp_path: Path) -> None:
    folder, _ = made
    write_dataset(tmp_path / "again")
    for name in ("shards/shard-000000.tar", "shards/shard-000001.tar", "shards/shard-000000.json", INDEX):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_a_pickled_dataset_reads(made: tuple[Path, list[SampleRow]]) -> None:
    dataset = Dataset.open(made[0])
    first = dataset.read(0)
    copy = pickle.loads(pickle.dumps(dataset))
    assert np.array_equal(copy.read(0).video.frames, first.video.frames)
    copy.close()
    dataset.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves its file open
def test_shards_are_plain_tars_for_webdataset(made: tuple[Path, list[SampleRow]]) -> None:
    folder, rows = made
    with tarfile.open(shard_path(folder, 0)) as archive:
        infos = archive.getmembers()
    assert [info.name for info in infos] == [
        f"s{k}.{s}" for k in (0, 1) for s in ("json", "mp4", "mask-0.mkv", "mask-1.mkv")
    ]
    assert {(info.mtime, info.uid, info.gid, info.uname, info.mode) for info in infos} == {(0, 0, 0, "", 0o644)}
    samples = list(cast(Any, webdataset).WebDataset(str(shard_path(folder, 0)), shardshuffle=False))
    gc.collect()
    assert [sample["__key__"] for sample in samples] == ["s0", "s1"]
    data = shard_path(folder, 0).read_bytes()
    for sample, row in zip(samples, rows, strict=False):
        for member in row.members:
            assert sample[member.suffix] == data[member.offset : member.offset + member.size]


def test_a_damaged_sample_is_named(made: tuple[Path, list[SampleRow]], tmp_path: Path) -> None:
    rows = write_dataset(tmp_path / "ds")
    path, member = shard_path(tmp_path / "ds", 0), rows[1].member("mp4")
    data = bytearray(path.read_bytes())
    data[member.offset + 20] ^= 1
    path.write_bytes(data)
    dataset = Dataset.open(tmp_path / "ds")
    assert dataset.read(0).key == "s0"
    with pytest.raises(DatasetError, match=r"shard-000000.tar as it was written"):
        dataset.read(1)
    with pytest.raises(DatasetError):
        dataset.verify()
    dataset.close()


def test_unfinished_and_broken_datasets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no dataset"):
        Dataset.open(tmp_path)
    folder = tmp_path / "ds"
    write_dataset(folder)
    whole = (folder / DATASET).read_text("utf-8")
    (folder / DATASET).write_text(json.dumps({**json.loads(whole), "schema_version": 0}), "utf-8")
    with pytest.raises(DatasetError, match="schema 1"):
        Dataset.open(folder)
    (folder / DATASET).write_text("{", "utf-8")
    with pytest.raises(DatasetError):
        Dataset.open(folder)
    for name in ("fingerprint", "num_samples", "shards"):
        (folder / DATASET).write_text(json.dumps({k: v for k, v in json.loads(whole).items() if k != name}), "utf-8")
        with pytest.raises(DatasetError, match=name):
            Dataset.open(folder)
    (folder / DATASET).write_text(json.dumps({**json.loads(whole), "fingerprint": "0" * 64}), "utf-8")
    with pytest.raises(DatasetError, match="the fingerprint of the samples"):
        Dataset.open(folder)
    (folder / DATASET).write_text(whole, "utf-8")
    index = (folder / INDEX).read_bytes()
    (folder / INDEX).write_bytes(index[:-1])
    with pytest.raises(DatasetError, match="other bytes"):
        Dataset.open(folder)
    (folder / INDEX).write_bytes(index)
    tar = shard_path(folder, 1)
    tar.write_bytes(tar.read_bytes()[:-512])
    with pytest.raises(DatasetError, match="bytes in"):
        Dataset.open(folder)
    tar.unlink()
    with pytest.raises(DatasetError, match="all files"):
        Dataset.open(folder)
    (folder / DATASET).unlink()
    (folder / "plan.jsonl").write_text("", "utf-8")
    with pytest.raises(DatasetError, match="not finished"):
        Dataset.open(folder)


def test_an_index_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / INDEX).write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(DatasetError, match="index"):
        read_index(tmp_path / INDEX)


def test_rows_with_impossible_keys_are_refused() -> None:
    row = {"key": "../up", "shard": 0, "bucket": SMALL, "caption": "", "scores": {}, "phash": "", "members": []}
    with pytest.raises(ValueError, match="key"):
        row_from_json(row)
    with pytest.raises(ValueError, match="key"), ShardWriter(Path("unused.tar")) as writer:
        writer.add("a.b", "json", b"")


def test_a_shard_counts_only_with_its_record_and_whole(tmp_path: Path) -> None:
    tar = tmp_path / "shard-000000.tar"
    with ShardWriter(tar) as writer:
        writer.add("a", "json", b"{}")
    assert read_record(tar) is None
    record = ShardRecord(plan="p", size=writer.size, sha256=writer.sha256, errors=({"item": "x"},), num_items=3)
    write_record(tar, record)
    assert read_record(tar) == record
    tar.write_bytes(b"short")
    assert read_record(tar) is None
    record_path(tar).write_text("{}", "utf-8")
    with pytest.raises(DatasetError, match="delete"):
        read_record(tar)


def test_an_interrupted_shard_leaves_nothing(tmp_path: Path) -> None:
    def stop() -> None:
        with ShardWriter(tmp_path / "shard.tar") as writer:
            writer.add("a", "json", b"{}")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        stop()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OutputError, match="does not exist"), ShardWriter(tmp_path / "no" / "shard.tar"):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
@pytest.mark.parametrize("num_bytes", [100, 100_000])  # seen when the last block is written, and before
def test_a_full_disk_is_said(tmp_path: Path, num_bytes: int) -> None:
    def fill() -> None:
        with ShardWriter(tmp_path / "shard.tar") as writer:
            writer._file.close()
            writer._file = Path("/dev/full").open("wb")  # noqa: SIM115 - a disk without room
            writer.add("a", "bin", bytes(num_bytes))

    with pytest.raises(OutputError, match="full"):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_cached_latents(made: tuple[Path, list[SampleRow]], tmp_path: Path) -> None:
    folder, rows = tmp_path / "ds", write_dataset(tmp_path / "ds")
    cache = latents_folder(folder, "abc")
    cache.mkdir(parents=True)
    tensors = {"target": np.arange(6, dtype=np.float16).reshape(2, 3)}
    tar = cache / f"{shard_name(0)}.tar"
    with ShardWriter(tar) as writer:
        member = writer.add("s1", LATENTS_SUFFIX, save(tensors))
    kept = SampleRow(key="s1", shard=0, bucket=rows[1].bucket, caption="", members=(member,))
    write_record(tar, ShardRecord(plan="abc", size=writer.size, sha256=writer.sha256, samples=(kept,)))
    dataset = Dataset.open(folder)
    found = dataset.read_latents(1, "abc")
    assert found is not None
    assert np.array_equal(found["target"], tensors["target"])
    assert dataset.read_latents(0, "abc") is None  # not in the shard
    assert dataset.read_latents(2, "abc") is None  # no such shard
    assert dataset.read_latents(1, "other") is None
