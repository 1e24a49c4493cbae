"""Samples of a dataset as tensors: from its latent cache, or encoded while training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ex4d.core.seeding import make_rng
from ex4d.dataset.layout import SampleRow
from ex4d.dataset.sample import TrainingSample
from ex4d.errors import DatasetError
from ex4d.model.training_latents import (
    COLOR,
    IMAGE,
    IMAGE_EMBEDS,
    OBSERVED,
    TARGET,
    TEXT,
    encode_seen,
    encode_target,
)
from ex4d.model.wan_pipeline import EX4DPipeline
from ex4d.training.config import DataConfig

MAX_CAPTIONS = 2000
"""More are not embedded before training: they would not fit into memory."""

_OF_MASK = (COLOR, OBSERVED, IMAGE, IMAGE_EMBEDS)


class SampleSource(Protocol):
    """What training asks of a dataset (`ex4d.dataset.reader.Dataset`)."""

    @property
    def rows(self) -> Sequence[SampleRow]:
        """Key, bucket and caption of every sample."""
        ...

    def read(self, number: int) -> TrainingSample:
        """Decode a sample."""
        ...

    def read_latents(self, number: int, cache_key: str) -> Mapping[str, np.ndarray] | None:
        """The cached tensors of a sample (`encode_sample`); None where they are not cached."""
        ...


@dataclass(frozen=True, slots=True)
class Batch:
    """A micro-batch.

    Attributes:
        keys: of its samples.
        target: clean latents float32 [B,C,t,h,w].
        given: further arguments of `TrainedModel.forward`, on the device.
    """

    keys: tuple[str, ...]
    target: Tensor
    given: dict[str, Tensor]


def needed_captions(source: SampleSource, numbers: Sequence[int], config: DataConfig) -> list[str]:
    """Captions whose embeddings are not in the latent cache, sorted; "" stands for one that is left out.

    Raises:
        DatasetError: too many to be embedded before training.
    """
    captions = {""} if config.caption_dropout > 0 else set[str]()
    if not config.latents:
        for number in numbers:
            captions.add(source.rows[number].caption)
            if len(captions) > MAX_CAPTIONS:
                fix = "`ex4d prepare --latents` stores their embeddings in the dataset's latent cache"
                raise DatasetError(f"at most {MAX_CAPTIONS} different captions without latents", "more", fix)
    return sorted(captions)


class BatchMaker:
    """Makes the micro-batches of a step; equal steps give equal batches in every process.

    Args:
        source: the dataset.
        pipe: VAE and image encoder; not used where latents are cached.
        captions: embeddings [512,text_dim] of `needed_captions`.
        config: what is cached, and what is left out how often.
        seed: of masks, erosion and dropout.
    """

    def __init__(
        self,
        source: SampleSource,
        pipe: EX4DPipeline,
        captions: Mapping[str, Tensor],
        config: DataConfig,
        *,
        seed: int,
    ) -> None:
        self._source, self._pipe, self._captions = source, pipe, captions
        self._config, self._seed = config, seed

    def make(self, numbers: Sequence[int], step: int, device: torch.device) -> Batch:
        """The micro-batch of these samples, which are of one bucket.

        Raises:
            DatasetError: a sample that is broken, not cached, or cached by another version.
        """
        keys = tuple(self._source.rows[number].key for number in numbers)
        samples = [self._sample(number, key, step) for number, key in zip(numbers, keys, strict=True)]
        joined = {name: torch.stack([sample[name] for sample in samples]).to(device) for name in samples[0]}
        target = joined.pop(TARGET).float()
        kept = [make_rng(self._seed, "prior dropout", step, key).random() >= self._config.prior_dropout for key in keys]
        joined["prior_kept"] = torch.tensor(kept, dtype=torch.float32, device=device)
        return Batch(keys, target, joined)

    def _sample(self, number: int, key: str, step: int) -> dict[str, Tensor]:
        found = self._cached(number, key, step) if self._config.latents else self._encoded(number, key, step)
        if make_rng(self._seed, "caption dropout", step, key).random() < self._config.caption_dropout:
            found[TEXT] = self._captions[""].to(found[TEXT].dtype)
        return found

    def _cached(self, number: int, key: str, step: int) -> dict[str, Tensor]:
        arrays = self._source.read_latents(number, self._config.latents)
        again = "make the cache again with `ex4d prepare --latents`"
        if arrays is None:
            raise DatasetError(f"cached latents {self._config.latents} of the sample {key}", "none", again)
        missing = {TARGET, TEXT, COLOR, OBSERVED, IMAGE} - set(arrays)
        if missing:
            raise DatasetError(f"the cached latents of {key} to be whole", f"no {', '.join(sorted(missing))}", again)
        which = self._mask(key, step, len(arrays[COLOR]))
        picked = {name: arrays[name][which] if name in _OF_MASK else arrays[name] for name in arrays}
        return {name: torch.from_numpy(np.array(value)) for name, value in picked.items()}

    def _encoded(self, number: int, key: str, step: int) -> dict[str, Tensor]:
        sample = self._source.read(number)
        frames, survived = sample.video.frames, sample.survived
        seed = int(make_rng(self._seed, "erosion", step, key).integers(2**31))
        seen = encode_seen(
            self._pipe,
            frames,
            survived,
            self._mask(key, step, len(survived)),
            seed=seed,
            mask_quirk=self._config.mask_quirk,
        )
        found = {
            TARGET: encode_target(self._pipe, frames),
            TEXT: self._captions[sample.caption],
            COLOR: seen.color[0],
            OBSERVED: seen.observed[0],
            IMAGE: seen.image[0],
        }
        if seen.image_embeds is not None:
            found[IMAGE_EMBEDS] = seen.image_embeds[0]
        return found

    def _mask(self, key: str, step: int, num_masks: int) -> int:
        return int(make_rng(self._seed, "mask", step, key).integers(num_masks))
