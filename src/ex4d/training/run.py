"""`train`: a dataset and frozen weights in, a run folder with checkpoints out.

::

    run.json          settings, weights, dataset, versions: enough to resume and to export
    log.jsonl         a line a step
    checkpoints/      the newest few (`checkpoint`)
    validation/       a sheet of one sample, every so many steps
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from torch import Tensor

from ex4d.dataset.latents import LATENTS_INFO, latents_folder
from ex4d.dataset.reader import Dataset
from ex4d.dataset.sample import TrainingSample
from ex4d.errors import DatasetError
from ex4d.io.atomic import write_json_atomic
from ex4d.model.branch import TextEmbeds
from ex4d.model.components import check_folder
from ex4d.model.config import NEGATIVE_PROMPT, TINY
from ex4d.model.training_latents import encode_seen, encode_target
from ex4d.model.wan_pipeline import EX4DPipeline
from ex4d.pipeline.progress import Reporter
from ex4d.pipeline.weight_paths import WeightPaths
from ex4d.training.batches import Batch, BatchMaker, needed_captions
from ex4d.training.config import TrainConfig, config_to_json
from ex4d.training.folder import RUN, check_same, claimed_by
from ex4d.training.model import TrainedModel, check_counts, count_trained
from ex4d.training.processes import Processes, SharedModel, check_shares, open_processes
from ex4d.training.sampler import Sampler, choose_buckets
from ex4d.training.stack import embed_captions, hash_weights, load_training_stack
from ex4d.training.start import TrainRequest, with_latents
from ex4d.training.trainer import Identity, Trainer, validation_seed
from ex4d.training.validate import FOLDER as VALIDATION
from ex4d.training.validate import sample_latents, seen_of, write_validation_sheet
from ex4d.weights.registry import resolve

_PACKAGES = ("ex4d", "torch", "diffusers", "transformers", "peft")


@dataclass(frozen=True, slots=True)
class TrainResult:
    """How a run ended.

    Attributes:
        step: steps that are done.
        is_complete: False: a signal ended it after a checkpoint.
        is_interrupted: that was SIGINT (Ctrl-C), not SIGTERM.
        num_encoder_params: trained, of the geometry encoder.
        num_lora_params: trained, of the LoRA.
    """

    step: int
    is_complete: bool
    is_interrupted: bool
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
        OutputError: the folder is in use, holds a run of something else, or cannot be written.
        Ex4dError: the loss is no number any more.
    """
    weights = find_training_weights(request)
    with (
        closing(Dataset.open(request.dataset)) as dataset,
        open_processes(device="cpu" if weights.base is None else device) as processes,
        claimed_by(processes, output, resume=resume) as stored,
    ):
        request = replace(request, config=with_latents(request.config, dataset))
        check_shares(request.config, processes)
        hashes = processes.gather(hash_weights(weights) if processes.rank == 0 else {})[0]
        if stored is not None:
            digest = _digest(hashes)
            check_same(stored, request.config, output, dataset=dataset.fingerprint, weights=digest)
        trainer, validation, counts = _build(request, dataset, weights, hashes, output, processes, reporter)
        done_before = trainer.resume()
        if processes.rank == 0:
            if resume:
                where = f"going on after step {done_before}" if done_before else "no checkpoint yet: from the beginning"
                reporter.note(where)
            _write_run(output, request, dataset, counts, _digest(hashes))
        done = trainer.run(reporter, on_step=validation.after)
    return TrainResult(trainer.step, done, trainer.is_interrupted, *counts)


def _build(
    request: TrainRequest,
    dataset: Dataset,
    weights: WeightPaths,
    hashes: Mapping[str, str],
    output: Path,
    processes: Processes,
    reporter: Reporter,
) -> "tuple[Trainer, _Validation, tuple[int, int]]":
    """All that a run works with, and the numbers of parameters that are trained."""
    config = request.config
    buckets = choose_buckets(dataset.buckets, config.data)
    numbers = [number for found in buckets.values() for number in found]
    if config.data.latents:
        _check_latents(config, dataset, hashes if weights.base is not None else None)
    sampler = Sampler(buckets, config.data, seed=config.seed)
    texts = _captions(config, dataset, numbers)
    captions = embed_captions(texts, weights, processes.device, hashes=hashes)
    stack = load_training_stack(config, weights, processes.device, hashes=hashes, encodes=not config.data.latents)
    counts = count_trained(stack.model)
    if processes.rank == 0:
        _tell(reporter, config, stack.model, len(numbers))
    model = SharedModel(stack.model, config, processes)
    batches = BatchMaker(dataset, stack.pipe, captions, config.data, seed=config.seed)
    identity = Identity(model=stack.identity, dataset=dataset.fingerprint)
    trainer = Trainer(model, batches, sampler, config, output, processes, identity)
    first = numbers[0]
    return (
        trainer,
        _Validation(config, lambda: dataset.read(first), stack.pipe, model, captions, output, processes),
        counts,
    )


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


def _digest(hashes: Mapping[str, str]) -> str:
    """Of all files of weights that a run starts from."""
    return hashlib.sha256(json.dumps(sorted(hashes.items())).encode()).hexdigest()


def _write_run(output: Path, request: TrainRequest, dataset: Dataset, counts: tuple[int, int], weights: str) -> None:
    content = {
        "config": config_to_json(request.config),
        "weights": request.weights,
        "adapter": None if request.adapter is None else str(request.adapter),
        "weights_sha256": weights,
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
        try:
            sample = self._read()
        except DatasetError:  # a signal to the group of processes ends the decoder too: read again
            sample = self._read()
        pipe = self._pipe
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
