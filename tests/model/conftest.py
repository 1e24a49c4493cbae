"""The miniature and the oracle's weights, made once."""

import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: spinning threads steal the cores of other workers

import pytest
import torch

from ex4d.model.tiny import make_tiny_pipeline, save_tiny
from ex4d.model.wan_pipeline import EX4DPipeline
from parity.oracle import Oracle

torch.set_num_threads(1)  # tensors this small are slower with several


@pytest.fixture(scope="session")
def oracle() -> Oracle:
    """Always the one in tests/data: names and sizes of its tensors are expected here, unlike in tests/parity."""
    return Oracle(Path(__file__).parents[1] / "data/oracle")


@pytest.fixture(scope="session")
def oracle_folder(oracle: Oracle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The five original files as a weight folder; not to be changed."""
    return oracle.convert(tmp_path_factory.mktemp("oracle") / "weights")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature as a weight folder; not to be changed."""
    folder = tmp_path_factory.mktemp("tiny") / "weights"
    save_tiny(folder)
    return folder


@pytest.fixture
def tiny() -> EX4DPipeline:
    return make_tiny_pipeline()
