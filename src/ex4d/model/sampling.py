"""The denoising loop: from noise to latents in a few guided Euler steps."""

from typing import Any, Protocol, cast

import numpy as np
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from ex4d.core.arrays import Float64
from ex4d.errors import Ex4dError
from ex4d.model.parallel import ParallelContext, combine_guided

NUM_TRAIN_TIMESTEPS = 1000


class Branch(Protocol):
    """The transformer with everything but its moving inputs filled in."""

    def __call__(self, latents: Tensor, timestep: Tensor, name: str) -> Tensor:
        """Velocity [1,16,t,h,w] of latents [1,16,t,h,w] at a timestep, for the text ``cond`` or ``uncond``."""
        ...


class OnStep(Protocol):
    """Told of every finished step."""

    def __call__(self, index: int, latents: Tensor, clean: Tensor) -> None:
        """Its index, the latents after it, and what the step took the clean latents for; all [1,16,t,h,w]."""
        ...


def make_scheduler(*, shift: float = 5.0, renoise: bool = False) -> FlowMatchEulerDiscreteScheduler:
    """Euler steps over sigmas from 1 to 0.

    Args:
        shift: s in σ' = sσ / (1 + (s−1)σ); more of the steps go to high noise.
        renoise: after each step add fresh noise to the estimate of the clean latents (distilled models).
    """
    return FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=NUM_TRAIN_TIMESTEPS, shift=shift, stochastic_sampling=renoise
    )


def linear_sigmas(num_steps: int, strength: float = 1.0) -> Float64:
    """float64 [num_steps] before the shift: `strength` (1 = pure noise) down to, but without, 0.

    diffusers' own schedule ends elsewhere: at 25 steps up to 0.15 apart. The release's is this one.
    """
    return np.linspace(strength, 0.0, num_steps + 1)[:-1]


def denoise(
    branch: Branch,
    noise: Tensor,
    scheduler: FlowMatchEulerDiscreteScheduler,
    *,
    num_steps: int,
    guidance_scale: float,
    generator: torch.Generator | None = None,
    parallel: ParallelContext | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Latents float32 [1,16,t,h,w] of a video.

    Args:
        branch: the transformer.
        noise: float32 [1,16,t,h,w], unit variance.
        scheduler: of `make_scheduler`.
        num_steps: at least 1.
        guidance_scale: g in v = v_uncond + g (v_cond − v_uncond); 1 = the conditional branch alone.
        generator: of fresh noise, where the scheduler adds it.
        parallel: how branches are shared among processes; None = one process.
        on_step: called after each step.

    Raises:
        Ex4dError: latents that are no numbers any more.
    """
    scheduler.set_timesteps(sigmas=linear_sigmas(num_steps).tolist(), device=noise.device)
    sigmas, timesteps = cast(Tensor, scheduler.sigmas), cast(Tensor, scheduler.timesteps)
    latents = noise.float()
    for index, timestep in enumerate(timesteps):
        now = latents
        # float32 on both sides: the scheduler would round the latents to the transformer's precision
        velocity = combine_guided(lambda name: branch(now, timestep[None], name), guidance_scale, parallel).float()  # noqa: B023
        step: Any = scheduler.step
        latents = step(velocity, timestep, latents, generator=generator, return_dict=False)[0]
        if not torch.isfinite(latents).all():
            raise Ex4dError(
                "finite latents",
                f"NaN or infinity after step {index + 1} of {num_steps}",
                "check the weights with `ex4d weights verify`, or try --plan bf16 and --attention native",
            )
        if on_step is not None:
            on_step(index, latents, now - sigmas[index] * velocity)
    return latents
