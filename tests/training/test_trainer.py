"""The loop: what is trained, what is kept, and how a run ends."""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from training_tools import make_config, make_stack, make_trainer, train_steps

from ex4d.errors import Ex4dError, MissingDependencyError, WeightsError
from ex4d.pipeline.progress import SilentReporter
from ex4d.training.checkpoint import read_state, read_tensors_of
from ex4d.training.config import DataConfig, ModelConfig, OptimizerConfig, OutputConfig
from ex4d.training.folder import CHECKPOINTS, COMMITTED, list_checkpoints
from ex4d.training.log import LOG, Log, Measured, read_log, summarize
from ex4d.training.processes import Processes
from ex4d.training.trainer import learning_rate


def _frozen(stack_model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in stack_model.named_parameters() if not value.requires_grad}


def test_loss_falls_and_the_base_stays(tmp_path: Path, alone: Processes) -> None:
    config = make_config(20, optimizer=OptimizerConfig(lr=1e-2, ema_decay=0.5), data=DataConfig(latents="made"))
    stack = make_stack(config)
    before = _frozen(stack.model)
    trainer = make_trainer(config, tmp_path, alone, stack=stack)
    assert trainer.run(SilentReporter())
    losses = [entry["error"] for entry in read_log(tmp_path)]
    assert sum(losses[-6:]) < 0.88 * sum(losses[:6]), losses
    after = _frozen(stack.model)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before), "a frozen weight changed"
    stored = read_tensors_of(list_checkpoints(tmp_path)[-1], "model")
    assert len(stored) == 48
    assert {".lora_" in name or name.startswith("geometry_encoder.") for name in stored} == {True}
    average = read_tensors_of(list_checkpoints(tmp_path)[-1], "ema")
    assert average.keys() == stored.keys()
    assert any(not torch.equal(average[name], stored[name]) for name in stored)


@pytest.mark.parametrize("fp8", [False, True])
def test_bf16_trains_as_float32_does(tmp_path: Path, alone: Processes, fp8: bool) -> None:
    exact = make_trainer(make_config(3), tmp_path / "fp32", alone)
    rough = make_config(3, model=ModelConfig(rank=4, alpha=4.0, precision="bf16", fp8_base=fp8))
    stack = make_stack(rough)
    for folder, trainer in (("fp32", exact), ("bf16", make_trainer(rough, tmp_path / "bf16", alone, stack=stack))):
        (tmp_path / folder).mkdir(exist_ok=True)
        trainer.run(SilentReporter())
    expected, found = ([entry["loss"] for entry in read_log(tmp_path / name)] for name in ("fp32", "bf16"))
    assert found == pytest.approx(expected, rel=0.02)
    assert found != expected
    trained = {value.dtype for value in stack.model.parameters() if value.requires_grad}
    assert trained == {torch.float32}


def test_a_checkpoint_is_of_its_step_while_training_goes_on(tmp_path: Path, alone: Processes) -> None:
    config = make_config(3, output=OutputConfig(checkpoint_every=1, keep_last=3))
    seen: list[Tensor] = []
    trainer = make_trainer(config, tmp_path, alone)
    parameter = next(iter(trainer.trained.values()))
    trainer.run(SilentReporter(), on_step=lambda step: seen.append(parameter.detach().clone()))
    name = next(iter(trainer.trained))
    stored = [read_tensors_of(path, "model")[name] for path in list_checkpoints(tmp_path)]
    assert all(torch.equal(first, second) for first, second in zip(stored, seen, strict=True))
    assert not torch.equal(stored[0], stored[2])


def test_only_whole_checkpoints_count_and_the_last_are_kept(tmp_path: Path, alone: Processes) -> None:
    train_steps(make_config(6), tmp_path, alone)
    assert [read_state(path).step for path in list_checkpoints(tmp_path)] == [4, 6]
    torn = tmp_path / CHECKPOINTS / ".step-00000008.tmp"
    torn.mkdir()
    (list_checkpoints(tmp_path)[-1] / COMMITTED).unlink()
    trainer = make_trainer(make_config(6), tmp_path, alone)
    assert trainer.resume() == 4
    assert not torn.exists()
    trainer.run(SilentReporter())
    assert [entry["step"] for entry in read_log(tmp_path)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends(tmp_path: Path, alone: Processes, number: signal.Signals) -> None:
    trainer = make_trainer(make_config(6, output=OutputConfig(checkpoint_every=100)), tmp_path, alone)

    def tell(step: int) -> None:
        if step == 2:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    assert not trainer.run(SilentReporter(), on_step=tell)
    assert signal.getsignal(number) is before
    assert trainer.is_interrupted == (number == signal.SIGINT)
    assert [read_state(path).step for path in list_checkpoints(tmp_path)] == [trainer.step] == [3]


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path, alone: Processes) -> None:
    trainer = make_trainer(make_config(6, output=OutputConfig(checkpoint_every=100)), tmp_path, alone)

    def tell(step: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trainer.run(SilentReporter(), on_step=tell)
    assert trainer.step == 1


@pytest.mark.parametrize(
    ("changed", "named"),
    [({"seed": 1}, "another model, recipe"), ({"num_steps": 4, "dataset": "others"}, "another dataset")],
)
def test_a_checkpoint_of_something_else_is_refused(
    tmp_path: Path, alone: Processes, changed: dict[str, object], named: str
) -> None:
    train_steps(make_config(2), tmp_path, alone)
    dataset = str(changed.pop("dataset", "waves"))
    other = replace(make_config(2), **changed)  # pyright: ignore[reportArgumentType]
    if named == "another model, recipe":
        other = replace(other, model=ModelConfig(rank=2, alpha=2.0, precision="fp32", checkpointing=False))
    with pytest.raises(WeightsError, match=named):
        make_trainer(other, tmp_path, alone, dataset=dataset).resume()


def test_a_damaged_checkpoint_says_what_to_do(tmp_path: Path, alone: Processes) -> None:
    train_steps(make_config(2), tmp_path, alone)
    (data,) = list_checkpoints(tmp_path)[-1].glob("*.distcp")
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(WeightsError, match="delete it to use the one before"):
        make_trainer(make_config(2), tmp_path, alone).resume()


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_checkpoint(tmp_path: Path, alone: Processes) -> None:
    trainer = make_trainer(make_config(6), tmp_path, alone)

    def spoil(step: int) -> None:
        if step == 3:
            with torch.no_grad():
                next(iter(trainer.trained.values())).fill_(float("nan"))

    with pytest.raises(Ex4dError, match=r"finite loss in step 4; got nan.*last checkpoint is kept"):
        trainer.run(SilentReporter(), on_step=spoil)
    assert [read_state(path).step for path in list_checkpoints(tmp_path)] == [2]
    stored = read_tensors_of(list_checkpoints(tmp_path)[-1], "model")
    assert all(torch.isfinite(tensor).all() for tensor in stored.values())
    assert [entry["step"] for entry in read_log(tmp_path)] == [1, 2, 3]


def test_learning_rate() -> None:
    rising = OptimizerConfig(lr=1.0, warmup_steps=4)
    assert [learning_rate(rising, step, 10) for step in (0, 1, 3, 9)] == [0.25, 0.5, 1.0, 1.0]
    falling = OptimizerConfig(lr=1.0, cosine=True)
    assert learning_rate(falling, 0, 10) == 1.0
    assert learning_rate(falling, 5, 10) == pytest.approx(0.5)


def test_the_log_bins_errors_by_sigma_and_drops_what_is_computed_again(tmp_path: Path) -> None:
    values = summarize([Measured(0.95, 2.0, 0.5), Measured(1.0, 4.0, 0.0), Measured(0.31, 6.0, 2.0)])
    assert values == {"loss": 13 / 3, "error": 4.0, "error_by_sigma": {"0.3": 6.0, "0.9": 3.0}}
    log = Log(tmp_path, step=0, tensorboard=False)
    for step in (1, 2, 3):
        log.write(step, {"loss": float(step)})
    with (tmp_path / LOG).open("a") as file:
        file.write('{"step": 4, "lo')
    Log(tmp_path, step=2, tensorboard=False).write(3, {"loss": 9.0})
    assert [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()] == [
        {"step": 1, "loss": 1.0},
        {"step": 2, "loss": 2.0},
        {"step": 3, "loss": 9.0},
    ]


def test_tensorboard_gets_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    log = Log(tmp_path, step=0, tensorboard=True)
    log.write(1, {"loss": 0.5, "error_by_sigma": {"0.3": 6.0}})
    log.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert sorted(found.Tags()["scalars"]) == ["error_by_sigma/0.3", "loss"]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(MissingDependencyError, match=r"ex4d\[tensorboard\]"):
        Log(tmp_path, step=0, tensorboard=True)
