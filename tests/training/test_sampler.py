"""The order of samples."""

import pytest

from ex4d.errors import DatasetError
from ex4d.training.config import DataConfig
from ex4d.training.sampler import Position, Sampler

BUCKETS = {(5, 32, 48): [0, 2, 4, 6, 8], (1, 32, 32): [1, 3]}


def _sampler(seed: int = 0, micro_batch: int = 2, num_micro_batches: int = 2) -> Sampler:
    config = DataConfig(micro_batch=micro_batch, num_micro_batches=num_micro_batches)
    return Sampler(BUCKETS, config, seed=seed)


def test_an_epoch_shows_every_sample_and_one_bucket_a_micro_batch() -> None:
    sampler = _sampler(num_micro_batches=1)
    assert sampler.per_epoch == 4
    batches = [sampler.micro_batches(step)[0] for step in range(4)]
    assert {number for batch in batches for number in batch} == {0, 1, 2, 3, 4, 6, 8}
    for batch in batches:
        assert len(batch) == 2
        assert len({number % 2 for number in batch}) == 1
    assert batches != [sampler.micro_batches(step)[0] for step in range(4, 8)], "a new order every epoch"


def test_any_step_can_be_asked_for_first() -> None:
    straight = _sampler()
    steps = [straight.micro_batches(step) for step in range(9)]
    for step in (8, 3, 0, 5):
        assert _sampler().micro_batches(step) == steps[step]
    assert _sampler(seed=1).micro_batches(0) + _sampler(seed=1).micro_batches(1) != steps[0] + steps[1]


def test_the_stream_does_not_depend_on_how_steps_are_cut() -> None:
    def stream(size: int) -> list[list[int]]:
        return [batch for step in range(12 // size) for batch in _sampler(num_micro_batches=size).micro_batches(step)]

    assert stream(1) == stream(2) == stream(4) == stream(6)


def test_position() -> None:
    assert _sampler().position(0) == Position(0, 0)
    assert _sampler().position(5) == Position(2, 2)


def test_a_bucket_smaller_than_a_micro_batch_is_repeated() -> None:
    sampler = Sampler({(1, 16, 16): [7]}, DataConfig(micro_batch=3), seed=0)
    assert sampler.micro_batches(4) == [[7, 7, 7]]


def test_no_samples_are_refused() -> None:
    with pytest.raises(DatasetError, match="empty"):
        Sampler({}, DataConfig(), seed=0)
