"""What tests of training share: a dataset in memory, and the miniature ready to be trained on it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ex4d.core.video import Video
from ex4d.dataset.layout import Bucket, SampleRow
from ex4d.dataset.sample import TrainingSample
from ex4d.model.tiny import make_tiny_pipeline
from ex4d.model.training_latents import encode_sample
from ex4d.pipeline.progress import SilentReporter
from ex4d.pipeline.weight_paths import WeightPaths
from ex4d.training.batches import BatchMaker
from ex4d.training.config import DataConfig, ModelConfig, OptimizerConfig, OutputConfig, TrainConfig
from ex4d.training.processes import Processes, SharedModel
from ex4d.training.sampler import Sampler
from ex4d.training.stack import Stack, embed_captions, load_training_stack
from ex4d.training.trainer import Identity, Trainer

BUCKETS: tuple[Bucket, ...] = ((5, 32, 48), (1, 32, 32))


class MemorySource:
    """Three samples of each bucket: smooth colours that move, and patches that are not seen."""

    def __init__(self, *, cached: bool = False) -> None:
        self.samples = [_sample(f"clip-{i}", BUCKETS[i % 2], seed=i) for i in range(6)]
        self.rows: Sequence[SampleRow] = [
            SampleRow(key=sample.key, shard=0, bucket=BUCKETS[i % 2], caption=sample.caption)
            for i, sample in enumerate(self.samples)
        ]
        self.buckets: Mapping[Bucket, Sequence[int]] = {
            bucket: [i for i, row in enumerate(self.rows) if row.bucket == bucket] for bucket in BUCKETS
        }
        self._latents = _encoded() if cached else {}

    def read(self, number: int) -> TrainingSample:
        return self.samples[number]

    def read_latents(self, number: int, cache_key: str) -> Mapping[str, np.ndarray] | None:
        return self._latents.get(number)


@cache
def _encoded() -> dict[int, dict[str, np.ndarray]]:
    """What `ex4d prepare --latents` makes of the samples."""
    pipe = make_tiny_pipeline(attach=False)
    latents: dict[int, dict[str, np.ndarray]] = {}
    for number, sample in enumerate(MemorySource().samples):
        found = encode_sample(pipe, sample.video.frames, sample.survived, sample.caption, seed=0)
        latents[number] = {name: tensor.numpy() for name, tensor in found.items()}
    return latents


def _sample(key: str, bucket: Bucket, *, seed: int) -> TrainingSample:
    num_frames, height, width = bucket
    random = np.random.default_rng(seed)
    t, y, x = np.meshgrid(*(np.arange(size) for size in bucket), indexing="ij")
    waves = [np.sin((x * a + y * b + 4 * t) / 9 + c) for a, b, c in random.uniform(-1, 1, (3, 3))]
    frames = np.stack([(wave * 100 + 128).astype(np.uint8) for wave in waves], axis=-1)
    patches = random.uniform(size=(2, num_frames, height // 16, width // 16)) > 0.4
    survived = patches.repeat(16, axis=2).repeat(16, axis=3)
    video = Video(frames=frames, timestamps_s=np.arange(num_frames) / 8.0)
    return TrainingSample(key=key, video=video, survived=survived, caption=f"waves {seed % 2}")


def make_config(num_steps: int = 4, **changes: Any) -> TrainConfig:
    """Quick, float32, a checkpoint every other step; `changes` are sections."""
    config = TrainConfig(
        num_steps=num_steps,
        model=ModelConfig(rank=4, alpha=4.0, precision="fp32", checkpointing=False),
        optimizer=OptimizerConfig(lr=3e-3, warmup_steps=2, ema_decay=0.5),
        data=DataConfig(num_micro_batches=2, micro_batch=2, caption_dropout=0.2, prior_dropout=0.2, latents="made"),
        output=OutputConfig(checkpoint_every=2, keep_last=2),
    )
    return replace(config, **changes)


@cache
def make_captions() -> dict[str, torch.Tensor]:
    """Embeddings of the samples' captions, and of none."""
    return embed_captions(["", "waves 0", "waves 1"], WeightPaths(), torch.device("cpu"), hashes={})


def make_stack(config: TrainConfig) -> Stack:
    """The miniature with a new adapter."""
    return load_training_stack(config, WeightPaths(), torch.device("cpu"), hashes={})


def make_trainer(
    config: TrainConfig, folder: Path, processes: Processes, *, stack: Stack | None = None, dataset: str = "waves"
) -> Trainer:
    """A run on `MemorySource`."""
    stack = stack or make_stack(config)
    source = MemorySource(cached=bool(config.data.latents))
    captions = make_captions()
    return Trainer(
        SharedModel(stack.model, config, processes),
        BatchMaker(source, stack.pipe, captions, config.data, seed=config.seed),
        Sampler(source.buckets, config.data, seed=config.seed),
        config,
        folder,
        processes,
        Identity(model=stack.identity, dataset=dataset),
    )


def train_steps(config: TrainConfig, folder: Path, processes: Processes) -> Trainer:
    """Train to the last step, from a checkpoint if there is one."""
    trainer = make_trainer(config, folder, processes)
    trainer.resume()
    trainer.run(SilentReporter())
    return trainer
