"""Several processes, one video: each CFG branch in a group of its own, each group sharing out the tokens.

A group runs diffusers' Ulysses context parallelism: every rank holds the whole transformer and a part of the
tokens, and attention swaps tokens for heads. The geometry latents need nothing of their own here: they are
added to the patch embedding, and tokens are split later, where block 0 begins.
"""

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeVar, cast

import torch
import torch.distributed as dist
from diffusers import ContextParallelConfig, ParallelConfig  # pyright: ignore[reportPrivateImportUsage]
from diffusers.hooks.first_block_cache import FirstBlockCacheConfig
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from ex4d.errors import ConfigError, Ex4dError
from ex4d.model.acceleration import is_compiled

T = TypeVar("T")
Branch = Literal["cond", "uncond"]


@dataclass(frozen=True, slots=True)
class ParallelPlan:
    """Who does what: ``world_size = cfg_degree × context_degree`` processes, one a GPU.

    Attributes:
        cfg_degree: 2 = one group a CFG branch, 1 = every rank computes both.
        context_degree: ranks that share out the tokens of a branch.
        uneven: tokens or heads do not divide by `context_degree`: works, with an exchange of sizes per attention.
    """

    cfg_degree: int
    context_degree: int
    uneven: bool

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return self.cfg_degree * self.context_degree

    def __str__(self) -> str:
        parts = ["a CFG branch each" if self.context_degree == 1 else "a group a CFG branch"] * (self.cfg_degree == 2)
        if self.context_degree > 1:
            parts.append(f"tokens shared out among {self.context_degree}{' (unevenly)' * self.uneven}")
        return f"{self.world_size} GPUs: {', '.join(parts)}" if parts else "1 GPU"


def plan_parallel(num_gpus: int, *, uses_guidance: bool, num_heads: int, num_tokens: int) -> ParallelPlan:
    """With CFG and an even number of GPUs a half for each branch, which costs no exchange; the rest shares tokens.

    Args:
        num_gpus: >= 1.
        uses_guidance: whether there are two branches a step.
        num_heads: attention heads of the transformer.
        num_tokens: of one forward pass; their greatest common divisor if passes differ (tiles).

    Raises:
        ConfigError: heads or tokens that cannot be shared out among so many; the message says what works.
    """
    plan = _plan(num_gpus, uses_guidance, num_heads, num_tokens)
    if plan is None:
        works = [str(n) for n in range(1, num_gpus) if _plan(n, uses_guidance, num_heads, num_tokens)]
        raise ConfigError(
            f"--gpus {', '.join(works) or '1'}",
            str(num_gpus),
            f"{num_heads} attention heads and {num_tokens} tokens cannot be shared out among more or others",
        )
    return plan


def _plan(num_gpus: int, uses_guidance: bool, num_heads: int, num_tokens: int) -> ParallelPlan | None:
    if num_gpus < 1:
        return None
    cfg_degree = 2 if uses_guidance and num_gpus % 2 == 0 else 1
    degree = num_gpus // cfg_degree
    padding = -num_heads % degree  # diffusers pads the last rank's heads, and that rank must keep a real one
    if num_tokens < degree or padding >= -(-num_heads // degree):
        return None
    return ParallelPlan(cfg_degree, degree, uneven=bool(padding or num_tokens % degree))


@dataclass(frozen=True, slots=True)
class ParallelContext:
    """This process among the others.

    Attributes:
        plan: who does what.
        rank: 0 … world_size − 1; rank 0 alone writes files.
        device: what this process computes on.
        mesh: ``cfg`` × ``ring`` (always 1) × ``ulysses``, the names diffusers wants.
    """

    plan: ParallelPlan
    rank: int
    device: torch.device
    mesh: DeviceMesh

    @property
    def branch(self) -> Branch:
        """The CFG branch of this rank's group, if each has one."""
        return "cond" if self.mesh.get_local_rank("cfg") == 0 else "uncond"


def is_main(context: ParallelContext | None) -> bool:
    """Whether this process writes files and reports."""
    return context is None or context.rank == 0


@contextmanager
def open_parallel(
    plan: ParallelPlan, device: Literal["cuda", "cpu"], *, init_method: str = "env://", timeout_s: float = 3600.0
) -> Generator[ParallelContext, None, None]:
    """Meet the other processes (nccl on cuda, gloo on cpu); inside the block all of them can be used.

    Args:
        plan: the same on all ranks.
        device: cuda takes the GPU of ``LOCAL_RANK``.
        init_method: where to meet; ``RANK`` and ``WORLD_SIZE`` come from the environment, as torchrun sets them.
        timeout_s: how long a rank waits for another, seconds: longer than rank 0 encodes or decodes alone.

    Raises:
        ConfigError: started with another number of processes than planned.
    """
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if world_size != plan.world_size:
        raise ConfigError(f"{plan.world_size} processes, as --gpus says", str(world_size), "let ex4d start them")
    if device == "cuda":
        own = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(own)
    else:
        own = torch.device("cpu")
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // world_size))
    dist.init_process_group(
        # spelt so, diffusers exchanges sizes on the CPU; "gloo" alone makes it ask for an accelerator
        "nccl" if device == "cuda" else "cpu:gloo",
        init_method=init_method,
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=timeout_s),
        device_id=own if device == "cuda" else None,
    )
    shape = (plan.cfg_degree, 1, plan.context_degree)
    mesh = init_device_mesh(device, shape, mesh_dim_names=("cfg", "ring", "ulysses"))
    yield ParallelContext(plan, rank, own, mesh)
    # Not after a failure: the others may hang in a collective, and only the end of this process frees them.
    dist.barrier()
    dist.destroy_process_group()


def setup_transformer(transformer: WanTransformer3DModel, context: ParallelContext | None) -> None:
    """Make a transformer share out its tokens within this rank's group; call it last, after caching and compiling.

    It keeps returning all tokens on every rank of the group, the same bits on each. A step cache enabled later would
    see all tokens go in and a part come out.

    Raises:
        ConfigError: an attention implementation, a step cache or a compilation that does not work so.
    """
    if context is None or context.plan.context_degree == 1:
        return
    _check_shareable(transformer, context.plan)
    plan, group = context.plan, context.mesh.get_group("ulysses")
    config = ContextParallelConfig(ulysses_degree=plan.context_degree, mesh=context.mesh, ulysses_anything=plan.uneven)
    if context.device.type == "cpu":
        # diffusers' own divides by the number of accelerators; this does the rest of what it does.
        parallel = ParallelConfig(context_parallel_config=config)
        parallel.setup(context.rank, plan.world_size, context.device, mesh=context.mesh)
        transformer._resolve_parallel_config = lambda _: parallel  # pyright: ignore[reportAttributeAccessIssue]
    whole = cast(dict[str, Any], transformer._cp_plan)
    # "" would split timesteps [B, tokens], which EX-4D has not; "proj_out" gathers even parts only, so we do it.
    split = {name: whole[name] for name in whole if name not in ("", "proj_out")}
    try:
        transformer.enable_parallelism(config=config, cp_plan=split)
    except ValueError as error:
        raise ConfigError("--attention that can be shared out among GPUs", str(error)) from error

    def gather(module: nn.Module, inputs: Any, tokens: Tensor) -> Tensor:
        return _gather_tokens(tokens, group)

    transformer.proj_out.register_forward_hook(gather)


def _check_shareable(transformer: WanTransformer3DModel, plan: ParallelPlan) -> None:
    if isinstance(getattr(transformer, "_cache_config", None), FirstBlockCacheConfig):
        # Each rank would decide by its own tokens, and ranks that decide differently wait for each other forever.
        raise ConfigError("--cache none with tokens shared out among GPUs", "first-block")
    if plan.uneven and is_compiled(transformer):
        # torch cannot trace the exchange of sizes
        raise ConfigError(
            "no --compile where tokens or heads do not divide among GPUs",
            f"--compile and {plan.context_degree} GPUs to share them",
            "drop it, or choose a --size of other multiples of 16",
        )


def _gather_tokens(tokens: Tensor, group: dist.ProcessGroup) -> Tensor:
    """All tokens [B, N, C] of the group's parts [B, n, C]; shorter parts are padded on the way: gloo wants equal."""
    num = torch.tensor([tokens.shape[1]], device=tokens.device)
    nums = [torch.empty_like(num) for _ in range(dist.get_world_size(group))]
    dist.all_gather(nums, num, group=group)
    counts = [int(count) for count in nums]
    padded = nn.functional.pad(tokens, (0, 0, 0, max(counts) - tokens.shape[1])).contiguous()
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(parts, padded, group=group)
    return torch.cat([part[:, :count] for part, count in zip(parts, counts, strict=True)], dim=1)


def combine_guided(
    branch: Callable[[Branch], Tensor], guidance_scale: float, context: ParallelContext | None = None
) -> Tensor:
    """Velocity with classifier-free guidance: uncond + scale · (cond − uncond), the same bits on all ranks.

    Args:
        branch: velocity of a branch; both of one shape and dtype.
        guidance_scale: 1 = no guidance, only ``cond`` is computed.
        context: computes one branch here and takes the other from the other group, if the plan says so.
    """
    if guidance_scale == 1:
        return branch("cond")
    if context is None or context.plan.cfg_degree == 1:
        cond, uncond = branch("cond"), branch("uncond")
    else:
        own = branch(context.branch).contiguous()
        cond, uncond = torch.empty_like(own), torch.empty_like(own)
        dist.all_gather([cond, uncond], own, group=context.mesh.get_group("cfg"))
    return uncond + guidance_scale * (cond - uncond)


def on_main(context: ParallelContext | None, job: Callable[[], T]) -> T:
    """Run a job on rank 0 alone and give all ranks its result, or its error; every rank must call this.

    Args:
        context: None = just run it.
        job: uses no other rank; its result can be pickled, tensors in it are on the CPU.
    """
    if context is None:
        return job()
    outcomes = [_attempt(job) if context.rank == 0 else None]
    dist.broadcast_object_list(outcomes, src=0, device=context.device)
    result, error = cast(tuple[T, Exception | None], outcomes[0])
    if error is not None:
        raise error
    return result


def on_all(context: ParallelContext | None, job: Callable[[], T]) -> T:
    """Run a job on every rank; if it fails on any, all raise the error of the first; every rank must call this.

    For what may fail on one GPU only, such as loading: out of memory there must send all to the next plan.

    Args:
        context: None = just run it.
        job: uses no other rank.
    """
    if context is None:
        return job()
    result, error = _attempt(job)
    errors: list[Exception | None] = [None] * context.plan.world_size
    dist.all_gather_object(errors, error)
    for failed in errors:
        if failed is not None:
            raise failed
    return cast(T, result)


def _attempt(job: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """Result, or an error that others must hear of; any other error ends this process, and with it all."""
    try:
        return job(), None
    except (Ex4dError, torch.OutOfMemoryError) as error:
        return None, error
