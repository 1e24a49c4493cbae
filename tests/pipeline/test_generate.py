"""Generation on tiny views with the random miniature: windows, bytes, resuming, what is recorded."""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ex4d.core.arrays import Bool, UInt8
from ex4d.errors import ConfigError, InputError
from ex4d.io.video import VideoReader, probe_video
from ex4d.model.config import GenerateConfig
from ex4d.model.windows import fade_weights
from ex4d.pipeline.engine import Engine
from ex4d.pipeline.generate import generate_windows, iter_result, run_job, write_result
from ex4d.pipeline.generation_job import EngineSettings, GenerationJob, plan_job
from ex4d.pipeline.window_store import WindowStore
from generation_tools import HEIGHT, NUM, WIDTH, ArrayView, Heard, tiny_config

torch.set_num_threads(1)  # tensors this small are slower with several
FPS = Fraction(24)


class Watched(Engine):
    """The engine, and what went in and out of `sample`."""

    def __init__(self, job: GenerationJob) -> None:
        super().__init__(job, EngineSettings(), Heard())
        self.given: list[tuple[UInt8, Bool, int]] = []
        self.sampled: list[torch.Tensor] = []

    def sample(self, rgb: UInt8, observed: Bool, *, seed: int, **more: Any) -> torch.Tensor:
        latents = super().sample(rgb, observed, seed=seed, **more)
        self.given.append((rgb.copy(), observed.copy(), seed))
        self.sampled.append(latents.clone())
        return latents

    def opened(self) -> AbstractContextManager[Engine]:
        @contextmanager
        def loaded() -> Iterator[Engine]:
            self.load({})
            yield self

        return loaded()


def _run(source: ArrayView, config: GenerateConfig, folder: Path, *, seed: int = 0) -> tuple[dict[str, Any], UInt8]:
    """The record of a job and the frames of its video."""
    folder.mkdir(parents=True, exist_ok=True)
    job = plan_job(source, config, seed=seed)
    record, shown = run_job(
        job, folder / "result.mp4", work=folder / "work", fps=FPS, audio=None, reporter=Heard(), timings={}
    )
    assert {frame.shape for frame in shown.values()} == {(source.height, source.width, 3)}
    with VideoReader(folder / "result.mp4") as reader:
        chunks = list(reader)
    times = np.concatenate([chunk.timestamps_s for chunk in chunks])
    assert times == pytest.approx(source.timestamps_s, abs=1e-3)
    return record, np.concatenate([chunk.frames for chunk in chunks])


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> tuple[Watched, WindowStore, list[dict[str, Any]]]:
    """Three windows of 13 frames that share 9 of them: two latent frames are faded."""
    config = tiny_config(window_frames=13, overlap_frames=9)
    engine = Watched(plan_job(ArrayView(21), config, seed=7))
    store = WindowStore(tmp_path_factory.mktemp("long") / "windows")
    records = generate_windows(engine._job, store, engine.opened, reporter=Heard(), timings={})
    return engine, store, records


def test_windows_see_the_frames_of_the_one_before(long: tuple[Watched, WindowStore, list[dict[str, Any]]]) -> None:
    engine, store, _ = long
    windows = engine._job.windows
    assert [(window.start, window.num_frames) for window in windows] == [(0, 13), (4, 13), (8, 13)]
    for index in (1, 2):
        rgb, observed, _ = engine.given[index]
        assert np.array_equal(rgb[:9], store.frames(index - 1, 4, 13)), "as generated, not as rendered"
        assert observed[:9].all()
        assert not observed[9:].all()
    assert not engine.given[0][1].all()


def test_shared_latents_are_faded(long: tuple[Watched, WindowStore, list[dict[str, Any]]]) -> None:
    engine, store, _ = long
    weights = fade_weights(2)
    for index in (1, 2):
        before, own, kept = store.latents(index - 1), engine.sampled[index], store.latents(index)
        assert torch.equal(kept[:, :, 0], own[:, :, 0])
        assert torch.equal(kept[:, :, 3], own[:, :, 3])
        for offset, weight in enumerate(weights, start=1):
            want = before[:, :, 1 + offset] * (1 - weight) + own[:, :, offset] * weight
            assert torch.allclose(kept[:, :, offset], want, atol=1e-6)
            assert not torch.allclose(kept[:, :, offset], own[:, :, offset], atol=1e-3)
    assert torch.equal(store.latents(0), engine.sampled[0])


def test_every_window_has_its_own_noise(long: tuple[Watched, WindowStore, list[dict[str, Any]]]) -> None:
    engine, _, records = long
    seeds = [seed for _, _, seed in engine.given]
    assert seeds[0] == 7, "the clip's own, as the release"
    assert len(set(seeds)) == 3
    assert [record["seed"] for record in records] == seeds
    assert [record["window"] for record in records] == [asdict(window) for window in engine._job.windows]


def test_frames_come_from_windows_in_turn(long: tuple[Watched, WindowStore, list[dict[str, Any]]]) -> None:
    """A window's first frame is only shared: the one before has its latent alone."""
    engine, store, _ = long
    parts = list(iter_result(engine._job, store))
    assert [(start, len(frames)) for start, frames in parts] == [(0, 5), (5, 4), (9, 12)]
    box = (slice(None), slice(0, 20))  # above the stamp
    for index, (start, frames) in enumerate(parts):
        first = start - engine._job.windows[index].start
        assert np.array_equal(frames[box], store.frames(index, first, first + len(frames))[box])


def test_finished_windows_need_no_model(long: tuple[Watched, WindowStore, list[dict[str, Any]]]) -> None:
    engine, store, records = long

    def refuse() -> AbstractContextManager[Engine]:
        raise AssertionError("nothing is left to compute")

    assert generate_windows(engine._job, store, refuse, reporter=Heard(), timings={}) == json.loads(json.dumps(records))


@pytest.mark.parametrize("num_frames", [1, 2, 4, 5, 8, 50])
def test_as_many_frames_as_went_in(num_frames: int, tmp_path: Path) -> None:
    config = tiny_config(window_frames=29, overlap_frames=5)
    record, frames = _run(ArrayView(num_frames), config, tmp_path)
    assert frames.shape == (num_frames, 32, 32, 3)
    last = record["windows"][-1]["window"]
    padding = last["start"] + last["num_frames"] - num_frames
    told = [notice for notice in record["notices"] if notice.startswith("the last frame was repeated")]
    assert (len(told), f"({padding} more)" in "".join(told)) == ((1, True) if padding else (0, False))


def test_one_seed_one_result(tmp_path: Path) -> None:
    config = tiny_config(steps=2)
    results = {}
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        _run(ArrayView(5), config, tmp_path / name, seed=seed)
        results[name] = (tmp_path / name / "result.mp4").read_bytes()
    assert results["a"] == results["b"] != results["c"]


@pytest.mark.parametrize(
    ("changes", "model", "result"),
    [
        ({"size": "auto"}, (160, 112), (160, 112)),
        ({"size": "auto", "output_size": "source"}, (160, 112), (48, 33)),
        ({"size": "auto", "square": True}, (128, 128), (128, 128)),
        ({"size": "auto", "weights": "480p"}, (624, 432), (624, 432)),
        ({"size": "auto", "weights": "480p", "square": True}, (512, 512), (512, 512)),
        ({"size": "48x32"}, (48, 32), (48, 32)),
    ],
)
def test_sizes(changes: dict[str, Any], model: tuple[int, int], result: tuple[int, int]) -> None:
    """Of a portrait clip."""
    job = plan_job(ArrayView(5, 48, 33), tiny_config(**changes), seed=0)
    assert (job.height, job.width) == model
    assert job.output_size == result


def test_a_result_at_the_sources_size(tmp_path: Path) -> None:
    """H.264 rounds odd sides up, and says so."""
    record, frames = _run(ArrayView(5, 48, 33), tiny_config(size="32x32", output_size="source"), tmp_path)
    assert frames.shape[1:3] == (48, 34)
    assert (record["height"], record["width"]) == (48, 33)
    assert any("33x48 was padded to 34x48" in notice for notice in record["notices"])
    assert "generated at 32x32, 31.2 % off the clip's aspect: as --size asks" in record["notices"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> UInt8:
    """Frames of the smallest job."""
    return _run(ArrayView(5), tiny_config(), tmp_path_factory.mktemp("plain"))[1]


def test_tiles(plain: UInt8, tmp_path: Path) -> None:
    """A tile that holds the frame changes nothing; smaller ones do."""
    assert np.array_equal(_run(ArrayView(5), tiny_config(tile="64x64"), tmp_path / "one")[1], plain)
    whole, tiled = (
        _run(ArrayView(5), tiny_config(size="32x48", tile=tile), tmp_path / tile)[1] for tile in ("off", "32x32")
    )
    assert not np.array_equal(whole, tiled)
    assert np.abs(whole.astype(int) - tiled).mean() < 60
    with pytest.raises(ConfigError, match="--tile"):
        tiny_config(tile="16x16")


@pytest.mark.parametrize("changes", [{"plan": "bf16"}, {"plan": "int8"}, {"vae_dtype": "bf16"}, {"preset": "draft"}])
def test_settings_that_change_the_result(changes: dict[str, Any], plain: UInt8, tmp_path: Path) -> None:
    record, frames = _run(ArrayView(5), tiny_config(**changes), tmp_path)
    assert not np.array_equal(frames, plain)
    assert record["settings"] == asdict(tiny_config(**changes))
    assert record["plan"] == changes.get("plan", "cpu")
    assert record["fuse_lora"] == (changes in ({"plan": "int8"}, {"preset": "draft"}))
    assert any("draft" in notice for notice in record["notices"]) == ("preset" in changes)
    if "preset" not in changes:
        assert np.abs(frames.astype(int) - plain).mean() < 20, "less precise, but the same picture"


def test_offloaded_blocks_compute_the_same(tmp_path: Path) -> None:
    offloaded, resident = (
        _run(ArrayView(5), tiny_config(plan=plan), tmp_path / plan)[1] for plan in ("offload", "bf16")
    )
    assert np.array_equal(offloaded, resident)


def test_random_weights_say_so_on_every_frame(tmp_path: Path) -> None:
    record, frames = _run(ArrayView(5, 96, 96), tiny_config(size="96x96"), tmp_path)
    job = plan_job(ArrayView(5, 96, 96), tiny_config(size="96x96"), seed=0)
    plain = WindowStore(tmp_path / "work").frames(0, 0, 5)
    stamped = np.concatenate([part for _, part in iter_result(job, WindowStore(tmp_path / "work"))])
    corner = (slice(None), slice(86, 96), slice(0, 40))
    assert np.array_equal(stamped[:, :80], plain[:, :80])
    for frame in stamped[corner]:
        assert frame.min() < 30, "a dark box …"
        assert frame.max() > 150, "… with light letters"
    assert np.abs(frames.astype(int) - stamped).mean() < 16, "and in the video too"
    assert "made by random weights" in record["notices"][0]


def test_previews_and_the_number_of_steps(tmp_path: Path) -> None:
    """Guesses are frames of the window; showing them changes nothing."""
    shown: list[tuple[int, int, UInt8]] = []
    settings = EngineSettings(preview_every=2, on_preview=lambda *what: shown.append(what))
    heard = Heard()
    job = plan_job(ArrayView(), tiny_config(steps=3), seed=0)
    run_job(
        job, tmp_path / "a.mp4", work=tmp_path / "a", fps=FPS, audio=None, reporter=heard, timings={}, settings=settings
    )
    run_job(job, tmp_path / "b.mp4", work=tmp_path / "b", fps=FPS, audio=None, reporter=Heard(), timings={})
    assert [(window, step) for window, step, _ in shown] == [(0, 2), (1, 2)]
    assert {frames.shape for _, _, frames in shown} == {(9, 32, 32, 3)}
    assert ("generate", 6, "steps") in heard.stages
    assert heard.done["generate"] == 6
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_the_average_rate_is_the_sources(tmp_path: Path) -> None:
    source = ArrayView(5)
    source.timestamps_s = np.arange(5) * 1001 / 30000
    job = plan_job(source, tiny_config(), seed=0)
    store = WindowStore(tmp_path / "work")
    engine = Watched(job)
    generate_windows(job, store, engine.opened, reporter=Heard(), timings={})
    path = tmp_path / "result.mp4"
    write_result(job, store, path, fps=Fraction(30000, 1001), audio=None, reporter=Heard(), timings={})
    assert probe_video(path).fps == Fraction(30000, 1001)


@pytest.mark.parametrize("suffix", ["mkv", "safetensors", "json"])
@pytest.mark.parametrize("damage", ["cut off", "gone"])
def test_damaged_windows_are_named(
    suffix: str, damage: str, long: tuple[Watched, WindowStore, list[dict[str, Any]]], tmp_path: Path
) -> None:
    _, store, _ = long
    for file in store._folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    file = tmp_path / f"window_0001.{suffix}"
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:200])
    copy = WindowStore(tmp_path)
    if (suffix, damage) == ("json", "gone"):
        assert copy.record(1) is None, "the record comes last: without it the window is not finished"
        return
    with pytest.raises(InputError, match=r"finished window 1.*--overwrite"):
        copy.record(1), copy.frames(1, 0, 5), copy.latents(1)  # pyright: ignore[reportUnusedExpression]


def test_pictures_are_shown_at_the_sources_size(tmp_path: Path) -> None:
    """Of the contact sheet; they are the frames of the result."""
    job = plan_job(ArrayView(), tiny_config(), seed=0)
    _, shown = run_job(job, tmp_path / "a.mp4", work=tmp_path / "a", fps=FPS, audio=None, reporter=Heard(), timings={})
    assert set(shown) >= {0, NUM - 1}
    first = np.concatenate([part for _, part in iter_result(job, WindowStore(tmp_path / "a"))])[0]
    small = np.asarray(Image.fromarray(shown[0]).resize((32, 32), Image.Resampling.BOX))
    assert shown[0].shape == (HEIGHT, WIDTH, 3)
    assert np.abs(small.astype(int) - first).mean() < 12
