"""`ex4d depth`, and what `ex4d doctor` says of estimators."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cli_tools import assert_published, depth_maps, ex4d, snapshot, write_clip, write_depth

from ex4d.depth import registry, source
from ex4d.depth.estimator import DepthEstimator
from ex4d.depth.layout import LayoutEstimator
from ex4d.depth.pretrained.depth_anything import DepthAnythingEstimator
from ex4d.depth.pretrained.depthcrafter import DepthCrafterEstimator
from ex4d.depth.pretrained.moge import MogeEstimator
from ex4d.pipeline import depth_weights, ingest
from ex4d.pipeline.progress import ConsoleReporter

Words = list[str | Path]


@pytest.fixture(autouse=True)
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """EX4D_WEIGHTS of each test: empty."""
    monkeypatch.setenv("EX4D_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("EX4D_CACHE", str(tmp_path / "cache"))
    return tmp_path / "weights"


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clip.mp4 and depth.npz."""
    folder = tmp_path_factory.mktemp("media")
    write_clip(folder / "clip.mp4")
    write_depth(folder / "depth.npz")
    return folder


@pytest.fixture
def words(media: Path) -> Words:
    return ["depth", media / "clip.mp4", "--depth", media / "depth.npz"]


@pytest.fixture
def estimators(monkeypatch: pytest.MonkeyPatch) -> tuple[DepthEstimator, ...]:
    """Some of every kind, none of them with weights here."""
    found = (DepthAnythingEstimator(name="da2-small"), MogeEstimator(), DepthCrafterEstimator(), LayoutEstimator())
    for module in (registry, source, depth_weights):
        monkeypatch.setattr(module, "ESTIMATORS", found)
        monkeypatch.setattr(module, "AUTO", ("da2-small", "layout"))
    monkeypatch.setattr(ingest, "ESTIMATOR_NAMES", tuple(one.name for one in found))
    return found


def test_it_says_what_it_made(
    words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    seen = ex4d(capsys, *words, "--format", "npz", "--format", "mkv")
    assert seen.code == 0
    assert "writing to clip_depth" in seen.err
    out = tmp_path / "clip_depth"
    assert_published(out)
    stats = json.loads((out / "stats.json").read_text())
    for text in (
        "4 frames of 48x32", "depth: file, depth from depth.npz", "nearest 2, median 4, farthest 4, unknown unit",
        "known 100.0 %", f"flicker {100 * stats['mean']['flicker']:.2f} % a frame", "source camera: ",
        stats["intrinsics"], "clip_depth/preview.mp4", "--depth clip_depth/depth.npz", "clip_depth/depth.mkv",
        "stats.json", "seconds a stage: decode ",
    ):  # fmt: skip
        assert text in seen.out, text
    assert "PREVIEW" not in seen.out
    assert "depth.exr" not in seen.out


def test_a_stand_in_is_said_loudly_with_its_licence(
    media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = ex4d(capsys, "depth", media / "clip.mp4", "--depth", "layout", "--frames", "0:1", "-o", tmp_path / "out")
    assert seen.code == 0
    assert "depth: layout (Apache-2.0)" in seen.out
    assert "!! PREVIEW DEPTH (layout)" in seen.out
    assert "flicker" not in seen.out, "one frame has none"


def test_folders_that_are_taken(words: Words, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert ex4d(capsys, *words, "-o", out).code == 0
    first = snapshot(out)
    refused = ex4d(capsys, *words, "-o", out)
    assert refused.code == 2
    assert "--overwrite" in refused.err
    assert snapshot(out) == first
    resumed = ex4d(capsys, *words, "-o", out, "--resume")
    assert resumed.code == 0
    assert f"nothing to do: {out} is complete" in resumed.out
    assert snapshot(out) == first
    assert ex4d(capsys, *words, "-o", out, "--overwrite").code == 0
    assert snapshot(out, skip=["timings.json"]) == {k: v for k, v in first.items() if k != "timings.json"}
    (tmp_path / "file").write_text("a file")
    seen = ex4d(capsys, *words, "-o", tmp_path / "file")
    assert seen.code == 2
    assert (tmp_path / "file").read_text() == "a file"


def test_interrupted_it_says_how_to_go_on(
    words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def begin(reporter: ConsoleReporter, stage: str, total: int | None, unit: str = "frames") -> None:
        if stage == "preview":
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(ConsoleReporter, "begin", begin)
        stopped = ex4d(capsys, *words, "-o", out)
    assert stopped.code == 130
    assert f"finished stages are kept in {out}" in stopped.err.splitlines()[-1]
    assert ex4d(capsys, *words, "-o", out, "--resume").code == 0
    assert_published(out)


def bad_depth(tmp: Path) -> Path:
    depth = depth_maps()
    depth[2, 5, 7] = np.nan
    return write_depth(tmp / "nan.npz", depth)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda clip, tmp: [], "ex4d depth clip.mp4"),
        (lambda clip, tmp: [tmp / "none.mp4"], "nothing at"),
        (lambda clip, tmp: [clip, "--depth", "da2-smal"], "da2-small, moge, depthcrafter, layout"),
        (lambda clip, tmp: [clip, "--depth", "da2-small"], "to fix: ex4d weights pull da2-small (0.099 GB)"),
        (lambda clip, tmp: [clip, "--depth", "moge"], "to fix: pip install"),
        (lambda clip, tmp: [clip, "--depth", "depthcrafter"], "pull depthcrafter && ex4d weights pull svd"),
        (lambda clip, tmp: [clip, "--depth", bad_depth(tmp)], "NaN"),
        (lambda clip, tmp: [clip, "--depth-anchor", "layout"], "--depth-anchor"),
        (lambda clip, tmp: [clip, "--format", "npz", "--format", "npz"], "--format"),
        (lambda clip, tmp: [clip, "--depth-size", "3"], "short_side"),
        (lambda clip, tmp: [clip, "--subject-mask", tmp / "none.png"], "none.png"),
        (lambda clip, tmp: [clip, "--source-cameras", tmp / "none.json"], "none.json"),
        (lambda clip, tmp: [clip, "--frames", "9:3"], "--frames"),
    ],
)  # fmt: skip
def test_bad_input(
    make: Callable[[Path, Path], Words], expected: str, media: Path, tmp_path: Path,
    estimators: tuple[DepthEstimator, ...], capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    given = make(media / "clip.mp4", tmp_path)
    before = snapshot(tmp_path)
    seen = ex4d(capsys, "depth", *given, "-o", tmp_path / "new" / "out")
    assert (seen.code, seen.out) == (2, "")
    *progress, last = seen.err.splitlines()
    assert last.startswith("error: ")
    assert expected in last
    assert not any(line.startswith("error:") or "Traceback" in line for line in progress)
    assert snapshot(tmp_path) == before
    assert not (tmp_path / "new").exists()


def test_offline_download_names_the_command(
    media: Path, tmp_path: Path, estimators: tuple[DepthEstimator, ...], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from huggingface_hub import constants

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    for name, missing in (("da2-small", "da2-small"), ("auto", "da2-small"), ("depthcrafter", "depthcrafter")):
        seen = ex4d(capsys, "depth", media / "clip.mp4", "--depth", name, "--download", "-o", tmp_path / "out")
        assert seen.code == 2
        assert len(seen.err.splitlines()) == 1, "before anything else is begun"
        assert f"`ex4d weights pull {missing}`" in seen.err
    assert not (tmp_path / "out").exists()


def test_doctor_has_a_line_for_every_estimator(
    estimators: tuple[DepthEstimator, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [line for line in ex4d(capsys, "doctor").out.splitlines() if line[6:].startswith("depth  ")]
    assert [line.split()[2] for line in lines] == [f"{one.name}:" for one in estimators]
    da2, moge, crafter, layout = lines
    assert da2.startswith("note  depth")
    assert "not ready, weights not on disk: da2-small; licence apache-2.0" in da2
    assert da2.endswith("to fix: ex4d weights pull da2-small (0.099 GB)")
    assert "not installed: moge" in moge
    assert f"licence {estimators[2].licence}" in crafter
    assert layout.startswith("ok    depth")
    assert "ready; licence Apache-2.0; preview only; taken by --depth auto" in layout
    assert sum("taken by --depth auto" in line for line in lines) == 1
