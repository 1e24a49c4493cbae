"""The processes of a run, and how they share the model: one, or those that torchrun started."""

import os
import warnings
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from ex4d.errors import ConfigError
from ex4d.training.config import TrainConfig
from ex4d.training.model import TrainedModel

T = TypeVar("T")
_TIMEOUT = timedelta(hours=1)
"""How long a rank waits for another: longer than one encodes or decodes alone."""


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among the others.

    Attributes:
        rank: 0 … world_size − 1; rank 0 alone writes logs and pictures.
        world_size: how many there are.
        device: what this one computes on.
        talk: group on the CPU for what is not tensors of the model: results of a step, signals, checkpoints.
        save: group of its own for checkpoints, which are written while training goes on.
    """

    rank: int
    world_size: int
    device: torch.device
    talk: dist.ProcessGroup
    save: dist.ProcessGroup

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, by rank; they can be pickled."""
        found: list[Any] = [None] * self.world_size
        dist.all_gather_object(found, value, group=self.talk)
        return cast(list[T], found)


@contextmanager
def open_processes(*, device: str | None = None) -> Generator[Processes, None, None]:
    """Meet the others that torchrun started (nccl on cuda, gloo on cpu); alone without it.

    Args:
        device: ``cuda`` or ``cpu``; None = cuda if there is one.
    """
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    own = torch.device(kind, int(os.environ.get("LOCAL_RANK", "0"))) if kind == "cuda" else torch.device(kind)
    if own.type == "cuda":
        torch.cuda.set_device(own)
    backend = "nccl" if own.type == "cuda" else "gloo"
    # alone no address is needed: everything is in this process
    how: dict[str, Any] = (
        {"store": cast(Any, dist).HashStore()} if "RANK" not in os.environ else {"init_method": "env://"}
    )
    dist.init_process_group(backend, rank=rank, world_size=world_size, timeout=_TIMEOUT, **how)
    groups = [cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=_TIMEOUT)) for _ in range(2)]
    try:
        yield Processes(rank, world_size, own, *groups)
    finally:
        dist.destroy_process_group()


def check_shares(config: TrainConfig, processes: Processes) -> None:
    """Raise a ConfigError unless the micro-batches of a step can be shared out evenly."""
    number = config.data.num_micro_batches
    if number % processes.world_size:
        raise ConfigError(
            f"data.num_micro_batches in multiples of {processes.world_size}, the number of processes", str(number)
        )


class SharedModel:
    """A model as the processes hold it: whole in each (``ddp``), or in parts (``fsdp``).

    Attributes:
        model: what names and state are taken from.
        call: what is called with the arguments of `TrainedModel.forward`.
    """

    def __init__(self, model: TrainedModel, config: TrainConfig, processes: Processes) -> None:
        self.model = model
        self.call: nn.Module = model
        if config.sharding == "fsdp":
            _share_out(model, config, processes)
        elif processes.world_size > 1:
            with warnings.catch_warnings():
                # its new name came with another meaning
                warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
                # nothing to send around at first: all ranks have loaded the same weights
                self.call = DistributedDataParallel(model, broadcast_buffers=False, init_sync=False)

    def accumulating(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Around forward and backward of a micro-batch: gradients are exchanged after the last one only."""
        if isinstance(self.model, FSDPModule):
            self.model.set_requires_gradient_sync(is_last)
            return nullcontext()
        if isinstance(self.call, DistributedDataParallel) and not is_last:
            return self.call.no_sync()
        return nullcontext()


def _share_out(model: TrainedModel, config: TrainConfig, processes: Processes) -> None:
    """FSDP2: a group for each block, one for the encoder, one for the rest."""
    mesh = init_device_mesh(processes.device.type, (processes.world_size,))
    reduced = config.model.precision == "bf16"
    mixed = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if reduced else None,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,  # it would round the rotary tables
    )
    # what inference keeps in float32 stays so, and is too small to be shared out
    exact = {value for value in model.transformer.parameters() if not value.requires_grad and value.dtype.itemsize == 4}
    ignored: set[nn.Parameter] = exact if reduced else set()
    for block in model.transformer.blocks:
        fully_shard(block, mesh=mesh, mp_policy=mixed, ignored_params=ignored)
    fully_shard(model.geometry_encoder, mesh=mesh, mp_policy=MixedPrecisionPolicy(reduce_dtype=torch.float32))
    fully_shard(model, mesh=mesh, mp_policy=mixed, ignored_params=ignored)
