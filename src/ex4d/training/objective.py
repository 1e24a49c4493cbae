"""Flow matching: which noise and timestep a sample gets, and what the error of a velocity costs.

x_t = (1 − σ) clean + σ noise, and the velocity noise − clean is to be predicted. Timesteps are drawn evenly from
`num_timesteps` shifted ones, errors weighted with a bell over them, as in the trainer that the release is based on
(DiffSynth 1.1, `FlowMatchScheduler` with ``training=True``).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ex4d.core.arrays import Float64
from ex4d.core.seeding import make_rng
from ex4d.model.sampling import NUM_TRAIN_TIMESTEPS, linear_sigmas
from ex4d.training.config import ObjectiveConfig


@dataclass(frozen=True, slots=True)
class Schedule:
    """What can be drawn.

    Attributes:
        sigmas: float64 [N], after the shift, 1 first.
        weights: float64 [N], of the squared error, mean 1.
    """

    sigmas: Float64
    weights: Float64

    @staticmethod
    def of(config: ObjectiveConfig) -> "Schedule":
        """The schedule of a config."""
        linear = linear_sigmas(config.num_timesteps)
        sigmas = config.shift * linear / (1 + (config.shift - 1) * linear)
        weights = bell_weights(sigmas) if config.weighting == "bell" else np.ones_like(sigmas)
        drawn = sigmas >= config.min_sigma
        return Schedule(sigmas[drawn], weights[drawn] / weights[drawn].mean())


def bell_weights(sigmas: Float64) -> Float64:
    """w(t) ∝ exp(−2 ((t − 500) / 1000)²) − its minimum over t = 1000 σ, mean 1; 0 at pure noise."""
    steps = NUM_TRAIN_TIMESTEPS
    bell = np.exp(-2 * ((sigmas * steps - steps / 2) / steps) ** 2)
    bell -= bell.min()
    return bell / bell.mean()


@dataclass(frozen=True, slots=True)
class Draw:
    """What chance gives a sample in one step.

    Attributes:
        sigma: σ.
        weight: of its squared error.
        noise: float32 like the clean latents.
    """

    sigma: float
    weight: float
    noise: Tensor


def draw(schedule: Schedule, shape: tuple[int, ...], *, seed: int, step: int, key: str) -> Draw:
    """Noise and timestep of a sample: they depend on seed, step and sample alone, whatever process computes it."""
    index = int(make_rng(seed, "timestep", step, key).integers(len(schedule.sigmas)))
    generator = torch.Generator().manual_seed(int(make_rng(seed, "noise", step, key).integers(2**63)))
    noise = torch.randn(shape, generator=generator)
    return Draw(float(schedule.sigmas[index]), float(schedule.weights[index]), noise)


def to_velocity(output: Tensor, noisy: Tensor, sigmas: Tensor, prediction: str) -> Tensor:
    """Velocity float32 [B,C,t,h,w] of a network's output.

    Args:
        output: [B,C,t,h,w].
        noisy: x_t, float32 [B,C,t,h,w].
        sigmas: float32 [B].
        prediction: of `ObjectiveConfig`.
    """
    if prediction == "velocity":
        return output.float()
    return (noisy - output.float()) / sigmas.view(-1, 1, 1, 1, 1)


def errors(velocity: Tensor, clean: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error of each sample's velocity, float32 [B]."""
    return (velocity - (noise - clean)).square().flatten(1).mean(dim=1)
