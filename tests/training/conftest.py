"""Threads as tests of training want them."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: spinning threads steal the cores of other workers

from collections.abc import Iterator

import pytest
import torch

from ex4d.training.processes import Processes, open_processes

torch.set_num_threads(1)  # tensors this small are slower with several


@pytest.fixture
def alone() -> Iterator[Processes]:
    """A run of one process, in this one."""
    with open_processes(device="cpu") as processes:
        yield processes
