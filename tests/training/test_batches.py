"""Micro-batches: what is in them, and what is left out."""

from dataclasses import replace

import pytest
import torch
from training_tools import BUCKETS, MemorySource, make_captions

from ex4d.errors import DatasetError
from ex4d.model.tiny import make_tiny_pipeline
from ex4d.training.batches import Batch, BatchMaker, needed_captions
from ex4d.training.config import DataConfig
from ex4d.training.sampler import choose_buckets

CPU = torch.device("cpu")
NUMBERS = [0, 2]
"""Of one bucket."""


def _maker(config: DataConfig, *, seed: int = 0, source: MemorySource | None = None) -> BatchMaker:
    source = source or MemorySource(cached=bool(config.latents))
    return BatchMaker(source, make_tiny_pipeline(attach=False), make_captions(), config, seed=seed)


def _same(first: Batch, second: Batch) -> bool:
    return torch.equal(first.target, second.target) and all(
        torch.equal(first.given[name], second.given[name]) for name in first.given
    )


def test_cached_and_encoded_batches_have_the_same_tensors() -> None:
    encoded = _maker(DataConfig()).make(NUMBERS, 0, CPU)
    cached = _maker(DataConfig(latents="made")).make(NUMBERS, 0, CPU)
    assert encoded.keys == cached.keys == ("clip-0", "clip-2")
    torch.testing.assert_close(encoded.target, cached.target)
    torch.testing.assert_close(encoded.given["text"], cached.given["text"])
    shapes = {name: tuple(tensor.shape) for name, tensor in cached.given.items()}
    assert {name: tuple(tensor.shape) for name, tensor in encoded.given.items()} == shapes
    assert shapes["color"] == (2, 16, 2, 4, 6)
    assert shapes["prior_kept"] == (2,)


def test_batches_repeat_by_step_and_change_with_it() -> None:
    maker = _maker(DataConfig())
    first = maker.make(NUMBERS, 7, CPU)
    assert _same(first, _maker(DataConfig()).make(NUMBERS, 7, CPU))
    assert not _same(first, maker.make(NUMBERS, 8, CPU)), "erosion and mask are drawn anew"
    assert not _same(first, _maker(DataConfig(), seed=1).make(NUMBERS, 7, CPU))


def test_every_mask_is_used() -> None:
    maker, source = _maker(DataConfig(latents="made")), MemorySource(cached=True)
    latents = source.read_latents(0, "made")
    assert latents is not None
    drawn = {
        index
        for step in range(12)
        for index in range(2)
        if (maker.make([0], step, CPU).given["observed"][0].numpy() == latents["observed"][index]).all()
    }
    assert drawn == {0, 1}


def test_dropout_leaves_out_captions_and_priors_at_its_rate() -> None:
    maker = _maker(DataConfig(latents="made", caption_dropout=0.3, prior_dropout=0.6))
    batches = [maker.make([0], step, CPU) for step in range(200)]
    empty = make_captions()[""]
    dropped = [torch.equal(batch.given["text"][0], empty) for batch in batches]
    kept = [float(batch.given["prior_kept"][0]) for batch in batches]
    assert 40 < sum(dropped) < 80
    assert 55 < sum(kept) < 105
    assert set(kept) == {0.0, 1.0}


def test_captions_that_must_be_embedded() -> None:
    source = MemorySource()
    numbers = list(range(6))
    assert needed_captions(source, numbers, DataConfig()) == ["waves 0", "waves 1"]
    assert needed_captions(source, numbers, DataConfig(caption_dropout=0.1)) == ["", "waves 0", "waves 1"]
    assert needed_captions(source, numbers, DataConfig(latents="made")) == []


def test_a_dataset_of_another_size_is_refused() -> None:
    buckets = MemorySource().buckets
    assert list(choose_buckets(buckets, DataConfig(bucket="5x32x48"))) == [BUCKETS[0]]
    with pytest.raises(DatasetError, match=r"samples of 49x512x512; got a dataset of 5x32x48, 1x32x32"):
        choose_buckets(buckets, DataConfig(bucket="49x512x512"))
    with pytest.raises(DatasetError, match="empty"):
        choose_buckets({}, DataConfig())


def test_latents_that_are_not_there_or_not_whole_are_refused() -> None:
    config = DataConfig(latents="made")
    with pytest.raises(DatasetError, match="cached latents made of the sample clip-0; got none"):
        _maker(config, source=MemorySource()).make([0], 0, CPU)
    torn = MemorySource(cached=True)
    torn._latents = {0: {name: value for name, value in torn._latents[0].items() if name != "text"}}
    with pytest.raises(DatasetError, match="no text"):
        _maker(config, source=torn).make([0], 0, CPU)
    assert replace(config, latents="") == DataConfig()
