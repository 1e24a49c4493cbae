"""Several processes compute what one computes."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.hooks.first_block_cache import FirstBlockCacheConfig
from parallel_worker import CASES, denoise, tiny_transformer

from ex4d.errors import ConfigError
from ex4d.model.acceleration import compile_blocks
from ex4d.model.parallel import (
    Branch,
    ParallelContext,
    ParallelPlan,
    combine_guided,
    is_main,
    on_all,
    on_main,
    open_parallel,
    plan_parallel,
    setup_transformer,
)

WORKER = Path(__file__).with_name("parallel_worker.py")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors this small are slower with several threads, by far so where processes compete for cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that real gloo processes, 2 and then 4, wrote their results to."""
    folder = tmp_path_factory.mktemp("ranks")
    worker = subprocess.Popen(
        [sys.executable, str(WORKER), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = worker.communicate(timeout=80)
    finally:
        if worker.poll() is None:
            os.killpg(worker.pid, signal.SIGKILL)
    assert worker.returncode == 0, said
    return folder


@pytest.mark.parametrize("name", CASES)
def test_several_processes_equal_one(ranks: Path, name: str) -> None:
    case = CASES[name]
    expected = denoise(tiny_transformer(case.num_heads, cached=case.cached), case.num_columns)
    results = [torch.load(ranks / f"{name}.{rank}.pt") for rank in range(case.plan.world_size)]
    for result in results:
        torch.testing.assert_close(result["latents"], expected, rtol=0, atol=1e-5)
        assert torch.equal(result["latents"], results[0]["latents"]), "ranks must not drift apart"


@pytest.mark.parametrize("name", CASES)
def test_the_work_is_really_shared_out(ranks: Path, name: str) -> None:
    case = CASES[name]
    passes = [torch.load(ranks / f"{name}.{rank}.pt")["num_tokens"] for rank in range(case.plan.world_size)]
    assert {len(on_rank) for on_rank in passes} == {4 if case.plan.cfg_degree == 2 else 8}
    group = passes[: case.plan.context_degree]
    assert {sum(parts) for parts in zip(*group, strict=True)} == {9 * case.num_columns}
    assert max(group[0]) - min(group[-1]) == int(case.plan.uneven)


def test_the_cases_can_tell_what_they_should() -> None:
    # Without geometry, and with every step computed, other latents come out: the cases above would notice.
    expected = denoise(tiny_transformer(4), 4)
    assert (denoise(tiny_transformer(4), 4, with_geometry=False) - expected).abs().max() > 0.1
    assert (denoise(tiny_transformer(4, cached=True), 4) - expected).abs().max() > 1e-3
    assert {case.plan.world_size for case in CASES.values()} == {2, 4}


def test_results_and_errors_of_one_rank_reach_all(ranks: Path) -> None:
    heard = [torch.load(ranks / f"talk.{rank}.pt") for rank in range(2)]
    assert [entry["main"] for entry in heard] == [0, 0]
    assert [entry["all"] for entry in heard] == [0, 1]
    for name, failed in (("all failed", 1), ("main failed", 0)):
        expected = ("OutOfMemoryError", f"expected memory; got none on rank {failed}; to fix: wait")
        assert [entry[name] for entry in heard] == [expected, expected]
    assert heard[0]["wrong number"][0] == "ConfigError"
    assert heard[0]["attention"].startswith("expected --attention that can be shared out among GPUs")
    assert "_native_math" in heard[0]["attention"]


@pytest.mark.parametrize(
    ("num_gpus", "uses_guidance", "num_tokens", "expected"),
    [
        (1, True, 13312, ParallelPlan(1, 1, uneven=False)),
        (2, True, 13312, ParallelPlan(2, 1, uneven=False)),
        (2, True, 13311, ParallelPlan(2, 1, uneven=False)),
        (2, False, 13312, ParallelPlan(1, 2, uneven=False)),
        (2, False, 13311, ParallelPlan(1, 2, uneven=True)),
        (3, True, 13311, ParallelPlan(1, 3, uneven=True)),
        (4, True, 13312, ParallelPlan(2, 2, uneven=False)),
        (8, True, 13338, ParallelPlan(2, 4, uneven=True)),
        (8, False, 32760, ParallelPlan(1, 8, uneven=False)),
    ],
)
def test_plan_of_the_full_size_model(
    num_gpus: int, uses_guidance: bool, num_tokens: int, expected: ParallelPlan
) -> None:
    plan = plan_parallel(num_gpus, uses_guidance=uses_guidance, num_heads=40, num_tokens=num_tokens)
    assert plan == expected
    assert plan.world_size == num_gpus


@pytest.mark.parametrize(("num_gpus", "works"), [(3, "1, 2"), (0, "1"), (7, "1, 2, 4"), (5, "1, 2, 4")])
def test_plan_that_cannot_be_names_those_that_can(num_gpus: int, works: str) -> None:
    with pytest.raises(ConfigError, match=f"--gpus {works}; got {num_gpus};"):
        plan_parallel(num_gpus, uses_guidance=False, num_heads=4, num_tokens=72)


def test_plan_reads_as_text() -> None:
    assert str(ParallelPlan(1, 1, uneven=False)) == "1 GPU"
    assert str(ParallelPlan(2, 1, uneven=False)) == "2 GPUs: a CFG branch each"
    assert str(ParallelPlan(2, 3, uneven=True)) == (
        "6 GPUs: a group a CFG branch, tokens shared out among 3 (unevenly)"
    )


def test_alone_everything_runs_here() -> None:
    asked: list[Branch] = []

    def branch(name: Branch) -> torch.Tensor:
        asked.append(name)
        return torch.tensor([1.0 if name == "cond" else 0.5])

    assert combine_guided(branch, 5.0).item() == 3.0
    assert combine_guided(branch, 1.0).item() == 1.0
    assert asked == ["cond", "uncond", "cond"]
    assert is_main(None)
    assert on_main(None, lambda: 1) + on_all(None, lambda: 2) == 3


def _alone(*, uneven: bool) -> ParallelContext:
    """Rank 0 of 2 as far as refusals look at it; no process group is open."""
    mesh: Any = None
    return ParallelContext(ParallelPlan(1, 2, uneven=uneven), 0, torch.device("cpu"), mesh)


def test_a_cache_that_decides_by_tokens_is_refused() -> None:
    transformer = tiny_transformer(4)
    transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    with pytest.raises(ConfigError, match="--cache none"):
        setup_transformer(transformer, _alone(uneven=False))


def test_compiling_what_is_shared_out_unevenly_is_refused() -> None:
    transformer = tiny_transformer(4)
    compile_blocks(transformer, "cpu", backend="eager")
    with pytest.raises(ConfigError, match="no --compile"):
        setup_transformer(transformer, _alone(uneven=True))


def test_another_number_of_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match=r"2 processes.*got 3"), open_parallel(ParallelPlan(2, 1, False), "cpu"):
        pytest.fail("must not open")
