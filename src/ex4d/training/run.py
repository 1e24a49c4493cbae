"""`train`: a dataset and frozen weights in, a run folder with checkpoints out.

::

    run.json          settings, weights, dataset, versions: enough to resume and to export
    log.jsonl         a line a step
    checkpoints/      the newest few (`checkpoint`)
    validation/       a sheet of one sample, every so many steps
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from ex4d.dataset.latents import LATENTS_INFO, latents_folder
from ex4d.dataset.layout import LATENTS
from ex4d.dataset.reader import Dataset
from ex4d.dataset.sample import TrainingSample
from ex4d.errors import ConfigError, DatasetError, OutputError, WeightsError
from ex4d.io.atomic import output_error, write_json_atomic
from ex4d.model.branch import TextEmbeds
from ex4d.model.components import check_folder
from ex4d.model.config import NEGATIVE_PROMPT, TINY
from ex4d.model.training_latents import encode_seen, encode_target
from ex4d.model.wan_pipeline import EX4DPipeline
from ex4d.pipeline.progress import Reporter
from ex4d.pipeline.weight_paths import WeightPaths
from ex4d.training.batches import Batch, BatchMaker, choose_buckets, needed_captions
from ex4d.training.config import AUTO, TrainConfig, config_from_json, config_to_json
from ex4d.training.model import TrainedModel, check_counts, count_trained
from ex4d.training.processes import Processes, SharedModel, check_shares, open_processes
from ex4d.training.sampler import Sampler
from ex4d.training.stack import embed_captions, hash_weights, load_training_stack
from ex4d.training.trainer import Identity, Trainer, validation_seed
from ex4d.training.validate import FOLDER as VALIDATION
from ex4d.training.validate import sample_latents, seen_of, write_validation_sheet
from ex4d.weights.registry import resolve

RUN = "run.json"
_PACKAGES = ("ex4d", "torch", "diffusers", "transformers", "peft")


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


@dataclass(frozen=True, slots=True)
class TrainResult:
    """How a run ended.

    Attributes:
        step: steps that are done.
        is_complete: False: SIGTERM ended it after a checkpoint.
        num_encoder_params: trained, of the geometry encoder.
        num_lora_params: trained, of the LoRA.
    """

    step: int
    is_complete: bool
    num_encoder_params: int
    num_lora_params: int


def train(
    request: TrainRequest, output: Path, *, resume: bool = False, device: str | None = None, reporter: Reporter
) -> TrainResult:
    """Train in this process, together with the others that torchrun started.

    Args:
        request: what.
        output: folder of the run, new or empty unless resumed.
        resume: go on after its newest checkpoint, or from the beginning if there is none yet.
        device: ``cuda`` or ``cpu``; None = cuda if there is one; the miniature's is the CPU.
        reporter: told of progress, by rank 0.

    Raises:
        DatasetError: no finished dataset, an empty one, or none of the recipe's size.
        WeightsError: weights that do not fit, or a checkpoint of another model, dataset or recipe.
        ConfigError: settings that do not go together.
        OutputError: the folder is in use, or cannot be written.
        Ex4dError: the loss is no number any more.
    """
    dataset = Dataset.open(request.dataset)
    config = _with_latents(request.config, dataset)
    buckets = choose_buckets(dataset.buckets, config.data)
    sampler = Sampler(buckets, config.data, seed=config.seed)
    weights = find_training_weights(request)
    with open_processes(device="cpu" if weights.base is None else device) as processes:
        check_shares(config, processes)
        _claim(output, processes, resume=resume)
        hashes = processes.gather(hash_weights(weights) if processes.rank == 0 else {})[0]
        numbers = [number for found in buckets.values() for number in found]
        if config.data.latents:
            _check_latents(config, dataset, hashes if weights.base is not None else None)
        texts = _captions(config, dataset, numbers)
        captions = embed_captions(texts, weights, processes.device, hashes=hashes)
        stack = load_training_stack(config, weights, processes.device, hashes=hashes, encodes=not config.data.latents)
        counts = count_trained(stack.model)
        if processes.rank == 0:
            _tell(reporter, config, stack.model, len(numbers))
        model = SharedModel(stack.model, config, processes)
        trainer = Trainer(
            model,
            BatchMaker(dataset, stack.pipe, captions, config.data, seed=config.seed),
            sampler,
            config,
            output,
            processes,
            Identity(model=stack.identity, dataset=dataset.fingerprint),
        )
        if trainer.resume() and processes.rank == 0:
            reporter.note(f"going on after step {trainer.step}")
        if processes.rank == 0:
            _write_run(output, replace(request, config=config), dataset, counts)
        validation = _Validation(
            config, lambda: dataset.read(numbers[0]), stack.pipe, model, captions, output, processes
        )
        done = trainer.run(reporter, on_step=validation.after)
    dataset.close()
    return TrainResult(trainer.step, done, *counts)


def find_training_weights(request: TrainRequest) -> WeightPaths:
    """Where the base is, and the adapter to start from.

    Raises:
        WeightsError: something is missing, or of another model.
    """
    adapter = None if request.adapter is None else resolve(request.adapter)
    if request.weights == TINY:
        return WeightPaths(adapter=adapter)
    base = resolve(request.weights)
    check_folder(base)
    return WeightPaths(base=base, adapter=adapter)


def read_run(folder: Path) -> dict[str, Any]:
    """``run.json`` of a run.

    Raises:
        WeightsError: no run there.
    """
    try:
        return json.loads((folder / RUN).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"a run of `ex4d train` at {folder}", f"no readable {RUN} ({error})") from error


def run_config(run: Mapping[str, Any]) -> TrainConfig:
    """The settings in a ``run.json``."""
    return config_from_json(run["config"])


def _with_latents(config: TrainConfig, dataset: Dataset) -> TrainConfig:
    if config.data.latents != AUTO:
        return config
    found = sorted(path.parent.name for path in (dataset.folder / LATENTS).glob(f"*/{LATENTS_INFO}"))
    if len(found) > 1:
        raise ConfigError(f"data.latents: one of {', '.join(found)}", AUTO, "the dataset has several caches")
    return replace(config, data=replace(config.data, latents=found[0] if found else ""))


def _check_latents(config: TrainConfig, dataset: Dataset, hashes: Mapping[str, str] | None) -> None:
    """Raise a DatasetError unless the latent cache was made by these encoders, in this way; None = the miniature's."""
    path = latents_folder(dataset.folder, config.data.latents) / LATENTS_INFO
    again = "make one with `ex4d prepare DATASET --latents WEIGHTS`, or train with --latents none"
    try:
        info = json.loads(path.read_text("utf-8"))
        made, quirk = info["weights"], info["config"]["mask_quirk"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"a finished latent cache at {path.parent}", f"no readable {LATENTS_INFO}", again) from error
    same = TINY in made if hashes is None else made.items() <= hashes.items()
    if not same:
        raise DatasetError("latents made by the encoders of --weights", "others'", again)
    if quirk != config.data.mask_quirk:
        raise DatasetError(f"latents with data.mask_quirk {config.data.mask_quirk}", str(quirk), again)


def _claim(output: Path, processes: Processes, *, resume: bool) -> None:
    """A folder that is new, empty, or that of the run to be resumed; all processes raise alike."""
    error: Exception | None = None
    if processes.rank == 0:
        try:
            output.mkdir(parents=True, exist_ok=True)
            if any(output.iterdir()) and not (resume and (output / RUN).is_file()):
                there = "a run" if (output / RUN).is_file() else "one that holds something else"
                fix = "add --resume to go on with it" if there == "a run" else "choose another --output-dir"
                error = OutputError(f"a new or empty folder {output}", there, fix)
        except OSError as failed:
            error = output_error(output, failed)
    error = processes.gather(error)[0]
    if error is not None:
        raise error


def _captions(config: TrainConfig, dataset: Dataset, numbers: Sequence[int]) -> list[str]:
    texts = needed_captions(dataset, numbers, config.data)
    if config.output.validate_every:
        texts += [dataset.rows[numbers[0]].caption]
        texts += [NEGATIVE_PROMPT] if config.output.guidance_scale > 1 else []
    return sorted(set(texts))


def _tell(reporter: Reporter, config: TrainConfig, model: TrainedModel, num_samples: int) -> None:
    encoder, lora = count_trained(model)
    checked = ", as in the release" if check_counts(model) else ""
    reporter.note(f"trained: geometry encoder {encoder:,} + LoRA {lora:,} = {encoder + lora:,} parameters{checked}")
    where = f"latents from the cache {config.data.latents}" if config.data.latents else "encoded while training"
    reporter.note(f"{num_samples} samples, {where}")


def _write_run(output: Path, request: TrainRequest, dataset: Dataset, counts: tuple[int, int]) -> None:
    content = {
        "config": config_to_json(request.config),
        "weights": request.weights,
        "adapter": None if request.adapter is None else str(request.adapter),
        "dataset": {"folder": str(request.dataset), "fingerprint": dataset.fingerprint},
        "trained_params": {"geometry_encoder": counts[0], "lora": counts[1]},
        "versions": {package: version(package) for package in _PACKAGES},
    }
    write_json_atomic(output / RUN, content)


class _Validation:
    """Pictures of the first sample through its first mask, with the same noise each time."""

    def __init__(
        self,
        config: TrainConfig,
        read: Callable[[], TrainingSample],
        pipe: EX4DPipeline,
        model: SharedModel,
        captions: Mapping[str, Tensor],
        output: Path,
        processes: Processes,
    ) -> None:
        self._config, self._read, self._pipe, self._model = config, read, pipe, model
        self._captions, self._output, self._processes = captions, output, processes

    def after(self, step: int) -> None:
        """Render if it is time to; every process takes part."""
        every = self._config.output.validate_every
        if not every or step % every:
            return
        sample, pipe = self._read(), self._pipe
        frames, survived = sample.video.frames, sample.survived
        quirk = self._config.data.mask_quirk
        seen = encode_seen(pipe, frames, survived, 0, seed=self._config.seed, mask_quirk=quirk)
        given = {"color": seen.color, "observed": seen.observed, "image": seen.image}
        if seen.image_embeds is not None:
            given["image_embeds"] = seen.image_embeds
        batch = Batch((sample.key,), encode_target(pipe, frames)[None], given)
        device = self._processes.device
        uncond = self._captions.get(NEGATIVE_PROMPT)
        text = TextEmbeds(
            cond=self._captions[sample.caption][None].to(device),
            uncond=None if uncond is None else uncond[None].to(device),
        )
        latents = sample_latents(
            self._model,
            batch,
            text,
            self._config.objective,
            num_steps=self._config.output.validation_steps,
            guidance_scale=self._config.output.guidance_scale,
            seed=validation_seed(self._config.seed),
        )
        if self._processes.rank == 0:
            path = self._output / VALIDATION / f"step-{step:08d}.png"
            write_validation_sheet(path, frames, seen_of(frames, survived[0]), pipe.decode(latents))
