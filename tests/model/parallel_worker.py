"""What `test_parallel.py` runs in processes of its own: `python parallel_worker.py FOLDER`.

One interpreter imports torch, then forks a process a rank, so that the imports are paid once.
"""

import itertools
import multiprocessing
import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.hooks.mag_cache import MagCacheConfig
from torch import Tensor, nn

from ex4d.errors import ConfigError, OutOfMemoryError
from ex4d.model.parallel import (
    ParallelContext,
    ParallelPlan,
    combine_guided,
    on_all,
    on_main,
    open_parallel,
    plan_parallel,
    setup_transformer,
)
from ex4d.model.transformer import EX4DTransformer3DModel

GUIDANCE_SCALE, SIGMAS = 5.0, (1.0, 0.9375, 0.8333, 0.625, 0.0)
HEAD_DIM, TEXT_DIM, IMAGE_DIM = 12, 16, 20


@dataclass(frozen=True)
class Case:
    """A way to share out four guided steps; 9 tokens for every column of patches."""

    plan: ParallelPlan
    num_heads: int = 4
    num_columns: int = 4
    cached: bool = False


CASES = {
    "context": Case(ParallelPlan(1, 2, uneven=False)),
    "context with cache": Case(ParallelPlan(1, 2, uneven=False), cached=True),
    "context, odd tokens and heads": Case(ParallelPlan(1, 2, uneven=True), num_heads=3, num_columns=5),
    "cfg": Case(ParallelPlan(2, 1, uneven=False)),
    "cfg and context": Case(ParallelPlan(2, 2, uneven=False)),
}


def tiny_transformer(num_heads: int, *, cached: bool = False) -> EX4DTransformer3DModel:
    """Two blocks, seeded weights."""
    torch.manual_seed(0)
    width = num_heads * HEAD_DIM
    transformer = EX4DTransformer3DModel(
        num_attention_heads=num_heads,
        attention_head_dim=HEAD_DIM,
        text_dim=TEXT_DIM,
        freq_dim=32,
        ffn_dim=64,
        num_layers=2,
        image_dim=IMAGE_DIM,
        added_kv_proj_dim=width,
    ).eval()
    if cached:
        steps = len(SIGMAS) - 1
        transformer.enable_cache(
            MagCacheConfig(mag_ratios=[1.0] * steps, num_inference_steps=steps, max_skip_steps=1, retention_ratio=0.25)
        )
    return transformer


def denoise(
    transformer: EX4DTransformer3DModel,
    num_columns: int,
    context: ParallelContext | None = None,
    *,
    with_geometry: bool = True,
) -> Tensor:
    """Latents [1, 16, 3, 6, 2·num_columns] after four Euler steps with guidance, from seeded inputs."""
    random = torch.Generator().manual_seed(1)
    latents = torch.randn(1, 16, 3, 6, 2 * num_columns, generator=random)
    condition = torch.randn(1, 20, 3, 6, 2 * num_columns, generator=random)
    width = transformer.config["num_attention_heads"] * HEAD_DIM
    geometry = torch.randn(1, width, 3, 3, num_columns, generator=random)
    text = {name: torch.randn(1, 512, TEXT_DIM, generator=random) for name in ("cond", "uncond")}
    image = torch.randn(1, 257, IMAGE_DIM, generator=random)

    def velocity(name: str) -> Tensor:
        with transformer.cache_context(name):
            return transformer(
                torch.cat([latents, condition], dim=1),
                torch.tensor([1000 * sigma]),
                text[name],
                image,
                geometry_latents=geometry if with_geometry else None,
                return_dict=False,
            )[0]

    with torch.no_grad():
        for sigma, following in itertools.pairwise(SIGMAS):
            latents = latents + combine_guided(velocity, GUIDANCE_SCALE, context) * (following - sigma)
    return latents


def run_rank(rank: int, world_size: int, folder: Path) -> None:
    """Every case of this many ranks on this one, then what happens to results and errors of a single rank."""
    warnings.simplefilter("error")
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    for name, case in CASES.items():
        if case.plan.world_size == world_size:
            with _meet(case.plan, folder / f"meet.{name}") as context:
                torch.save(_run_case(case, context), folder / f"{name}.{rank}.pt")
    if world_size == 2:
        with _meet(plan_parallel(2, uses_guidance=True, num_heads=4, num_tokens=8), folder / "meet.talk") as context:
            heard = _talk(context)
        with _meet(CASES["context"].plan, folder / "meet.refuse") as context:
            heard["attention"] = _refusal(context)
        torch.save(heard, folder / f"talk.{rank}.pt")


def _run_case(case: Case, context: ParallelContext) -> dict[str, Any]:
    """Latents, and how many tokens each forward pass had on this rank."""
    transformer = tiny_transformer(case.num_heads, cached=case.cached)
    setup_transformer(transformer, context)
    num_tokens: list[int] = []

    def count(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        num_tokens.append(inputs[0].shape[1])

    transformer.proj_out.register_forward_pre_hook(count)
    return {"latents": denoise(transformer, case.num_columns, context), "num_tokens": num_tokens}


def _meet(plan: ParallelPlan, file: Path) -> Any:
    return open_parallel(plan, "cpu", init_method=file.as_uri(), timeout_s=30)


def _talk(context: ParallelContext) -> dict[str, Any]:
    """What each rank gets from `on_main` and `on_all`; rank 1 alone fails, then rank 0 alone."""

    def fail_on(rank: int) -> int:
        if context.rank == rank:
            raise OutOfMemoryError("memory", f"none on rank {rank}", "wait")
        return context.rank

    def heard(error: Exception) -> tuple[str, str]:
        return type(error).__name__, str(error)

    heard_of: dict[str, Any] = {
        "main": on_main(context, lambda: context.rank),
        "all": on_all(context, lambda: context.rank),
    }
    for name, talk, rank in (("all failed", on_all, 1), ("main failed", on_main, 0)):
        try:
            talk(context, lambda rank=rank: fail_on(rank))
        except OutOfMemoryError as error:
            heard_of[name] = heard(error)
    try:
        with open_parallel(ParallelPlan(1, 4, uneven=False), "cpu"):
            pass
    except ConfigError as error:
        heard_of["wrong number"] = heard(error)
    return heard_of


def _refusal(context: ParallelContext) -> str:
    """What is said of an attention implementation that would see only its own tokens."""
    transformer = tiny_transformer(4)
    transformer.set_attention_backend("_native_math")
    try:
        setup_transformer(transformer, context)
    except ConfigError as error:
        return str(error)
    return "nothing"


def main(folder: Path) -> int:
    """Fork 2 ranks, then 4; returns 0 if all of them ended well."""
    torch.set_num_threads(1)
    fork = multiprocessing.get_context("fork")
    for world_size in (2, 4):
        ranks = [fork.Process(target=run_rank, args=(rank, world_size, folder)) for rank in range(world_size)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        if any(process.exitcode for process in ranks):
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
