"""Which memory plan fits this machine, what to do when it did not, and how to tell the user. Imports no torch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from ex4d.errors import ConfigError, OutOfMemoryError
from ex4d.model.estimates import (
    FULL_SIZE,
    PLANS,
    RESERVE_GIB,
    SMALL_PARAMS,
    TEXT_ENCODER_GIB,
    Estimate,
    MemoryPlan,
    ModelSize,
    PlanName,
    Workload,
    estimate,
)

DOWNWARDS: tuple[PlanName, ...] = ("bf16", "fp8", "int8", "gguf", "offload")
_DISTINCT = 0.95
"""A plan is a step down if its peak is at most this share of the last one's (int8 is none from fp8)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What there is to compute with.

    Attributes:
        device: where the transformer runs; ROCm counts as cuda.
        name: of the device, for messages.
        total_gib: GPU memory.
        free_gib: of it, now.
        host_gib: host memory that can be had now; None = unknown.
        gguf_gib: size of the GGUF file at hand; None = no file.
        unavailable: plan → why it cannot be used here.
    """

    device: Literal["cuda", "cpu"]
    name: str = ""
    total_gib: float = 0.0
    free_gib: float = 0.0
    host_gib: float | None = None
    gguf_gib: float | None = None
    unavailable: Mapping[PlanName, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A plan that fits.

    Attributes:
        plan: with its details filled in (VAE tiling, where text is encoded, page-locking).
        estimate: of its needs.
        budget_gib: GPU memory it may use; 0 on a CPU.
        skipped: better plans and why they were not taken.
    """

    plan: MemoryPlan
    estimate: Estimate
    budget_gib: float
    skipped: tuple[str, ...] = ()


def choose_plan(
    machine: Machine,
    work: Workload,
    *,
    requested: PlanName | Literal["auto"] = "auto",
    max_vram_gib: float | None = None,
    size: ModelSize = FULL_SIZE,
) -> Choice:
    """The best plan whose estimate fits: bf16, fp8, int8, gguf, offload; each untiled before it is tiled.

    Args:
        machine: of `placement.inspect_machine`.
        work: what is generated at a time.
        requested: only this plan.
        max_vram_gib: stay within this much GPU memory; None = what is free.
        size: of the transformer.

    Raises:
        ConfigError: no GPU for a large transformer, or a requested plan that cannot be used here.
        OutOfMemoryError: nothing fits; the numbers of every plan are listed.
    """
    if requested == "cpu" or (machine.device == "cpu" and requested == "auto"):
        return _on_cpu(machine, work, size, asked=requested == "cpu")
    if machine.device == "cpu" and size.params >= SMALL_PARAMS:
        raise _no_gpu(size)
    names = DOWNWARDS if requested == "auto" else (requested,)
    if requested != "auto" and requested in machine.unavailable:
        raise ConfigError(f"--plan {requested} that can be used here", machine.unavailable[requested], "--plan auto")
    budget = min(machine.free_gib, max_vram_gib or machine.free_gib) if machine.device == "cuda" else 0.0
    return _first_that_fits(names, machine, work, budget_gib=budget, size=size)


def next_plan_down(
    failed: Choice, machine: Machine, work: Workload, *, auto: bool = True, size: ModelSize = FULL_SIZE
) -> Choice:
    """What to try after a plan ran out of memory in spite of its estimate: a smaller one, VAE tiled.

    Args:
        failed: what ran out.
        machine: as it was when `failed` was chosen: memory the failed plan still holds must not count.
        work: what is generated.
        auto: False = one plan was asked for, so there is no other.
        size: of the transformer.

    Raises:
        OutOfMemoryError: nothing smaller is left.
    """
    name = failed.plan.name
    limit = _DISTINCT * failed.estimate.peak_gib
    return _first_that_fits(
        DOWNWARDS[DOWNWARDS.index(name) + 1 :] if auto and name != "cpu" else (),
        machine,
        work,
        budget_gib=failed.budget_gib,
        size=size,
        limit_gib=limit,
    )


def describe_plan(choice: Choice) -> str:
    """One line for the user: the plan, its estimated peak, what is offloaded."""
    plan, needs = choice.plan, choice.estimate
    details = [f"plan {plan.name}: {plan.summary}"]
    if plan.name != "cpu" and choice.budget_gib:
        peak = f"about {needs.peak_gib:.1f} of {choice.budget_gib:.1f} GiB GPU memory at the peak"
        details.append(f"{peak} (loading {needs.load_gib:.1f}, running {needs.run_gib:.1f}; estimates)")
        details.append(f"text encoder on the {plan.text_encoder.upper()} beforehand, VAE and image encoder in turns")
    if plan.vae_tiling:
        details.append("VAE in tiles")
    if plan.offload and not plan.pinned:
        details.append("host memory is too small to page-lock the blocks, so copies do not overlap")
    details.append(f"host memory about {needs.host_gib:.0f} GiB")
    return "; ".join(details)


def _first_that_fits(
    names: Sequence[PlanName],
    machine: Machine,
    work: Workload,
    *,
    budget_gib: float,
    size: ModelSize,
    limit_gib: float = float("inf"),
) -> Choice:
    """The first variant within the budget; `limit_gib`: only such as peak below it, VAE tiled."""
    skipped: list[str] = []
    for name in names:
        if name in machine.unavailable:
            skipped.append(f"{name}: {machine.unavailable[name]}")
            continue
        reason = ""
        for plan in _variants(PLANS[name], machine, budget_gib=budget_gib, is_retry=limit_gib < float("inf")):
            needs = estimate(plan, work, size=size, gguf_gib=machine.gguf_gib)
            reason = _shortage(needs, machine, budget_gib=budget_gib, limit_gib=limit_gib)
            if not reason:
                return Choice(plan=plan, estimate=needs, budget_gib=budget_gib, skipped=tuple(skipped))
        skipped.append(f"{name}: {reason}")
    raise OutOfMemoryError(
        f"a memory plan within {budget_gib:.1f} GiB of GPU memory",
        "; ".join(skipped) or "no smaller plan",
        "free GPU memory, raise --max-vram, or generate less at a time: smaller --size, --window-frames or --tile",
    )


def _variants(plan: MemoryPlan, machine: Machine, *, budget_gib: float, is_retry: bool) -> Iterator[MemoryPlan]:
    """The plan untiled, then tiled; umT5 on the CPU where it does not fit, blocks page-locked where they fit."""
    on_gpu = machine.device == "cuda" and budget_gib >= TEXT_ENCODER_GIB + RESERVE_GIB
    plan = replace(plan, text_encoder="gpu" if on_gpu else "cpu")
    tilings = (True,) if is_retry else (False, True)
    for pinned in (True, False) if plan.offload and machine.device == "cuda" else (plan.pinned,):
        for tiling in tilings:
            yield replace(plan, vae_tiling=tiling, pinned=pinned)


def _shortage(needs: Estimate, machine: Machine, *, budget_gib: float, limit_gib: float) -> str:
    """Why a plan does not fit; empty if it does."""
    if machine.device == "cuda" and needs.peak_gib > budget_gib:
        return f"needs about {needs.peak_gib:.1f} GiB (loading {needs.load_gib:.1f}, running {needs.run_gib:.1f})"
    if needs.peak_gib > limit_gib:
        return f"needs about {needs.peak_gib:.1f} GiB, as much as what has just failed"
    if machine.host_gib is not None and needs.host_gib > machine.host_gib:
        return f"needs about {needs.host_gib:.1f} GiB of host memory, {machine.host_gib:.1f} are available"
    return ""


def _on_cpu(machine: Machine, work: Workload, size: ModelSize, *, asked: bool) -> Choice:
    if not asked and size.params >= SMALL_PARAMS:
        raise _no_gpu(size)
    needs = estimate(PLANS["cpu"], work, size=size)
    # a small model may still be tried: its estimate is mostly reserve
    if size.params >= SMALL_PARAMS and machine.host_gib is not None and needs.host_gib > machine.host_gib:
        raise OutOfMemoryError(
            f"about {needs.host_gib:.0f} GiB of host memory for --plan cpu", f"{machine.host_gib:.0f} GiB available"
        )
    return Choice(plan=PLANS["cpu"], estimate=needs, budget_gib=0.0)


def _no_gpu(size: ModelSize) -> ConfigError:
    return ConfigError(
        f"an NVIDIA GPU with 8 GiB or more for a transformer of {size.params / 1e9:.1f} B parameters",
        "no CUDA device that torch can use",
        "check nvidia-smi and that torch is a CUDA build; --plan cpu computes on the CPU, in hours; "
        "--weights tiny tries the chain without a GPU",
    )


def available_host_gib() -> float | None:
    """Host memory that can be had now, GiB: of the machine, or of the container if that is less; None = unknown."""
    values = [value for value in (_meminfo_available(), _cgroup_available()) if value is not None]
    return min(values) / 2**30 if values else None


def _meminfo_available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(fields["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in fields else None


def _cgroup_available(folder: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What a container of cgroup v2 may still take; its file cache can be reclaimed."""
    try:
        limit = (folder / "memory.max").read_text("ascii").strip()
        used = int((folder / "memory.current").read_text("ascii"))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text("ascii").splitlines())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else int(limit) - used + int(stat.get("inactive_file", 0))
