"""Memory plans: estimates against what was counted, and which plan is taken."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from small_transformer import CONFIG, LiveBytes, make_transformer

from ex4d.errors import ConfigError, OutOfMemoryError
from ex4d.model import memory
from ex4d.model.components import shipped_config
from ex4d.model.config import GenerateConfig
from ex4d.model.estimates import FULL_SIZE, PLANS, Workload, estimate, model_size
from ex4d.model.memory import Choice, Machine, choose_plan, describe_plan, next_plan_down
from ex4d.model.presets import fixed_schedule, resolve_acceleration

RELEASED = Workload(num_frames=49, height=512, width=512)
WIDE = Workload(num_frames=81, height=480, width=832)
SMALL = model_size(CONFIG)


def gpu(free_gib: float, **changes: Any) -> Machine:
    return Machine(**{"device": "cuda", "total_gib": 140.0, "free_gib": free_gib, "gguf_gib": 9.6, **changes})


def test_parameters_are_those_of_the_layers() -> None:
    assert SMALL.params == sum(p.numel() for p in make_transformer().parameters())
    block = make_transformer().blocks[0]
    assert SMALL.block_params == sum(p.numel() for p in block.parameters())  # pyright: ignore[reportAttributeAccessIssue]


def test_full_size_is_the_shipped_config() -> None:
    assert model_size(shipped_config("transformer")) == FULL_SIZE
    assert FULL_SIZE.params == pytest.approx(16.39e9, rel=1e-3)
    assert FULL_SIZE.block_params == pytest.approx(403.8e6, rel=1e-3)


def test_tokens() -> None:
    assert RELEASED.num_tokens == 13_312
    assert WIDE.num_tokens == 32_760
    assert replace(WIDE, tile=(256, 320)).num_tokens == 21 * 16 * 20


def test_goals_of_the_released_size() -> None:
    """≤ 37 GiB bf16, ≤ 21 fp8, ≤ 15 Q4_0, ≤ 8 offload; loading too."""
    for name, limit in (("bf16", 37), ("fp8", 21), ("gguf", 15), ("offload", 8)):
        plan = replace(PLANS[name], vae_tiling=name != "bf16", text_encoder="cpu")  # pyright: ignore[reportArgumentType]
        assert estimate(plan, RELEASED).peak_gib <= limit, name
    assert estimate(PLANS["bf16"], RELEASED).peak_gib > 30.5  # the weights alone


def test_activations_follow_the_real_forward_pass() -> None:
    """The counted peak of one forward pass, in tensors [tokens, width] of bf16, is what the estimate takes."""
    import torch

    from ex4d.model.estimates import GEOMETRY_UNITS, GIB, TOKEN_UNITS
    from ex4d.model.placement import place_transformer

    # few conditions and many tokens, as in use
    transformer = place_transformer(make_transformer(ffn_dim=352), PLANS["bf16"], "cpu")
    inputs = {
        "hidden_states": torch.zeros(1, 36, 13, 32, 32, dtype=torch.bfloat16),
        "timestep": torch.zeros(1),
        "encoder_hidden_states": torch.zeros(1, 512, CONFIG["text_dim"], dtype=torch.bfloat16),
        "encoder_hidden_states_image": torch.zeros(1, 257, CONFIG["image_dim"], dtype=torch.bfloat16),
        "geometry_latents": torch.zeros(1, 128, 13, 16, 16, dtype=torch.bfloat16),
    }
    live = LiveBytes(*transformer.parameters(), *transformer.buffers(), *inputs.values())
    with torch.no_grad(), live:
        transformer(**inputs, return_dict=False)
    unit = 128 * 2 * 13 * 16 * 16
    assert 0.75 * TOKEN_UNITS < live.peak / unit < 1.25 * TOKEN_UNITS
    size, work = model_size({**CONFIG, "ffn_dim": 352}), Workload(num_frames=49, height=256, width=256)
    denoise = estimate(PLANS["bf16"], work, size=size).breakdown["denoise"]
    assert denoise == pytest.approx((TOKEN_UNITS + GEOMETRY_UNITS) * unit / GIB)


@pytest.mark.parametrize(
    ("max_vram_gib", "name"),
    [(8, "offload"), (12, "offload"), (16, "gguf"), (24, "fp8"), (48, "bf16"), (80, "bf16"), (None, "bf16")],
)
def test_every_card_has_a_plan(max_vram_gib: float | None, name: str) -> None:
    for work in (RELEASED, WIDE):
        choice = choose_plan(gpu(139), work, max_vram_gib=max_vram_gib)
        assert choice.plan.name == name
        assert choice.estimate.peak_gib <= choice.budget_gib == (max_vram_gib or 139)


def test_free_memory_limits_as_well() -> None:
    assert choose_plan(gpu(23), RELEASED, max_vram_gib=48).plan.name == "fp8"


def test_tiles_before_a_smaller_plan() -> None:
    assert not choose_plan(gpu(40), WIDE).plan.vae_tiling
    tiled = choose_plan(gpu(36), WIDE)
    assert (tiled.plan.name, tiled.plan.vae_tiling) == ("bf16", True)


def test_text_is_encoded_where_it_fits_and_not_at_all_if_cached() -> None:
    assert choose_plan(gpu(16), RELEASED).plan.text_encoder == "gpu"
    small = choose_plan(gpu(8), RELEASED)
    assert small.plan.text_encoder == "cpu"
    assert small.estimate.breakdown["text encoder"] == 0
    on_gpu = estimate(replace(PLANS["offload"], text_encoder="gpu"), RELEASED)
    assert on_gpu.load_gib > 10
    assert estimate(PLANS["offload"], replace(RELEASED, text_cached=True)).load_gib < 3


def test_step_cache_counts() -> None:
    without, cached = (
        estimate(PLANS["bf16"], replace(WIDE, step_cache=on)).breakdown["denoise"] for on in (False, True)
    )
    assert cached - without == pytest.approx(6 * 32_760 * 5120 * 2 / 2**30)


def test_what_cannot_be_used_is_skipped_with_its_reason() -> None:
    machine = gpu(24, unavailable={"fp8": "float8 needs compute capability 8.9, this GPU has 8.6"})
    choice = choose_plan(machine, RELEASED)
    assert choice.plan.name == "int8"
    assert any("capability" in reason for reason in choice.skipped)
    assert any("bf16: needs about" in reason for reason in choice.skipped)
    with pytest.raises(ConfigError, match=r"8\.9"):
        choose_plan(machine, RELEASED, requested="fp8")


def test_nothing_fits_lists_every_plan() -> None:
    with pytest.raises(OutOfMemoryError) as caught:
        choose_plan(gpu(3), RELEASED)
    for name in ("bf16", "fp8", "int8", "gguf", "offload"):
        assert f"{name}: needs about" in caught.value.got
    with pytest.raises(OutOfMemoryError, match="bf16: needs about 3") as one:
        choose_plan(gpu(24), RELEASED, requested="bf16")
    assert "fp8" not in one.value.got


def test_host_memory_decides_page_locking_and_plans() -> None:
    assert choose_plan(gpu(8, host_gib=60), RELEASED).plan.pinned
    unpinned = choose_plan(gpu(8, host_gib=40), RELEASED)
    assert not unpinned.plan.pinned
    assert "page-lock" in describe_plan(unpinned)
    with pytest.raises(OutOfMemoryError, match="host memory"):
        choose_plan(gpu(8, host_gib=20), RELEASED)


def test_steps_down_get_smaller_and_end() -> None:
    machine = gpu(139)
    choice: Choice = choose_plan(machine, RELEASED)
    names = [choice.plan.name]
    for _ in range(3):
        below = next_plan_down(choice, machine, RELEASED)
        assert below.estimate.peak_gib < choice.estimate.peak_gib
        assert below.plan.vae_tiling
        names.append(below.plan.name)
        choice = below
    assert names == ["bf16", "fp8", "gguf", "offload"]  # int8 needs what fp8 needed
    with pytest.raises(OutOfMemoryError):
        next_plan_down(choice, machine, RELEASED)


def test_no_step_down_from_a_plan_that_was_asked_for() -> None:
    choice = choose_plan(gpu(139), RELEASED, requested="bf16")
    with pytest.raises(OutOfMemoryError):
        next_plan_down(choice, gpu(139), RELEASED, auto=False)


def test_full_size_without_a_gpu_says_what_is_needed() -> None:
    machine = Machine(device="cpu", host_gib=64)
    for requested in ("auto", "bf16", "offload"):
        with pytest.raises(ConfigError, match=r"16\.4 B.*no CUDA device") as caught:
            choose_plan(machine, RELEASED, requested=requested)
        assert "--plan cpu" in caught.value.fix
    with pytest.raises(OutOfMemoryError, match="64 GiB"):
        choose_plan(machine, RELEASED, requested="cpu")
    assert choose_plan(replace(machine, host_gib=128), RELEASED, requested="cpu").plan.name == "cpu"


def test_small_models_run_on_a_cpu_under_any_plan() -> None:
    machine = Machine(device="cpu", host_gib=2)
    assert choose_plan(machine, RELEASED, size=SMALL).plan.name == "cpu"
    machine = replace(machine, host_gib=8)
    for requested in ("bf16", "fp8", "int8", "offload"):
        assert choose_plan(machine, RELEASED, requested=requested, size=SMALL).plan.name == requested


def test_the_line_for_the_user() -> None:
    line = describe_plan(choose_plan(gpu(24, host_gib=32), WIDE))
    assert line.startswith("plan fp8: blocks on the GPU in 8-bit float; about 2")
    assert "of 24.0 GiB" in line
    assert "VAE in tiles" in line


def test_host_memory_of_this_machine_and_of_a_container(tmp_path: Any) -> None:
    found = memory.available_host_gib()
    assert found is not None
    assert 0 < found < 1e5
    assert memory._cgroup_available(tmp_path) is None
    for name, text in (
        ("memory.max", "1000\n"),
        ("memory.current", "700\n"),
        ("memory.stat", "anon 5\ninactive_file 50\n"),
    ):
        (tmp_path / name).write_text(text)
    assert memory._cgroup_available(tmp_path) == 350
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._cgroup_available(tmp_path) is None


def test_presets_and_what_overrules_them() -> None:
    official = resolve_acceleration(GenerateConfig(), "bf16")
    assert (official.compile, official.cache, official.fuse_lora) == (False, "none", False)
    balanced = resolve_acceleration(GenerateConfig(preset="balanced"), "bf16")
    assert (balanced.compile, balanced.cache, balanced.fuse_lora) == (True, "first-block", True)
    assert resolve_acceleration(GenerateConfig(), "fp8").fuse_lora
    assert not resolve_acceleration(GenerateConfig(fuse_lora="off"), "fp8").fuse_lora
    assert not resolve_acceleration(GenerateConfig(preset="balanced"), "gguf").fuse_lora
    chosen = resolve_acceleration(
        GenerateConfig(preset="balanced", compile="off", cache="none", attention="sage"), "bf16"
    )
    assert (chosen.compile, chosen.cache, chosen.attention) == (False, "none", "sage")
    assert not resolve_acceleration(GenerateConfig(preset="balanced"), "gguf").compile
    for asked in (GenerateConfig(fuse_lora="on"), GenerateConfig(compile="on")):
        with pytest.raises(ConfigError, match="gguf"):
            resolve_acceleration(asked, "gguf")


def test_fixed_schedule() -> None:
    assert sum(fixed_schedule(25)) == 15
    assert fixed_schedule(6, skip=2, warmup=0.3) == (True, True, False, False, True, False)
    assert all(fixed_schedule(4, skip=0))


def test_planning_loads_no_torch() -> None:
    code = "import sys, ex4d.model.memory, ex4d.model.presets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
