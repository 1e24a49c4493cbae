"""Flow matching as the release's trainer does it."""

import numpy as np
import pytest
import torch

from ex4d.training.config import ObjectiveConfig
from ex4d.training.objective import Schedule, bell_weights, draw, errors, to_velocity


def test_bell_weights_are_the_formulas() -> None:
    linear = np.linspace(1, 0, 1001)[:-1]
    t = 1000 * 5 * linear / (1 + 4 * linear)
    bell = np.exp(-2 * ((t - 500) / 1000) ** 2)
    bell -= bell.min()
    schedule = Schedule.of(ObjectiveConfig())
    np.testing.assert_allclose(schedule.sigmas, t / 1000, rtol=1e-12)
    np.testing.assert_allclose(schedule.weights, bell / bell.mean(), rtol=1e-9)
    assert schedule.weights.mean() == pytest.approx(1)
    assert schedule.weights[0] == 0, "pure noise costs nothing"
    assert schedule.sigmas[np.argmax(schedule.weights)] == pytest.approx(0.5, abs=0.001)
    np.testing.assert_allclose(bell_weights(np.array([0.4, 0.6, 1.0])), [1.5, 1.5, 0.0])


def test_small_sigmas_can_be_left_out() -> None:
    schedule = Schedule.of(ObjectiveConfig(weighting="none", min_sigma=0.5, prediction="clean"))
    assert schedule.sigmas.min() >= 0.5
    assert (schedule.weights == 1).all()


def test_draws_depend_on_seed_step_and_sample_alone() -> None:
    schedule = Schedule.of(ObjectiveConfig())
    first, again = (draw(schedule, (2, 3), seed=1, step=5, key="a") for _ in range(2))
    assert first.sigma == again.sigma
    assert torch.equal(first.noise, again.noise)
    for other in (
        draw(schedule, (2, 3), seed=2, step=5, key="a"),
        draw(schedule, (2, 3), seed=1, step=6, key="a"),
        draw(schedule, (2, 3), seed=1, step=5, key="b"),
    ):
        assert not torch.equal(first.noise, other.noise)


def test_a_perfect_network_has_no_error_in_either_sense() -> None:
    random = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(2, 4, 2, 3, 3, generator=random) for _ in range(2))
    sigmas = torch.tensor([0.3, 0.9])
    share = sigmas.view(-1, 1, 1, 1, 1)
    noisy = (1 - share) * clean + share * noise
    for output, prediction in ((noise - clean, "velocity"), (clean, "clean")):
        velocity = to_velocity(output, noisy, sigmas, prediction)
        assert errors(velocity, clean, noise).max() < 1e-10
    wrong = errors(to_velocity(clean + 1, noisy, sigmas, "clean"), clean, noise)
    torch.testing.assert_close(wrong, 1 / sigmas**2)
