"""What is trained, by name and number; and the frozen base in float8."""

import pytest
import torch
from torch import nn
from training_tools import make_config, make_stack

from ex4d.errors import WeightsError
from ex4d.model.adapter import Lora, attach_lora, lora_shapes
from ex4d.model.components import make_component, shipped_config
from ex4d.model.geometry_encoder import GeometryEncoder
from ex4d.model.transformer import EX4DTransformer3DModel
from ex4d.training.export import official_tensors
from ex4d.training.frozen_fp8 import Float8Linear
from ex4d.training.model import (
    FULL_SIZE_PARAMS,
    TrainedModel,
    adapter_of,
    check_counts,
    count_trained,
    fingerprint,
    new_lora,
    train_adapter,
    trained_parameters,
)


@pytest.fixture(scope="module")
def full_size() -> TrainedModel:
    """Wan2.1-I2V-14B with an adapter to train, without memory behind its weights."""
    transformer = make_component("transformer", shipped_config("transformer"))
    encoder = make_component("geometry_encoder", shipped_config("geometry_encoder"))
    assert isinstance(transformer, EX4DTransformer3DModel)
    assert isinstance(encoder, GeometryEncoder)
    shapes = lora_shapes(transformer, 16)
    lora = Lora(tensors={name: torch.empty(shape, device="meta") for name, shape in shapes.items()}, rank=16, alpha=16)
    attach_lora(transformer, lora)
    model = TrainedModel(transformer, encoder)
    train_adapter(model, lora)
    return model


def test_full_size_counts_are_the_releases(full_size: TrainedModel) -> None:
    assert count_trained(full_size) == FULL_SIZE_PARAMS == (23_109_632, 76_677_120)
    assert check_counts(full_size)
    assert not check_counts(make_stack(make_config()).model)
    full_size.geometry_encoder.latent_encoder[0].requires_grad_(False)
    with pytest.raises(WeightsError, match="23109632"):
        check_counts(full_size)
    full_size.geometry_encoder.latent_encoder[0].requires_grad_(True)


def test_full_size_has_808_tensors_in_the_releases_layout(full_size: TrainedModel) -> None:
    encoder, lora = adapter_of({name: value.detach() for name, value in trained_parameters(full_size).items()})
    flat = official_tensors(encoder, Lora(tensors=lora, rank=16, alpha=16.0))
    assert len(flat) == 808
    assert flat["blocks.39.cross_attn.o.lora_B.default.weight"].shape == (5120, 16)


def test_a_new_adapter_changes_nothing_and_is_of_its_seed() -> None:
    stack = make_stack(make_config())
    latents = torch.randn(1, 36, 2, 4, 6)
    inputs = (latents, torch.tensor([500.0]), torch.randn(1, 512, 32), torch.randn(1, 257, 32))
    transformer = stack.pipe.transformer
    with torch.no_grad():
        found = transformer(*inputs, return_dict=False)[0]
        transformer.disable_adapters()
        assert torch.equal(found, transformer(*inputs, return_dict=False)[0])
    zero = torch.zeros(1, 16, 2, 4, 6)
    assert not stack.model.geometry_encoder(zero + 1, zero).any()
    first, again, other = (new_lora(transformer, rank=4, alpha=4, seed=seed).tensors for seed in (0, 0, 1))
    name = "blocks.0.attn1.to_q.lora_A.weight"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])
    assert first[name].abs().max() <= 64**-0.5


def test_trained_parameters_are_the_adapter_in_float32() -> None:
    stack = make_stack(make_config())
    trained = trained_parameters(stack.model)
    assert len(trained) == 48
    encoder, lora = adapter_of({name: value.detach() for name, value in trained.items()})
    assert len(encoder) == 8
    assert {name: tuple(value.shape) for name, value in lora.items()} == lora_shapes(stack.pipe.transformer, 4)
    assert {value.dtype for value in trained.values()} == {torch.float32}
    assert count_trained(stack.model) == (
        sum(value.numel() for value in encoder.values()),
        sum(value.numel() for value in lora.values()),
    )
    with pytest.raises(WeightsError, match="only adapters are exported"):
        adapter_of({"transformer.proj_out.weight": torch.zeros(1)})


def test_fingerprints_tell_models_and_weights_apart() -> None:
    first, other = make_stack(make_config()).model, make_stack(make_config()).model
    assert fingerprint(first, {}) == fingerprint(other, {})
    assert fingerprint(first, {"vae/x": "1"}) != fingerprint(first, {})
    other.transformer.proj_out.requires_grad_(True)
    assert fingerprint(first, {}) != fingerprint(other, {})


def test_float8_is_near_and_passes_gradients_on() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 48)
    stored = Float8Linear(linear)
    x = torch.randn(5, 64, requires_grad=True)
    expected = linear(x)
    (wanted,) = torch.autograd.grad(expected.square().sum(), x)
    found = stored(x)
    (gradient,) = torch.autograd.grad(found.square().sum(), x)
    assert (found - expected).norm() / expected.norm() < 0.04
    assert (gradient - wanted).norm() / wanted.norm() < 0.06
    assert found.ne(expected).any()
    assert stored.codes.element_size() == 1
    assert not list(stored.state_dict()) or list(stored.state_dict()) == ["bias"]
    # the gradient is that of the very weight the forward pass used
    dense = stored.codes.float() * stored.scales
    torch.testing.assert_close(gradient, (2 * found @ dense).detach())
