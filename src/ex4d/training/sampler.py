"""Which samples a step sees: the same for any number of processes, and known from the step's number alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ex4d.core.seeding import make_rng
from ex4d.dataset.layout import Bucket
from ex4d.errors import DatasetError
from ex4d.training.config import DataConfig


@dataclass(frozen=True, slots=True)
class Position:
    """Where in the stream of micro-batches a run is.

    Attributes:
        epoch: passes over the dataset that are complete.
        cursor: micro-batches of the current pass that were seen.
    """

    epoch: int
    cursor: int


class Sampler:
    """Micro-batches of samples of one bucket, in a new order every epoch.

    The last micro-batch of a bucket is filled up with the first samples of its order, so that all have one size.

    Args:
        buckets: (num_frames, height, width) → numbers of its samples.
        config: sizes of batches.
        seed: of the order.

    Raises:
        DatasetError: no samples.
    """

    def __init__(self, buckets: Mapping[Bucket, Sequence[int]], config: DataConfig, *, seed: int) -> None:
        self._buckets = {bucket: list(numbers) for bucket, numbers in sorted(buckets.items()) if len(numbers)}
        self._size, self._per_step, self._seed = config.micro_batch, config.num_micro_batches, seed
        self.per_epoch = sum(-(-len(numbers) // self._size) for numbers in self._buckets.values())
        if self.per_epoch == 0:
            raise DatasetError("a dataset with samples", "an empty one", "see its errors.jsonl")
        self._epoch, self._order = -1, [[0]]

    def position(self, step: int) -> Position:
        """Where step number `step` begins, counted from 0."""
        return Position(*divmod(step * self._per_step, self.per_epoch))

    def micro_batches(self, step: int) -> list[list[int]]:
        """Samples of each micro-batch of a step, over all processes."""
        start = step * self._per_step
        return [self._at(*divmod(start + offset, self.per_epoch)) for offset in range(self._per_step)]

    def _at(self, epoch: int, cursor: int) -> list[int]:
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._shuffled(epoch)
        return self._order[cursor]

    def _shuffled(self, epoch: int) -> list[list[int]]:
        batches: list[list[int]] = []
        for bucket, numbers in self._buckets.items():
            order = [numbers[i] for i in make_rng(self._seed, "order", epoch, *bucket).permutation(len(numbers))]
            order += [order[i % len(numbers)] for i in range(-len(numbers) % self._size)]
            batches += [order[i : i + self._size] for i in range(0, len(order), self._size)]
        return [batches[i] for i in make_rng(self._seed, "batches", epoch).permutation(len(batches))]


def choose_buckets(buckets: Mapping[Bucket, Sequence[int]], config: DataConfig) -> dict[Bucket, Sequence[int]]:
    """The buckets of a dataset that are trained on.

    Raises:
        DatasetError: none of the samples has the size that the recipe asks for, or there are none.
    """
    wanted = config.only_bucket()
    if not buckets:
        raise DatasetError("a dataset with samples", "an empty one", "see its errors.jsonl")
    if wanted is None:
        return dict(buckets)
    if wanted not in buckets:
        there = ", ".join("x".join(map(str, bucket)) for bucket in buckets)
        fix = "prepare it so, or change data.bucket in the recipe"
        raise DatasetError(f"samples of {config.bucket}", f"a dataset of {there}", fix)
    return {wanted: buckets[wanted]}
