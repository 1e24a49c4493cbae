"""What `test_training_processes.py` runs in processes of its own: `python training_worker.py FOLDER`.

One interpreter imports torch, then forks a process a rank, so that the imports are paid once.
"""

import multiprocessing
import os
import signal
import sys
import warnings
from dataclasses import replace
from multiprocessing.context import ForkProcess
from pathlib import Path

import torch
from training_tools import MemorySource, make_captions, make_config, make_trainer

from ex4d.pipeline.progress import SilentReporter
from ex4d.training.config import OutputConfig, TrainConfig
from ex4d.training.processes import open_processes

NUM_STEPS, KILLED_AFTER, CHECKPOINT_EVERY = 20, 13, 5
SHARED_STEPS = CHECKPOINT_EVERY


def config_of(sharding: str = "alone") -> TrainConfig:
    """Twenty steps of two micro-batches; five where they are shared out."""
    return replace(
        make_config(
            NUM_STEPS if sharding == "alone" else SHARED_STEPS, data=replace(make_config().data, micro_batch=1)
        ),
        sharding="fsdp" if sharding == "fsdp" else "ddp",
        output=OutputConfig(checkpoint_every=CHECKPOINT_EVERY, keep_last=4),
    )


def run_rank(rank: int, world_size: int, folder: Path, sharding: str, kill_after: int | None) -> None:
    """Train to the end, or be killed on the way; as torchrun would start it."""
    warnings.simplefilter("error")
    if world_size > 1:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))

    def die(step: int) -> None:
        if step == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    with open_processes(device="cpu") as processes:
        trainer = make_trainer(config_of(sharding), folder, processes)
        trainer.resume()
        assert trainer.run(SilentReporter(), on_step=die)


def start(folder: Path, *, world_size: int, sharding: str, kill_after: int | None) -> list[ForkProcess]:
    """A process a rank."""
    fork = multiprocessing.get_context("fork")
    folder.mkdir(exist_ok=True)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))
    arguments = (world_size, folder, sharding, kill_after)
    ranks = [fork.Process(target=run_rank, args=(rank, *arguments)) for rank in range(world_size)]
    for process in ranks:
        process.start()
    return ranks


def free_port() -> int:
    """One that nobody listens on now."""
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def main(folder: Path) -> int:
    """All runs; returns 0 if each ended as it should."""
    torch.set_num_threads(1)
    MemorySource(cached=True)  # once for all
    make_captions()
    ends: list[list[int | None]] = []
    for name, sharding, world_size, kill_after in (
        ("straight", "alone", 1, None),
        ("killed", "alone", 1, KILLED_AFTER),
        ("killed", "alone", 1, None),
        ("fsdp", "fsdp", 2, None),
        ("ddp", "ddp", 2, None),
    ):
        ranks = start(folder / name, world_size=world_size, sharding=sharding, kill_after=kill_after)
        for process in ranks:
            process.join()
        ends.append([process.exitcode for process in ranks])
    return 0 if ends == [[0], [-signal.SIGKILL], [0], [0, 0], [0, 0]] else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
