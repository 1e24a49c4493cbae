"""`ex4d prepare` as typed: flags, summary, exit codes."""

import json
from pathlib import Path

import pytest

from cli.cli_tools import Outcome, ex4d
from dataset.dataset_tools import write_dataset
from ex4d.cli.prepare import PrepareCommand
from ex4d.errors import ConfigError
from ex4d.jobs.local import LocalExecutor
from ex4d.jobs.ray_cluster import RayExecutor
from prepare.prepare_tools import BUCKET, pan, write_clip

SMALL = ("--bucket", BUCKET, "--depth", "layout", "--workers", "1")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    write_clip(folder / "a.mp4", pan(1, 6))
    (folder / "b.mp4").write_text("no video", "utf-8")
    return folder


def test_a_dataset(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "ds"
    done = ex4d(capsys, "prepare", clips, "-o", out, *SMALL, "--num-masks", "3", "--seed", "5")
    assert done.code == 0, done.err
    assert f"{out}: 1 samples (1 of 5x48x64) in 1 shards" in done.out
    assert "left out: 1 media" in done.out
    assert "2 clips in" in done.out
    for stage in ("decode", "depth", "masks", "encode"):
        assert f"  {stage} " in done.out
    info = json.loads((out / "dataset.json").read_text("utf-8"))
    assert info["config"]["sample"]["num_masks"] == 3
    assert info["config"]["seed"] == 5
    again = ex4d(capsys, "prepare", clips, "-o", out, *SMALL, "--num-masks", "3", "--seed", "5")
    assert "nothing was left to do" in again.out
    other = ex4d(capsys, "prepare", clips, "-o", out, *SMALL)
    assert other.code == 2
    assert "config.sample.num_masks" in other.err


def refused(capsys: pytest.CaptureFixture[str], *words: str | Path) -> Outcome:
    outcome = ex4d(capsys, "prepare", *words)
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.count("\n") == 1
    return outcome


def test_bad_input_is_one_line_and_exit_code_2(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.jsonl").write_text("{", "utf-8")
    assert "no INPUT" in refused(capsys).err
    assert "no -o" in refused(capsys, clips).err
    assert "nothing at" in refused(capsys, tmp_path / "gone", "-o", out).err
    assert "at least one clip" in refused(capsys, tmp_path / "empty", "-o", out).err
    assert "line 1 of broken.jsonl" in refused(capsys, tmp_path / "broken.jsonl", "-o", out).err
    assert "4k+1" in refused(capsys, clips, "-o", out, "--bucket", "48x512x512").err
    assert "--shard" in refused(capsys, clips, "-o", out, "--shard", "2/2").err
    assert "--executor ray" in refused(capsys, clips, "-o", out, "--ray-address", "auto").err
    assert "no -o" in refused(capsys, clips, "-o", out, "--latents", "tiny").err
    assert "no dataset.json" in refused(capsys, clips, "--latents", "tiny").err
    for executor in ("local", "ray"):
        assert "--workers" in refused(capsys, clips, "-o", out, "--executor", executor, "--workers", "0").err
    assert "--area" in refused(capsys, clips, "-o", out, "--area", "0").err
    assert not out.exists()


def test_a_cluster_that_does_not_answer_is_one_error(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ray = ("--executor", "ray", "--ray-address", "127.0.0.1:1")
    done = ex4d(capsys, "prepare", clips, "-o", tmp_path / "out", *SMALL, *ray)
    assert (done.code, done.out) == (2, "")
    assert done.err.count("expected") == done.err.count("to fix") == 1
    assert "a Ray cluster at 127.0.0.1:1" in done.err
    assert not (tmp_path / "out").exists()


def test_a_plan_alone_writes_nothing(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = ex4d(capsys, "prepare", clips, "-o", tmp_path / "out", *SMALL, "--plan-only")
    assert done.code == 0
    assert done.out.startswith("2 clips in 1 shards, plan ")
    assert not (tmp_path / "out").exists()
    table = tmp_path / "clips.jsonl"
    table.write_text('{"path": "a.mp4"}\n{"path": "gone.mp4"}\n', "utf-8")
    done = ex4d(capsys, "prepare", table, "--root", clips, "-o", tmp_path / "out", *SMALL, "--plan-only")
    assert done.out.splitlines()[1:] == ["  1 of them missing, e.g. gone.mp4"]


def test_flags_become_settings() -> None:
    command = PrepareCommand(num_frames=(9, 25), area=256, fps=8.0, min_score=("aesthetic=5",), rendering_share=1.0)
    config = command.config()
    assert len(config.buckets.buckets) == 10
    assert config.gates.score_floors() == {"aesthetic": 5.0}
    assert config.sample.masks.rendering_share == 1.0
    assert isinstance(command.make_executor(use_gpu=False), LocalExecutor)
    assert command.make_executor(use_gpu=True) == LocalExecutor(num_workers=1)
    ray = PrepareCommand(executor="ray", workers=3).make_executor(use_gpu=True)
    assert ray == RayExecutor(num_workers=3, use_gpus=True)
    with pytest.raises(ConfigError, match="--bucket"):
        PrepareCommand(bucket=("49x512x512",), area=512).config()


def test_a_damaged_dataset_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    write_dataset(tmp_path / "ds")
    (tmp_path / "ds" / "index.parquet").write_bytes(b"")
    assert "other bytes" in refused(capsys, tmp_path / "ds", "--latents", "tiny").err
