"""Attention, compiled blocks and step caches: same results, one compilation, the stated schedule, loud refusals."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusers.models.attention_dispatch import _AttentionBackendRegistry
from small_transformer import make_transformer, relative_error, velocity
from torch import Tensor

from ex4d.errors import ConfigError
from ex4d.model.acceleration import (
    BACKENDS,
    compile_blocks,
    enable_step_cache,
    is_compiled,
    reset_step_cache,
    set_attention,
)
from ex4d.model.estimates import PLANS
from ex4d.model.placement import place_transformer
from ex4d.model.presets import fixed_schedule
from ex4d.model.transformer import EX4DTransformer3DModel


@pytest.fixture(autouse=True)
def _fresh_compilations() -> Iterator[None]:
    yield
    torch._dynamo.reset()


def count_calls(transformer: EX4DTransformer3DModel, index: int = 1) -> list[int]:
    """Grows by one whenever a block is computed."""
    calls: list[int] = []
    block: Any = transformer.blocks[index]
    block.ffn.register_forward_hook(lambda *_: calls.append(index))
    return calls


def run_steps(transformer: EX4DTransformer3DModel, num_steps: int, *, width: int = 12) -> list[Tensor]:
    """Outputs of both branches; inputs change a little from step to step."""
    outputs: list[Tensor] = []
    for _ in range(num_steps):
        for seed, name in enumerate(("cond", "uncond")):
            with transformer.cache_context(name):
                outputs.append(velocity(transformer, seed=seed, width=width))
    return outputs


# attention


@pytest.mark.parametrize("name", ["auto", "native"])
def test_native_attention(name: Any) -> None:
    transformer = make_transformer()
    expected = velocity(transformer)
    set_attention(transformer, name, "cpu")
    assert torch.equal(velocity(transformer), expected)
    block: Any = transformer.blocks[0]
    assert block.attn1.processor._attention_backend.value == "native"


def test_other_models_keep_their_attention() -> None:
    before = _AttentionBackendRegistry.get_active_backend()[0]
    transformer = make_transformer()
    set_attention(transformer, "native", "cpu")
    with torch.no_grad():
        transformer.set_attention_backend("flex")  # what diffusers alone does to the process
    assert _AttentionBackendRegistry.get_active_backend()[0] != before
    _AttentionBackendRegistry.set_active_backend(before)
    set_attention(transformer, "native", "cpu")
    assert _AttentionBackendRegistry.get_active_backend()[0] == before


@pytest.mark.parametrize("name", sorted(set(BACKENDS) - {"auto", "native"}))
def test_attention_that_does_not_work_here_is_refused(name: Any) -> None:
    transformer = make_transformer()
    with pytest.raises(ConfigError, match=f"--attention {name}.*NVIDIA"):
        set_attention(transformer, name, "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what a machine without CUDA says")
@pytest.mark.parametrize(
    ("name", "reason"),
    [("flash", "flash-attn"), ("flash3", "Flash Attention 3"), ("sage", "sage"), ("cudnn", "cuDNN|NVIDIA driver")],
)
def test_the_reason_is_given(name: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        set_attention(make_transformer(), name, "cuda")


# compilation


def test_all_blocks_share_one_compilation_whatever_hooks_them() -> None:
    transformer = make_transformer()
    assert not is_compiled(transformer)
    expected = run_steps(transformer, 2)
    torch._dynamo.utils.counters.clear()
    compile_blocks(transformer, "cpu", backend="aot_eager")
    assert is_compiled(transformer)
    probe = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for kind in ("none", "first-block", "fixed"):
        enable_step_cache(transformer, kind, num_inference_steps=2, threshold=0.0, skip=0)
        for found, wanted in zip(run_steps(transformer, 2), expected, strict=True):
            assert relative_error(found, wanted) < 1e-6
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == probe + 1


def test_compiled_blocks_are_offloaded_and_quantised() -> None:
    for name in ("offload", "int8"):
        plain = place_transformer(make_transformer(), PLANS[name], "cpu")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ex4d.model.placement.compile_blocks", lambda t, d: compile_blocks(t, d, backend="eager"))
            compiled = place_transformer(make_transformer(), PLANS[name], "cpu", compiled=True)
        assert is_compiled(compiled)
        assert relative_error(velocity(compiled), velocity(plain)) < 1e-6


@pytest.mark.prove
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_the_real_compiler() -> None:
    transformer = make_transformer(num_layers=2)
    expected = velocity(transformer)
    compile_blocks(transformer, "cpu")
    assert relative_error(velocity(transformer), expected) < 1e-5


def test_without_a_compiler_it_fails_before_the_work() -> None:
    with pytest.raises(ConfigError, match=r"--compile.*nonesuch"):
        compile_blocks(make_transformer(), "cpu", backend="nonesuch")


def test_compiling_what_is_hooked_already_is_refused() -> None:
    transformer = make_transformer()
    enable_step_cache(transformer, "first-block", num_inference_steps=4)
    with pytest.raises(ConfigError, match="before"):
        compile_blocks(transformer, "cpu", backend="eager")


# step caches


def test_first_block_cache_at_threshold_0_changes_nothing() -> None:
    transformer = make_transformer()
    expected = [velocity(transformer, seed=seed) for seed in (0, 1)]
    enable_step_cache(transformer, "first-block", num_inference_steps=3, threshold=0.0)
    calls = count_calls(transformer)
    found = run_steps(transformer, 1)
    assert len(calls) == 2
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_first_block_cache_skips_what_does_not_change_and_forgets_when_told() -> None:
    transformer = make_transformer()
    enable_step_cache(transformer, "first-block", num_inference_steps=4)
    calls = count_calls(transformer)
    first = run_steps(transformer, 4)
    assert len(calls) == 2  # the first step of both branches
    assert relative_error(first[-1], first[1]) < 1e-6  # the same inputs, the same output
    assert relative_error(first[0], first[1]) > 0.1  # branches are kept apart
    reset_step_cache(transformer)
    run_steps(transformer, 2, width=16)  # another size would not go together with what is remembered
    assert len(calls) == 4
    enable_step_cache(transformer, "none", num_inference_steps=4)
    run_steps(transformer, 2)
    assert len(calls) == 8


def test_without_a_reset_the_last_window_is_remembered() -> None:
    """Why `reset_step_cache` is there."""
    transformer = make_transformer()
    enable_step_cache(transformer, "first-block", num_inference_steps=1)
    run_steps(transformer, 1)
    with pytest.raises(RuntimeError, match="size"):
        run_steps(transformer, 1, width=16)


@pytest.mark.parametrize(("num_steps", "skip", "warmup"), [(10, 1, 0.2), (7, 2, 0.3), (5, 1, 0.0), (4, 0, 0.2)])
def test_fixed_skips_by_its_schedule(num_steps: int, skip: int, warmup: float) -> None:
    transformer = make_transformer()
    enable_step_cache(transformer, "fixed", num_inference_steps=num_steps, skip=skip, warmup=warmup)
    calls = count_calls(transformer)
    for _ in range(2):  # two windows
        computed: list[bool] = []
        for _ in range(num_steps):
            before = len(calls)
            run_steps(transformer, 1)
            computed.append(len(calls) - before == 2)
            assert len(calls) - before in (0, 2)
        assert tuple(computed) == fixed_schedule(num_steps, skip=skip, warmup=warmup)


def test_a_cache_over_offloaded_blocks() -> None:
    plain = place_transformer(make_transformer(), PLANS["bf16"], "cpu")
    offloaded = place_transformer(make_transformer(), PLANS["offload"], "cpu")
    calls = count_calls(offloaded)
    for transformer in (plain, offloaded):
        enable_step_cache(transformer, "fixed", num_inference_steps=4, skip=1, warmup=0.25)
    for found, wanted in zip(run_steps(offloaded, 4), run_steps(plain, 4), strict=True):
        assert torch.equal(found, wanted)
    assert len(calls) == 2 * sum(fixed_schedule(4, skip=1, warmup=0.25))
