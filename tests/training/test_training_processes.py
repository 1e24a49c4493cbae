"""Killed and resumed, or shared out: the same losses and weights."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_worker import CHECKPOINT_EVERY, KILLED_AFTER, NUM_STEPS, SHARED_STEPS

from ex4d.training.checkpoint import read_state, read_tensors_of
from ex4d.training.folder import list_checkpoints
from ex4d.training.log import read_log

WORKER = Path(__file__).with_name("training_worker.py")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the worker's runs."""
    folder = tmp_path_factory.mktemp("runs")
    paths = os.pathsep.join([str(WORKER.parent), *sys.path])
    worker = subprocess.Popen(
        [sys.executable, str(WORKER), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    try:
        said, _ = worker.communicate(timeout=110)
    finally:
        if worker.poll() is None:
            os.killpg(worker.pid, signal.SIGKILL)
    assert worker.returncode == 0, said
    return folder


def _losses(folder: Path) -> list[tuple[int, float, float]]:
    return [(entry["step"], entry["loss"], entry["grad_norm"]) for entry in read_log(folder)]


def _weights(folder: Path, step: int) -> dict[str, torch.Tensor]:
    (checkpoint,) = (path for path in list_checkpoints(folder) if read_state(path).step == step)
    return read_tensors_of(checkpoint, "model")


def test_killed_and_resumed_is_exact(runs: Path) -> None:
    straight, killed = _losses(runs / "straight"), _losses(runs / "killed")
    assert [step for step, _, _ in straight] == list(range(1, NUM_STEPS + 1))
    assert killed == straight
    expected = _weights(runs / "straight", NUM_STEPS)
    found = _weights(runs / "killed", NUM_STEPS)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    average = read_tensors_of(list_checkpoints(runs / "killed")[-1], "ema")
    assert average.keys() == expected.keys()


def test_the_kill_hit_between_checkpoints() -> None:
    assert KILLED_AFTER % CHECKPOINT_EVERY
    assert CHECKPOINT_EVERY < KILLED_AFTER < NUM_STEPS


@pytest.mark.parametrize("name", ["fsdp", "ddp"])
def test_two_processes_equal_one(runs: Path, name: str) -> None:
    one, two = _losses(runs / "straight"), _losses(runs / name)
    assert len(two) == SHARED_STEPS
    for first, second in zip(one, two, strict=False):
        assert second == pytest.approx(first, abs=1e-5)
    expected, found = _weights(runs / "straight", SHARED_STEPS), _weights(runs / name, SHARED_STEPS)
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, rtol=0, atol=1e-5, msg=key)
