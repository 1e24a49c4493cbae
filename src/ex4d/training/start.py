"""What is asked of training, and what can be said of it before torch is imported. No torch."""

from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from ex4d.dataset.latents import LATENTS_INFO
from ex4d.dataset.layout import LATENTS
from ex4d.dataset.reader import Dataset
from ex4d.errors import ConfigError
from ex4d.model.config import TINY
from ex4d.training.config import AUTO, TrainConfig
from ex4d.training.folder import check_output, check_same
from ex4d.training.sampler import choose_buckets
from ex4d.weights.registry import resolve


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest:
    """What is trained on what.

    Attributes:
        config: a recipe's settings; ``data.latents`` may be ``auto``: the dataset's cache if it has one.
        dataset: folder of a finished dataset.
        weights: of Wan2.1-I2V-14B: a name of the registry, a folder, or ``tiny``.
        adapter: folder of an adapter to start from; None = a new one.
    """

    config: TrainConfig
    dataset: Path
    weights: str
    adapter: Path | None = None


def check_start(request: TrainRequest, output: Path, *, resume: bool) -> None:
    """Find out what can be known at once; `run.train` looks again once it holds the folder.

    Raises:
        Ex4dError: as `run.train` does.
    """
    with closing(Dataset.open(request.dataset)) as dataset:
        config = with_latents(request.config, dataset)
        choose_buckets(dataset.buckets, config.data)
        stored = check_output(output, resume=resume)
        if stored is not None:
            check_same(stored, config, output, dataset=dataset.fingerprint)
    for name in (request.weights, request.adapter):
        if name is not None and name != TINY:
            resolve(name)


def with_latents(config: TrainConfig, dataset: Dataset) -> TrainConfig:
    """The settings with the dataset's latent cache for ``auto``.

    Raises:
        ConfigError: it has several.
    """
    if config.data.latents != AUTO:
        return config
    found = sorted(path.parent.name for path in (dataset.folder / LATENTS).glob(f"*/{LATENTS_INFO}"))
    if len(found) > 1:
        raise ConfigError(f"data.latents: one of {', '.join(found)}", AUTO, "the dataset has several caches")
    return replace(config, data=replace(config.data, latents=found[0] if found else ""))
