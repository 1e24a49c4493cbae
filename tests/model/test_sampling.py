"""The denoising loop on branches whose answer is known."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from ex4d.errors import Ex4dError
from ex4d.model.sampling import denoise, linear_sigmas, make_scheduler

SHAPE = (1, 16, 2, 4, 6)


def random(seed: int) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


class Straight:
    """Knows the clean latents: its velocity leads there from wherever the latents are."""

    def __init__(self, clean: Tensor) -> None:
        self.clean = clean
        self.timesteps: list[float] = []
        self.names: list[str] = []

    def __call__(self, latents: Tensor, timestep: Tensor, name: str) -> Tensor:
        assert timestep.shape == (1,)
        self.timesteps.append(float(timestep))
        self.names.append(name)
        return (latents - self.clean) / (timestep / 1000)


@pytest.mark.parametrize("num_steps", [1, 4, 25])
@pytest.mark.parametrize("renoise", [False, True])
def test_a_branch_that_knows_the_answer_gets_there(num_steps: int, renoise: bool) -> None:
    branch, noise = Straight(random(1)), random(2)
    steps: list[int] = []

    def on_step(index: int, latents: Tensor, clean: Tensor) -> None:
        steps.append(index)
        torch.testing.assert_close(clean, branch.clean, atol=1e-5, rtol=0)

    latents = denoise(
        branch,
        noise,
        make_scheduler(renoise=renoise),
        num_steps=num_steps,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(0),
        on_step=on_step,
    )
    torch.testing.assert_close(latents, branch.clean, atol=1e-5, rtol=0)
    assert steps == list(range(num_steps))
    assert branch.names == ["cond", "uncond"] * num_steps


def test_timesteps_are_shifted_and_not_rounded() -> None:
    branch = Straight(random(1))
    for _ in range(2):  # a scheduler can be used again
        branch.timesteps.clear()
        denoise(branch, random(2), SCHEDULER, num_steps=4, guidance_scale=1.0)
        assert branch.timesteps == pytest.approx([1000, 937.5, 833.3333, 625], abs=1e-3)
    denoise(branch, random(2), make_scheduler(shift=1.0), num_steps=4, guidance_scale=1.0)
    assert branch.timesteps[4:] == pytest.approx([1000, 750, 500, 250])


SCHEDULER = make_scheduler(shift=5.0)


def test_guidance_goes_beyond_the_conditional_branch() -> None:
    cond, uncond, noise = random(1), random(2), random(3)
    for scale in (2.0, 5.0):
        latents = denoise(
            lambda latents, timestep, name: {"cond": cond, "uncond": uncond}[name],
            noise,
            SCHEDULER,
            num_steps=1,
            guidance_scale=scale,
        )
        torch.testing.assert_close(latents, noise - (uncond + scale * (cond - uncond)))


def test_without_guidance_only_the_conditional_branch_is_computed() -> None:
    branch = Straight(random(1))
    denoise(branch, random(2), SCHEDULER, num_steps=3, guidance_scale=1.0)
    assert branch.names == ["cond"] * 3


def test_latents_stay_float32_whatever_the_transformer_computes_in() -> None:
    velocity, noise = random(1).bfloat16(), random(2)
    seen: list[Tensor] = []
    result = denoise(
        lambda latents, timestep, name: velocity,
        noise,
        SCHEDULER,
        num_steps=4,
        guidance_scale=1.0,
        on_step=lambda index, latents, clean: seen.append(latents),
    )
    assert all(latents.dtype == torch.float32 for latents in seen)
    torch.testing.assert_close(result, noise - velocity.float(), atol=1e-6, rtol=0)
    torch.testing.assert_close(seen[0], noise + (0.9375 - 1) * velocity.float(), atol=1e-6, rtol=0)


def test_fresh_noise_comes_from_the_generator() -> None:
    def run(seed: int, renoise: bool = True) -> list[Tensor]:
        seen: list[Tensor] = []
        options: Any = {"num_steps": 3, "guidance_scale": 1.0}
        options["on_step"] = lambda index, latents, clean: seen.append(latents)
        generator = torch.Generator().manual_seed(seed)
        denoise(Straight(random(1)), random(2), make_scheduler(renoise=renoise), generator=generator, **options)
        return seen

    first, again, other, plain = run(0), run(0), run(1), run(0, renoise=False)
    for a, b, c, d in zip(first[:-1], again[:-1], other[:-1], plain[:-1], strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
        assert not torch.equal(a, d)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_latents_that_are_no_numbers_name_their_step(value: float) -> None:
    calls = itertools.count(1)
    finished: list[int] = []

    def branch(latents: Tensor, timestep: Tensor, name: str) -> Tensor:
        velocity = torch.zeros_like(latents)
        if next(calls) == 3:
            velocity[0, 7, 1, 2, 3] = value
        return velocity

    with pytest.raises(Ex4dError, match=r"finite latents; got NaN or infinity after step 3 of 6.*ex4d weights verify"):
        denoise(
            branch,
            random(0),
            SCHEDULER,
            num_steps=6,
            guidance_scale=1.0,
            on_step=lambda index, latents, clean: finished.append(index),
        )
    assert finished == [0, 1]


def test_sigmas_before_the_shift() -> None:
    assert linear_sigmas(4).tolist() == [1.0, 0.75, 0.5, 0.25]
    assert linear_sigmas(2, 0.6).tolist() == pytest.approx([0.6, 0.3])
