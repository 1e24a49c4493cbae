"""`--latents`: the cache is what training would compute, is made by parts, and belongs to one dataset and one VAE."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dataset.dataset_tools import SMALL, TALL, write_dataset
from ex4d.core.seeding import make_rng
from ex4d.dataset.latents import LATENTS_INFO, LATENTS_SUFFIX, latents_folder
from ex4d.dataset.reader import Dataset
from ex4d.dataset.sample import TrainingSample
from ex4d.dataset.shards import ShardRecord, ShardWriter, write_record
from ex4d.errors import DatasetError, WeightsError
from ex4d.jobs.executor import Part, Worker, WorkerFactory
from ex4d.jobs.local import LocalExecutor
from ex4d.model.tiny import make_tiny_pipeline, save_tiny
from ex4d.model.training_latents import encode_sample
from ex4d.model.wan_pipeline import EX4DPipeline
from ex4d.prepare.config import LatentConfig
from ex4d.prepare.latent_work import LatentEncoder, pack
from ex4d.prepare.latents import LatentSettings, make_latents

ON_CPU = LatentConfig(seed=3, device="cpu")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dataset") / "ds"
    write_dataset(path, (SMALL, TALL, SMALL))
    return path


class KeptWorker:
    """An executor whose worker stays for the next run: importing torch once is enough for a test."""

    def __init__(self) -> None:
        self._worker: Worker | None = None

    def run(self, factory: WorkerFactory, jobs: Sequence[Any]) -> Iterator[Any]:
        self._worker = self._worker or factory.open()
        yield from map(self._worker.run, jobs)

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()


def check_tensors(found: Mapping[str, np.ndarray], sample: TrainingSample, pipe: EX4DPipeline) -> None:
    """What is cached is what training would compute, but for float16."""
    seed = int(make_rng(ON_CPU.seed, "latents", sample.key).integers(2**31))
    want = encode_sample(pipe, sample.video.frames, sample.survived, sample.caption, seed=seed)
    assert found.keys() == want.keys()
    for name, tensor in want.items():
        assert found[name].dtype == np.float16
        assert found[name].shape == tuple(tensor.shape)
        assert np.abs(found[name] - tensor.float().numpy()).max() < 4e-3


def test_a_sample_encoded_stored_and_read(tmp_path: Path) -> None:
    (row,) = write_dataset(tmp_path / "ds", (TALL,))
    data = LatentEncoder(LatentSettings(dataset=tmp_path / "ds", base=None, config=ON_CPU))(0)
    assert len(data) < 200_000, "text is stored with its padding"
    tar = latents_folder(tmp_path / "ds", "k") / "shard-000000.tar"
    tar.parent.mkdir(parents=True)
    with ShardWriter(tar) as writer:
        member = writer.add(row.key, LATENTS_SUFFIX, data)
    kept = replace(row, members=(member,))
    write_record(tar, ShardRecord(plan="k", size=writer.size, sha256=writer.sha256, samples=(kept,)))
    dataset = Dataset.open(tmp_path / "ds")
    found = dataset.read_latents(0, "k")
    assert found is not None
    check_tensors(found, dataset.read(0), make_tiny_pipeline(attach=False))
    dataset.close()


@pytest.mark.prove
def test_the_cache_of_a_dataset(folder: Path) -> None:
    executor = KeptWorker()
    first = make_latents(folder, "tiny", ON_CPU, executor, part=Part.parse("0/2"))
    assert (first.num_made, first.num_missing, first.num_samples) == (2, 1, 2)
    assert not (first.folder / LATENTS_INFO).exists()
    made = make_latents(folder, "tiny", ON_CPU, executor)
    assert (made.key, made.num_made, made.num_missing, made.num_samples) == (first.key, 1, 0, 3)
    assert (made.folder / LATENTS_INFO).exists()
    assert make_latents(folder, "tiny", ON_CPU, executor).num_made == 0
    executor.close()
    dataset, pipe = Dataset.open(folder), make_tiny_pipeline(attach=False)
    for number in range(3):
        found = dataset.read_latents(number, made.key)
        assert found is not None
        check_tensors(found, dataset.read(number), pipe)
    dataset.close()


def test_other_weights_seeds_and_datasets_have_other_keys(folder: Path, tmp_path: Path) -> None:
    """Without making anything: part 1 of 2 of a dataset with one shard is nothing."""
    write_dataset(tmp_path / "ds", (SMALL, SMALL))
    save_tiny(tmp_path / "weights", seed=1)

    def key(weights: str, seed: int = 0, dataset: str = "ds") -> str:
        part, executor = Part.parse("1/2"), LocalExecutor(num_workers=1)
        made = make_latents(tmp_path / dataset, weights, LatentConfig(seed=seed), executor, part=part)
        assert made.num_made == 0
        return made.key

    keys = [key("tiny"), key("tiny", 1), key(str(tmp_path / "weights"))]
    assert key("tiny") == keys[0]
    write_dataset(tmp_path / "other", (SMALL, TALL))
    assert len({*keys, key("tiny", dataset="other")}) == 4


def test_weights_on_disk_encode_without_a_transformer(folder: Path, tmp_path: Path) -> None:
    save_tiny(tmp_path / "weights")
    encoder = LatentEncoder(LatentSettings(dataset=folder, base=tmp_path / "weights", config=ON_CPU))
    tiny = LatentEncoder(LatentSettings(dataset=folder, base=None, config=ON_CPU))
    assert encoder._pipe.transformer is None
    assert len(encoder(0)) == len(tiny(0))
    with pytest.raises(WeightsError, match="diffusers folder"):
        make_latents(folder, str(folder), ON_CPU, LocalExecutor(num_workers=1))


def test_numbers_that_cannot_be_stored_are_refused() -> None:
    with pytest.raises(WeightsError, match="text"):
        pack({"text": torch.full((4, 2), 1e6)})


def test_a_damaged_dataset_stops_the_cache(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no dataset"):
        make_latents(tmp_path, "tiny", ON_CPU, LocalExecutor(num_workers=1))
    rows = write_dataset(tmp_path / "ds", (SMALL,))
    tar = tmp_path / "ds" / "shards" / "shard-000000.tar"
    data = bytearray(tar.read_bytes())
    data[rows[0].member("mp4").offset + 30] ^= 1
    tar.write_bytes(data)
    with pytest.raises(DatasetError, match="as it was written"):
        LatentEncoder(LatentSettings(dataset=tmp_path / "ds", base=None, config=ON_CPU))(0)
