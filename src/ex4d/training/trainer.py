"""The training loop: the same losses after a resume as without, and on any number of processes."""

import math
import signal
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from ex4d.core.seeding import make_rng
from ex4d.errors import DatasetError, Ex4dError
from ex4d.pipeline.progress import Reporter
from ex4d.training.batches import Batch
from ex4d.training.checkpoint import Checkpoints, RunState, Trained, check_belongs, list_checkpoints, load, read_state
from ex4d.training.config import OptimizerConfig, TrainConfig
from ex4d.training.log import Log, Measured, summarize
from ex4d.training.model import trained_parameters
from ex4d.training.objective import Draw, Schedule, draw, errors, to_velocity
from ex4d.training.processes import Processes, SharedModel
from ex4d.training.sampler import Sampler


class MakesBatches(Protocol):
    """What the loop takes batches from (`BatchMaker`)."""

    def make(self, numbers: list[int], step: int, device: torch.device) -> Batch:
        """The micro-batch of these samples in this step."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a run's checkpoints belong to, beside its recipe."""

    model: str
    dataset: str


class Trainer:
    """A run in one of its processes.

    Args:
        model: ready to train, on the device, not shared out.
        batches: makes micro-batches.
        sampler: says of which samples.
        config: settings.
        folder: of the run; checkpoints and log go there.
        processes: this one among the others.
        identity: what checkpoints belong to.

    Attributes:
        trained: name → parameter that changes; in parts under ``fsdp``.
        ema: their running averages; {} = none.
        step: steps that are done.
        is_interrupted: whether SIGINT ended `run`.
    """

    def __init__(
        self,
        model: SharedModel,
        batches: MakesBatches,
        sampler: Sampler,
        config: TrainConfig,
        folder: Path,
        processes: Processes,
        identity: Identity,
    ) -> None:
        self._model, self._batches, self._sampler, self._config = model, batches, sampler, config
        self._folder, self._processes, self._identity = folder, processes, identity
        self._schedule = Schedule.of(config.objective)
        self.trained = trained_parameters(model.model)
        options = config.optimizer
        self._optimizer = torch.optim.AdamW(
            list(self.trained.values()),
            lr=options.lr,
            betas=cast(tuple[float, float], options.betas),
            eps=options.eps,
            weight_decay=options.weight_decay,
        )
        decays = options.ema_decay > 0
        self.ema = {name: value.detach().clone() for name, value in self.trained.items()} if decays else {}
        self._stored = Trained(model.model, self._optimizer, self.ema)
        self._checkpoints = Checkpoints(folder, processes, keep_last=config.output.keep_last)
        self.step, self.is_interrupted = 0, False

    def resume(self) -> int:
        """Go on after the newest checkpoint, if there is one; returns the steps that are done.

        Raises:
            WeightsError: it is of another model, dataset or recipe, or damaged.
        """
        found = list_checkpoints(self._folder)
        if found:
            state = read_state(found[-1])
            check_belongs(state, self._state(state.step), found[-1])
            load(self._stored, found[-1], self._processes)
            self.step = state.step
        return self.step

    def run(self, reporter: Reporter, *, on_step: Callable[[int], None] | None = None) -> bool:
        """Train to the last step; True if it was reached, False if a signal ended the run after a checkpoint.

        Args:
            reporter: told of each step.
            on_step: called after each step but one ended by a signal, with the steps that are done, in every process.

        Raises:
            Ex4dError: a loss or gradient that is no number; the last checkpoint is kept.
            OutputError: a checkpoint or the log could not be written.
        """
        output, main = self._config.output, self._processes.rank == 0
        log = Log(self._folder, step=self.step, tensorboard=output.tensorboard) if main else None
        reporter.begin("train", self._config.num_steps - self.step, "steps")
        try:
            with _told_to_end() as told:
                stopped: list[int] = []
                while self.step < self._config.num_steps and not stopped:
                    values, stopped = self._one_step(told)
                    if log is not None:
                        log.write(self.step, values)
                    reporter.advance()
                    self._checkpoints.finish_if_done()
                    is_last = bool(stopped) or self.step == self._config.num_steps
                    if is_last or self.step % output.checkpoint_every == 0:
                        self._checkpoints.save(self._stored, self._state(self.step))
                    if on_step is not None and not stopped:
                        on_step(self.step)
        finally:
            self._checkpoints.finish()
            if log is not None:
                log.close()
        reporter.end()
        self.is_interrupted = signal.SIGINT in stopped
        return not stopped

    def _state(self, step: int) -> RunState:
        position, identity = self._sampler.position(step), self._identity
        return RunState(
            step=step,
            epoch=position.epoch,
            cursor=position.cursor,
            recipe=self._config.digest(),
            dataset=identity.dataset,
            model=identity.model,
        )

    def _one_step(self, told: list[int]) -> tuple[dict[str, Any], list[int]]:
        """Values for the log, and the signals that told any process to end."""
        started = time.perf_counter()
        own = self._sampler.micro_batches(self.step)[self._processes.rank :: self._processes.world_size]
        measured = [
            entry
            for index, numbers in enumerate(own)
            for entry in self._micro_batch(self._batch(numbers, told), len(own), is_last=index == len(own) - 1)
        ]
        everything = self._processes.gather((measured, list(told)))
        values = summarize([entry for part, _ in everything for entry in part])
        self._check(values["loss"], "loss")
        norm = torch.nn.utils.clip_grad_norm_(self.trained.values(), self._config.optimizer.max_grad_norm)
        values["grad_norm"] = float(cast(Any, norm).full_tensor() if hasattr(norm, "full_tensor") else norm)
        self._check(values["grad_norm"], "gradient")
        values["lr"] = rate = learning_rate(self._config.optimizer, self.step, self._config.num_steps)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._average()
        self.step += 1
        return {**values, "s_per_step": time.perf_counter() - started}, [
            number for _, heard in everything for number in heard
        ]

    def _batch(self, numbers: list[int], told: list[int]) -> Batch:
        """A signal to a group of processes ends the decoder too: a sample that broke with it is read again."""
        try:
            return self._batches.make(numbers, self.step, self._processes.device)
        except DatasetError:
            if not told:
                raise
            return self._batches.make(numbers, self.step, self._processes.device)

    def _micro_batch(self, batch: Batch, num_batches: int, *, is_last: bool) -> list[Measured]:
        """Gradients of one micro-batch, added up; what its samples cost."""
        device = batch.target.device
        shape = tuple(batch.target.shape[1:])
        draws = [draw(self._schedule, shape, seed=self._config.seed, step=self.step, key=key) for key in batch.keys]
        with self._model.accumulating(is_last=is_last):
            costs = self._costs(batch, draws)
            weights = torch.tensor([each.weight for each in draws], device=device)
            ((costs * weights).mean() / num_batches).backward()
        found = zip(draws, costs.detach().tolist(), strict=True)
        return [Measured(each.sigma, cost, each.weight) for each, cost in found]

    def _costs(self, batch: Batch, draws: list[Draw]) -> Tensor:
        device = batch.target.device
        noise = torch.stack([each.noise for each in draws]).to(device)
        sigmas = torch.tensor([each.sigma for each in draws], dtype=torch.float32, device=device)
        share = sigmas.view(-1, 1, 1, 1, 1)
        noisy = (1 - share) * batch.target + share * noise
        output = self._model.call(noisy, sigmas, **batch.given)
        velocity = to_velocity(output, noisy, sigmas, self._config.objective.prediction)
        return errors(velocity, batch.target, noise)

    def _average(self) -> None:
        """Into the running averages, which follow faster in the first steps."""
        decay = min(self._config.optimizer.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, average in self.ema.items():
                average.lerp_(self.trained[name].detach(), 1 - decay)

    def _check(self, value: float, what: str) -> None:
        if not math.isfinite(value):
            raise Ex4dError(
                f"a finite {what} in step {self.step + 1}",
                str(value),
                "a lower optimizer.lr, a longer warm-up, or sound weights and data; the last checkpoint is kept",
            )


def learning_rate(config: OptimizerConfig, step: int, num_steps: int) -> float:
    """Of step number `step`, counted from 0."""
    rising = min((step + 1) / config.warmup_steps, 1.0) if config.warmup_steps else 1.0
    falling = 0.5 * (1 + math.cos(math.pi * step / num_steps)) if config.cosine else 1.0
    return config.lr * rising * falling


def validation_seed(seed: int) -> int:
    """Of the noise that pictures are made from: the same in every one, so that they can be compared."""
    return int(make_rng(seed, "validation").integers(2**31))


@contextmanager
def _told_to_end() -> Generator[list[int], None, None]:
    """Yields a list of the signals that came: SIGTERM, SIGINT. Training ends after the step, with a checkpoint.

    A second SIGINT ends it at once.
    """
    told: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and number in told:
            raise KeyboardInterrupt
        told.append(number)

    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    before = {number: handler for number, handler in handlers.items() if handler != signal.SIG_IGN}  # nohup, &
    for number in before:
        signal.signal(number, hear)
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
