"""The engine: its plan, what it does out of memory, what it says of itself. No GPU is needed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ex4d.errors import ConfigError, OutOfMemoryError
from ex4d.model.estimates import Workload
from ex4d.model.memory import Machine, choose_plan
from ex4d.model.tiny import CONFIGS, save_tiny
from ex4d.pipeline.engine import Engine, choose_for, inspect_for, open_engine, plan_processes
from ex4d.pipeline.generation_job import EngineSettings, GenerationJob, plan_job
from ex4d.pipeline.generation_setup import check_generation
from ex4d.pipeline.weight_paths import WeightPaths, find_weights
from generation_tools import ArrayView, Heard, tiny_config

torch.set_num_threads(1)  # tensors this small are slower with several
RGB = np.full((5, 32, 32, 3), 90, np.uint8)
OBSERVED = np.ones((5, 32, 32), bool)
GPU = Machine(device="cuda", name="a GPU", total_gib=80, free_gib=80, host_gib=64)


def _job(**changes: Any) -> GenerationJob:
    return plan_job(ArrayView(5), tiny_config(**changes), seed=0)


class Pretender(Engine):
    """Plans for a GPU and a larger job, and computes on the CPU."""

    def __init__(self, job: GenerationJob, heard: Heard) -> None:
        super().__init__(job, EngineSettings(), heard)
        self._machine, self._work = GPU, Workload(num_frames=49, height=512, width=512)
        self._choice = choose_plan(GPU, self._work, size=self._size)

    def fail(self, error: Exception) -> None:
        """Raise from the next forward pass of the transformer that is loaded now."""
        assert self._pipe is not None

        def raises(*_: object) -> None:
            raise error

        self._pipe.transformer.register_forward_pre_hook(raises)

    def sampled(self) -> torch.Tensor:
        return self.sample(RGB, OBSERVED, seed=1, window=0, on_step=lambda: None)

    def sample_until_the_end(self) -> None:
        """Out of memory under one plan after the other."""
        for _ in range(9):
            self.fail(torch.OutOfMemoryError("full"))
            self.sampled()


def test_out_of_memory_the_next_plan_is_loaded() -> None:
    heard = Heard()
    engine = Pretender(_job(), heard)
    engine.load({})
    assert engine.describe()["plan"] == "bf16"
    before = engine.sampled()
    engine.fail(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore words"))
    after = engine.sampled()
    assert after.shape == before.shape == (1, 16, 2, 4, 4)
    assert torch.isfinite(after).all()
    record = engine.describe()
    assert (record["plan"], record["vae_tiling"], record["fuse_lora"]) == ("fp8", True, True)
    story = "plan bf16 ran out of memory (CUDA out of memory. Tried to allocate 2 GiB.): going on with plan fp8"
    assert story in heard.notes
    assert any(note.startswith("plan fp8: ") for note in heard.notes)
    assert not torch.equal(before, after), "the precision is another"
    engine.close()


def test_plans_end() -> None:
    """Down to the smallest, then an error with all that was tried."""
    heard = Heard()
    engine = Pretender(_job(), heard)
    engine.load({})
    with pytest.raises(OutOfMemoryError, match=r"as much as what has just failed|no smaller plan") as caught:
        engine.sample_until_the_end()
    assert "--max-vram" in caught.value.fix
    tried = [note.split()[1] for note in heard.notes if "ran out of memory" in note]
    assert tried[0] == "bf16"
    assert len(tried) == len(set(tried))


@pytest.mark.parametrize("changes", [{"fallback": False}, {"plan": "bf16"}])
def test_no_other_plan_than_asked_for(changes: dict[str, Any]) -> None:
    heard = Heard()
    engine = Pretender(_job(**changes), heard)
    engine.load({})
    engine.fail(torch.OutOfMemoryError("full"))
    with pytest.raises(OutOfMemoryError):
        engine.sampled()
    assert not any("going on" in note for note in heard.notes)
    engine.close()


def test_no_fallback_says_what_to_change() -> None:
    with open_engine(_job(fallback=False), EngineSettings(), reporter=Heard(), timings={}) as engine:
        with pytest.raises(OutOfMemoryError, match=r"GPU memory for plan cpu.*full.*--plan.*--size"):
            engine._retried(_raise(torch.OutOfMemoryError("full")))
        host = "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried …"
        with pytest.raises(OutOfMemoryError, match="enough host memory"):
            engine._retried(_raise(RuntimeError(host)))
        with pytest.raises(RuntimeError, match="something else"):
            engine._retried(_raise(RuntimeError("something else")))


def _raise(error: Exception) -> Any:
    def job(pipe: object) -> None:
        raise error

    return job


def test_a_window_through_the_engine() -> None:
    heard, timings = Heard(), dict[str, float]()
    steps: list[int] = []
    with open_engine(_job(steps=2), EngineSettings(), reporter=heard, timings=timings) as engine:
        latents = engine.sample(RGB, OBSERVED, seed=1, window=0, on_step=lambda: steps.append(1))
        again = engine.sample(RGB, OBSERVED, seed=1, window=3, on_step=lambda: None)
        other = engine.sample(RGB, OBSERVED, seed=2, window=0, on_step=lambda: None)
        frames = engine.decode(latents)
        written: list[int] = []
        engine.write(lambda: written.append(1))
    assert torch.equal(latents, again), "a window leaves nothing behind"
    assert not torch.equal(latents, other)
    assert (frames.shape, frames.dtype) == ((5, 32, 32, 3), np.uint8)
    assert (len(steps), len(written)) == (2, 1)
    assert set(timings) == {"hash weights", "encode text", "load model"}
    assert heard.notes[0].startswith("plan cpu: ")


def test_a_step_cache_forgets_between_windows() -> None:
    with open_engine(_job(steps=4, cache="first-block"), EngineSettings(), reporter=Heard(), timings={}) as engine:
        first, second = (engine.sample(RGB, OBSERVED, seed=1, window=i, on_step=lambda: None) for i in range(2))
        assert torch.equal(first, second)
        assert engine.describe()["cache"] == "first-block"


def test_what_it_says_of_itself_is_json() -> None:
    engine = Engine(_job(vae_dtype="bf16"), EngineSettings(), Heard())
    record = json.loads(json.dumps(engine.describe()))
    assert record["processes"] == 1
    assert set(record["versions"]) >= {"torch", "diffusers", "transformers", "peft"}
    assert record["versions"]["torch"] == torch.__version__


def test_the_plan_is_for_the_weights_at_hand(tmp_path: Path) -> None:
    """A folder may hold a smaller model than the released one: it is planned by its own config."""
    save_tiny(tmp_path / "base")
    config = tiny_config(weights=str(tmp_path / "base"))
    weights = find_weights(config)
    assert weights == WeightPaths(base=tmp_path / "base", adapter=tmp_path / "base")
    choice, work, size = choose_for(config, weights, inspect_for(weights), job=None)
    assert choice.plan.name == "cpu"
    assert size.num_blocks == CONFIGS["transformer"]["num_layers"]
    assert size.params < 1e6
    assert (work.num_frames, work.height, work.width) == (9, 512, 512)
    assert check_generation(config) == weights
    stored = json.loads((tmp_path / "base/transformer/config.json").read_text())
    stored.update(num_attention_heads=40, attention_head_dim=128, ffn_dim=13824, num_layers=40, image_dim=1280)
    (tmp_path / "base/transformer/config.json").write_text(json.dumps(stored))
    machine = Machine(device="cpu", name="CPU", host_gib=16)
    with pytest.raises(ConfigError, match=r"NVIDIA GPU.*--plan cpu.*--weights tiny"):
        choose_for(config, weights, machine, job=None)
    with pytest.raises(OutOfMemoryError, match="host memory for --plan cpu"):
        choose_for(tiny_config(weights=str(tmp_path / "base"), plan="cpu"), weights, machine, job=None)


def test_the_plan_is_for_the_windows_of_the_job() -> None:
    job = plan_job(ArrayView(50, 64, 64), tiny_config(size="64x96", tile="32x32", window_frames=29), seed=0)
    _, work, _ = choose_for(job.config, WeightPaths(), GPU, job=job)
    assert (work.num_frames, work.height, work.width, work.tile) == (29, 64, 96, (32, 32))


def test_how_a_job_is_shared_out() -> None:
    """Four heads; 2 latent frames of 2x2 tokens."""
    plan = plan_processes(_job(), 4)
    assert (plan.cfg_degree, plan.context_degree) == (2, 2)
    assert plan_processes(_job(guidance_scale=1.0), 4).cfg_degree == 1
    with pytest.raises(ConfigError, match="--gpus 1, 2"):
        plan_processes(_job(), 3)
