"""Whole runs through the command line on a tiny clip: outputs, resuming, repeating, completing."""

import json
import os
from pathlib import Path

import pytest
from cli_tools import assert_published, ex4d, snapshot, write_clip, write_depth

from ex4d.pipeline.progress import ConsoleReporter

PRIOR_FILES = {
    "cameras.json", "color.mkv", "depth.mkv", "mask.mkv", "meshes/frame_000000.ply", "preview.mp4", "prior.json",
    "sheet.png", "source.mkv", "source_cameras.json", "source_depth.mkv", "timings.json",
}  # fmt: skip


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clip.mp4 and depth.npz."""
    folder = tmp_path_factory.mktemp("media")
    write_clip(folder / "clip.mp4")
    write_depth(folder / "depth.npz")
    return folder


@pytest.fixture
def words(media: Path) -> list[str | Path]:
    return ["run", media / "clip.mp4", "--depth", media / "depth.npz", "--cam", "30"]


def test_run_says_what_it_made(
    words: list[str | Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    seen = ex4d(capsys, *words)
    out = tmp_path / "clip_30"
    assert seen.code == 0
    assert "writing to clip_30" in seen.err
    assert set(snapshot(out)) == PRIOR_FILES | {"result.mp4"}
    assert_published(out)
    info = json.loads((out / "prior.json").read_text())
    mean, least = 100 * info["coverage_mean"], 100 * info["coverage_min"]
    assert f"observed {mean:.1f} % on average, at least {least:.1f} % (frame 3)" in seen.out
    for text in ("done in ", "seconds a stage: decode ", "fill 30 ", "result.mp4", "sheet.png", "timings.json"):
        assert text in seen.out
    assert "PREVIEW" not in seen.out + seen.err


def test_preview_depth_is_said_loudly(media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = ex4d(capsys, "recon", media / "clip.mp4", "--frames", "0:1", "-o", tmp_path / "out")
    assert seen.code == 0
    assert "!! PREVIEW DEPTH" in seen.out
    assert "--depth FILE" in seen.out
    assert set(snapshot(tmp_path / "out")) == PRIOR_FILES


def test_folders_that_are_taken(words: list[str | Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused; resumed when complete; replaced on request, without touching what is not ours."""
    out = tmp_path / "out"
    assert ex4d(capsys, *words, "-o", out).code == 0
    (out / "mine.txt").write_text("keep")
    (out / "meshes" / "mine.ply").write_text("keep")
    first = snapshot(out)

    refused = ex4d(capsys, *words, "-o", out)
    assert refused.code == 2
    assert "--resume" in refused.err
    assert "--overwrite" in refused.err
    resumed = ex4d(capsys, *words, "-o", out, "--resume")
    assert resumed.code == 0
    assert f"nothing to do: {out} is complete" in resumed.out
    other = ex4d(capsys, *words, "-o", out, "--resume", "--seed", "1")
    assert other.code == 2
    assert "to fix: use --overwrite" in other.err
    assert snapshot(out) == first

    assert ex4d(capsys, *words, "-o", out, "--overwrite").code == 0
    assert snapshot(out, skip=["timings.json"]) == {k: v for k, v in first.items() if k != "timings.json"}
    assert ex4d(capsys, "recon", *words[1:], "-o", out, "--overwrite").code == 0
    left = set(snapshot(out))
    assert left == PRIOR_FILES | {"mine.txt", "meshes/mine.ply"}, "the earlier result is of another run"
    assert_published(out)


@pytest.fixture(scope="module")
def whole(media: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Hashes of an uninterrupted run of two cameras."""
    from ex4d.cli.main import main

    out = tmp_path_factory.mktemp("whole") / "out"
    assert main(two_cameras(media, out)) == 0
    return snapshot(out, skip=["timings.json"])


def two_cameras(media: Path, out: Path) -> list[str]:
    clip, depth = str(media / "clip.mp4"), str(media / "depth.npz")
    return ["run", clip, "--depth", depth, "--cam", "30", "--cam", "full", "--frames", "1:4", "-o", str(out)]


@pytest.mark.parametrize("stage", ["decode", "render full", "fill full"])
def test_interrupted_then_resumed_is_the_same(
    stage: str,
    media: Path,
    whole: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    words = two_cameras(media, out)
    with monkeypatch.context() as patch:
        patch.setattr(ConsoleReporter, "begin", stop_at(stage))
        stopped = ex4d(capsys, *words)
    assert stopped.code == 130
    assert f"interrupted; finished stages are kept in {out}" in stopped.err.splitlines()[-1]
    assert sorted(path.name for path in out.iterdir()) == [".ex4d-work"], "nothing under a final name yet"
    assert ex4d(capsys, *words).code == 2, "an unfinished run is not overwritten unasked"
    assert ex4d(capsys, *words, "--resume").code == 0
    assert snapshot(out, skip=["timings.json"]) == whole
    assert_published(out)


def stop_at(name: str):
    """A `begin` that stands for Ctrl-C at the start of a stage."""

    def begin(reporter: ConsoleReporter, stage: str, total: int | None, unit: str = "frames") -> None:
        if stage == name:
            raise KeyboardInterrupt

    return begin


@pytest.mark.parametrize("num_moves", [0, 5, 20])
def test_killed_while_publishing_then_resumed_is_the_same(
    num_moves: int,
    media: Path,
    whole: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Files move one by one: a run killed between two moves is neither lost nor half there for good."""
    out = tmp_path / "out"
    words = two_cameras(media, out)
    replace = Path.replace
    moved: list[Path] = []

    def move(path: Path, target: Path) -> Path:
        if ".tmp" not in path.name and Path(target).is_relative_to(out) and ".ex4d-work" not in Path(target).parts:
            if len(moved) == num_moves:
                raise KeyboardInterrupt
            moved.append(Path(target))
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", move)
        assert ex4d(capsys, *words).code == 130
    assert len(moved) == num_moves
    assert ex4d(capsys, *words, "--resume").code == 0
    assert snapshot(out, skip=["timings.json"]) == whole
    assert_published(out)


def test_from_repeats_a_run(media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, again, other = tmp_path / "first", tmp_path / "again", tmp_path / "other"
    clip, depth = media / "clip.mp4", media / "depth.npz"
    words = [clip, "--depth", depth, "--cam", "orbit-left:20", "--frames", "1:3", "--seed", "7", "--pivot", "2.5"]
    assert ex4d(capsys, "recon", *words, "-o", first).code == 0
    assert ex4d(capsys, "run", "--from", first / "prior.json", "-o", again).code == 0
    assert snapshot(again, skip=["timings.json"]) == snapshot(first, skip=["timings.json"])
    assert ex4d(capsys, "recon", "--from", first, "--cam", "-10", "--seed", "8", "-o", other).code == 0
    old, new = (json.loads((folder / "prior.json").read_text())["config"] for folder in (first, other))
    assert (new["camera"].pop("cam"), new.pop("seed")) == (["-10"], 8)
    assert (old["camera"].pop("cam"), old.pop("seed")) == (["orbit-left:20"], 7)
    assert new == old


def test_recon_then_fill(media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two cameras: both folders are completed, as `run` would have."""
    out, whole = tmp_path / "out", tmp_path / "whole"
    words = [media / "clip.mp4", "--depth", media / "depth.npz", "--cam", "30", "--cam", "dolly-in"]
    words += ["--frames", "0:2"]
    assert ex4d(capsys, "recon", *words, "-o", out).code == 0
    assert ex4d(capsys, "run", *words, "-o", whole).code == 0
    filled = ex4d(capsys, "fill", out)
    results = [out / camera / "result.mp4" for camera in ("30", "dolly-in")]
    assert filled.code == 0
    assert filled.out.split() == [str(path) for path in results]
    stored = json.loads((results[0].parent / "prior.json").read_text("utf-8"))
    assert stored["result"]["generator"] == "fill"
    for path in results:
        assert path.read_bytes() == (whole / path.relative_to(out)).read_bytes()
    before = snapshot(out)
    refused = ex4d(capsys, "fill", out)
    assert refused.code == 2
    assert "--overwrite" in refused.err
    assert snapshot(out) == before
    assert ex4d(capsys, "fill", out / "30", "--overwrite").code == 0


@pytest.mark.parametrize("name", ["café 動画 [x].mp4", "späť"])
def test_names_of_any_language(name: str, media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip, out = tmp_path / name, tmp_path / f"aus gabe {name}"
    clip.write_bytes((media / "clip.mp4").read_bytes())
    seen = ex4d(capsys, "recon", clip, "--frames", "0:1", "-o", out)
    assert seen.code == 0, seen.err
    assert str(out) in seen.out
    assert json.loads((out / "prior.json").read_text("utf-8"))["input"]["name"] == name


@pytest.mark.skipif(os.name == "nt" or os.getuid() == 0, reason="root may write anywhere, Windows has other rights")
def test_a_folder_that_may_not_be_written(
    words: list[str | Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.chmod(0o500)
    try:
        seen = ex4d(capsys, *words, "-o", tmp_path / "out")
    finally:
        tmp_path.chmod(0o700)
    assert seen.code == 2
    assert "no permission" in seen.err
