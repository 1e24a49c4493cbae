"""`prepare` on tiny clips: good ones become samples, bad ones lines; reruns and parts give the same bytes."""

import errno
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ex4d.dataset.layout import shard_path
from ex4d.dataset.reader import Dataset
from ex4d.dataset.shards import record_path
from ex4d.errors import ConfigError, DatasetError, InputError, OutputError, WeightsError
from ex4d.io.atomic import output_error
from ex4d.jobs.executor import Part, WorkerFactory
from ex4d.jobs.local import LocalExecutor
from ex4d.jobs.ray_cluster import RayExecutor
from ex4d.prepare.config import SampleConfig, WorkConfig
from ex4d.prepare.plan import make_plan, open_source
from ex4d.prepare.run import Prepared, prepare
from prepare.prepare_tools import HEIGHT, WIDTH, pan, small_config, tree, write_clip

CONFIG = small_config()


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of every kind; the names give the order."""
    folder = tmp_path_factory.mktemp("clips")
    write_clip(folder / "a.mp4", pan(1, 7))
    write_clip(folder / "b black.mp4", np.full((6, HEIGHT, WIDTH, 3), 4, np.uint8))
    write_clip(folder / "c.cut.mp4", np.concatenate([pan(2, 7), pan(3, 6)]))
    (folder / "c.cut.txt").write_text("two shots\n", "utf-8")
    data = write_clip(folder / "whole.mp4", pan(4, 60)).read_bytes()
    (folder / "whole.mp4").unlink()
    (folder / "d_damaged.mp4").write_bytes(data[: len(data) // 2])
    write_clip(folder / "e_short.mp4", pan(5, 4))
    write_clip(folder / "f_still.mp4", np.repeat(pan(6, 1), 8, axis=0))
    write_clip(folder / "nested" / "a copy.mp4", pan(1, 7))
    write_clip(folder / "tiny.mp4", pan(7, 6)[:, :32, :32])
    return folder


def run(clips: Path, folder: Path, *, part: str | None = None) -> Prepared:
    return prepare(
        open_source(clips),
        folder,
        CONFIG,
        LocalExecutor(num_workers=1),
        part=None if part is None else Part.parse(part),
    )


@pytest.fixture(scope="module")
def made(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return run(clips, tmp_path_factory.mktemp("made") / "ds")


@pytest.fixture(scope="module")
def dataset(made: Prepared) -> Iterator[Dataset]:
    opened = Dataset.open(made.folder)
    yield opened
    opened.close()


def test_bad_clips_are_recorded_with_a_reason(made: Prepared) -> None:
    lines = [json.loads(line) for line in (made.folder / "errors.jsonl").read_text("utf-8").splitlines()]
    found = {(line["item"], line["segment"]): line["reason"] for line in lines}
    copy = next(item for item, _ in found if item.startswith("nested-a-copy-"))
    assert found == {
        ("b black.mp4", 0): "black",
        ("d_damaged.mp4", None): "media",
        ("e_short.mp4", None): "short",
        ("f_still.mp4", 0): "still",
        ("tiny.mp4", None): "small",
        (copy, None): "duplicate",
    }
    assert made.info is not None
    assert made.info["num_left"] == dict.fromkeys(sorted(found.values()), 1)
    assert all(line["text"] and line["text"].isprintable() for line in lines)


def test_samples_are_segments_that_cross_no_cut(made: Prepared, dataset: Dataset) -> None:
    assert dataset.verify() == 3
    samples = [dataset.read(number) for number in range(3)]
    assert [sample.info["item"] for sample in samples] == ["a.mp4", "c.cut.mp4", "c.cut.mp4"]
    assert [sample.info["start_s"] for sample in samples] == [0.0, 0.0, 7 / 8]
    assert [sample.caption for sample in samples] == ["", "two shots", "two shots"]
    for sample, seed in zip(samples, (1, 2, 3), strict=True):
        away = [np.abs(sample.video.frames.astype(int) - pan(other, 5)).mean() for other in (1, 2, 3)]
        assert away[seed - 1] < 10 < min(away[: seed - 1] + away[seed:])
        assert sample.survived.shape == (2, 5, HEIGHT, WIDTH)
        assert sample.survived.any()
        assert not sample.survived.all()
        assert [mask["kind"] in ("rendering", "tracking") for mask in sample.info["masks"]] == [True, True]
    assert samples[1].info["masks"][0]["seed"] != samples[2].info["masks"][0]["seed"]


def test_nothing_but_the_dataset_is_left(made: Prepared) -> None:
    names = set(tree(made.folder))
    shards = {f"shards/shard-00000{k}.{suffix}" for k in range(3) for suffix in ("tar", "json")}
    assert names == shards | {"plan.jsonl", "index.parquet", "errors.jsonl", "dataset.json"}
    timings = json.loads((made.folder / "timings.json").read_text("utf-8"))
    assert timings["clips"] == 8
    assert set(timings["seconds"]) == {"decode", "cuts", "gates", "depth", "masks", "encode"}


def test_two_parts_give_the_same_bytes(made: Prepared, clips: Path, tmp_path: Path) -> None:
    second = run(clips, tmp_path / "ds", part="1/2")
    assert second.info is None
    assert (second.num_made, second.num_missing) == (1, 2)
    with pytest.raises(DatasetError, match="not finished"):
        Dataset.open(tmp_path / "ds")
    first = run(clips, tmp_path / "ds", part="0/2")
    assert first.info == made.info
    assert tree(tmp_path / "ds") == tree(made.folder)
    assert json.loads((tmp_path / "ds" / "timings.json").read_text("utf-8"))["clips"] == 8


def test_a_rerun_makes_only_what_is_missing(made: Prepared, clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ds"
    shutil.copytree(made.folder, folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    again = run(clips, folder)
    assert (again.num_made, again.info) == (0, made.info)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before
    tar = shard_path(folder, 0)
    record_path(tar).unlink()
    tar.write_bytes(b"half a shard")
    (tar.parent / ".shard-000000.0123abcd.tmp.tar").write_bytes(b"of a killed run")
    again = run(clips, folder)
    assert again.num_made == 1
    assert tree(folder) == tree(made.folder)


def test_a_dataset_of_other_settings_or_clips_is_refused(made: Prepared, clips: Path, tmp_path: Path) -> None:
    executor = LocalExecutor(num_workers=1)
    with pytest.raises(DatasetError, match=r"config\.sample\.crf"):
        prepare(open_source(clips), made.folder, replace(CONFIG, sample=replace(CONFIG.sample, crf=20)), executor)
    shutil.copy(clips / "a.mp4", tmp_path / "a.mp4")
    with pytest.raises(DatasetError, match="num_items"):
        prepare(open_source(tmp_path), made.folder, CONFIG, executor)
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine", "utf-8")
    with pytest.raises(OutputError, match=r"notes\.txt"):
        prepare(open_source(clips), other, CONFIG, executor)
    assert [path.name for path in other.iterdir()] == ["notes.txt"]


def test_two_runs_at_once_are_kept_apart(made: Prepared, clips: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    (made.folder / ".ex4d-work").mkdir()
    try:
        with (made.folder / ".ex4d-work" / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            with pytest.raises(OutputError, match="no other run"):
                run(clips, made.folder)
            run(clips, made.folder, part="0/2")
    finally:
        shutil.rmtree(made.folder / ".ex4d-work", ignore_errors=True)


def test_clips_that_all_fail_are_one_clear_error(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(clips / "a.mp4", tmp_path / "in" / "a.mp4")
    work = WorkConfig(timeout_s=0.02, retries=1)
    with pytest.raises(DatasetError, match=r"none \(1 timeout\), e\.g\. a\.mp4: timeout: no result within 0\.02 s"):
        prepare(open_source(tmp_path / "in"), tmp_path / "ds", CONFIG, LocalExecutor(num_workers=1), work=work)
    assert not (tmp_path / "ds").exists()


def test_a_run_that_made_nothing_does_not_refuse_a_corrected_command(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(7):
        (tmp_path / "in" / f"{number}.mp4").write_text("no video", "utf-8")
    executor, out = LocalExecutor(num_workers=1), tmp_path / "ds"
    with pytest.raises(DatasetError, match=r"4\.mp4: media") as caught:
        prepare(open_source(tmp_path / "in"), out, CONFIG, executor)
    assert str(caught.value).count("to fix") == 1
    assert "5.mp4" not in str(caught.value)
    assert not out.exists()
    shutil.copy(clips / "a.mp4", tmp_path / "in" / "a.mp4")
    done = prepare(open_source(tmp_path / "in"), out, replace(CONFIG, seed=1), executor)
    assert done.info is not None
    assert done.info["num_samples"] == 1


class FullDisk:
    """Satisfies `Executor`: no room for the scratch file of any job."""

    def run(self, factory: WorkerFactory, jobs: Sequence[Any]) -> Iterator[Any]:
        raise output_error(Path("scratch-1") / "clip.mp4", OSError(errno.ENOSPC, "full"))


def test_a_full_disk_is_said_of_the_folder_and_leaves_nothing_new(made: Prepared, clips: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught:
        prepare(open_source(clips), tmp_path / "ds", CONFIG, FullDisk())
    assert caught.value.expected == f"to be able to write {tmp_path / 'ds'}"
    assert "full" in caught.value.got
    assert not (tmp_path / "ds").exists()
    folder = tmp_path / "begun"
    shutil.copytree(made.folder, folder)
    shard_path(folder, 1).unlink()
    with pytest.raises(OutputError):
        prepare(open_source(clips), folder, CONFIG, FullDisk())
    assert shard_path(folder, 0).exists(), "finished shards are kept"


@pytest.mark.parametrize(
    "name", ["index.parquet", "errors.jsonl", "dataset.json", "shards/shard-000001.tar", "shards/shard-000001.json"]
)
def test_a_rerun_mends_what_is_missing_or_other(made: Prepared, clips: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "ds"
    shutil.copytree(made.folder, folder)
    (folder / name).unlink()
    run(clips, folder)
    assert tree(folder) == tree(made.folder)
    if name.startswith("shards/") and name.endswith(".json"):
        return  # a record that cannot be read is an error of its own
    (folder / name).write_bytes((folder / name).read_bytes()[:-2])
    run(clips, folder)
    assert tree(folder) == tree(made.folder)


def test_a_rerun_mends_an_edited_fingerprint(made: Prepared, clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ds"
    shutil.copytree(made.folder, folder)
    info = json.loads((folder / "dataset.json").read_text("utf-8"))
    (folder / "dataset.json").write_text(json.dumps({**info, "fingerprint": "0" * 64}), "utf-8")
    with pytest.raises(DatasetError, match="fingerprint"):
        Dataset.open(folder)
    run(clips, folder)
    assert tree(folder) == tree(made.folder)


def test_what_can_be_known_early_is_said_early(clips: Path, tmp_path: Path) -> None:
    executor, out = LocalExecutor(num_workers=1), tmp_path / "out"
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="at least one clip"):
        prepare(open_source(tmp_path / "empty"), out, CONFIG, executor)
    for name in ("nothing", "table.xlsx"):
        with pytest.raises(InputError):
            open_source(tmp_path / name)
    with pytest.raises(OutputError, match="outside of its clips"):
        prepare(open_source(clips), clips / "ds", CONFIG, executor)
    with pytest.raises(WeightsError, match="depthcrafter"):
        prepare(open_source(clips), out, replace(CONFIG, sample=SampleConfig(depth="depthcrafter")), executor)
    (tmp_path / "depth.npz").write_bytes(b"")
    with pytest.raises(ConfigError, match="--depth"):
        prepare(
            open_source(clips), out, replace(CONFIG, sample=SampleConfig(depth=str(tmp_path / "depth.npz"))), executor
        )
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(OutputError):
        prepare(open_source(clips), tmp_path / "file", CONFIG, executor)
    assert not out.exists()


def test_the_plan_knows_every_setting_and_clip(clips: Path) -> None:
    source = open_source(clips)
    plan = make_plan(source, CONFIG)
    assert [item.name for item in plan.items] == sorted(item.name for item in plan.items)
    assert make_plan(source, CONFIG).hash == plan.hash
    assert make_plan(source, replace(CONFIG, seed=1)).hash != plan.hash
    assert plan.header["depth"]["name"] == "layout"
    assert [len(plan.shard(k)) for k in range(plan.num_shards)] == [3, 3, 2]


@pytest.mark.prove
def test_ray_gives_the_same_bytes(made: Prepared, clips: Path, tmp_path: Path) -> None:
    done = prepare(open_source(clips), tmp_path / "ds", CONFIG, RayExecutor(num_workers=2))
    assert done.num_made == 3
    assert tree(tmp_path / "ds") == tree(made.folder)
