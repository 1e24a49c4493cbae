"""`ex4d masks`: its folder, and what it refuses."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from cli_tools import HEIGHT, NUM_FRAMES, WIDTH, assert_published, ex4d, snapshot, write_clip, write_depth
from PIL import Image

from ex4d.io.encode_delivery import DeliveryWriter
from ex4d.io.video import VideoReader
from ex4d.io.video_lossless import LosslessClip
from ex4d.pipeline.masks_job import MAX_MASKS
from ex4d.pipeline.progress import ConsoleReporter

Words = list[str | Path]


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EX4D_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("EX4D_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clip.mp4 and depth.npz."""
    folder = tmp_path_factory.mktemp("media")
    write_clip(folder / "clip.mp4")
    write_depth(folder / "depth.npz")
    return folder


@pytest.fixture
def words(media: Path) -> Words:
    return ["masks", media / "clip.mp4", "--depth", media / "depth.npz", "--source-cameras", "static"]


def test_the_folder_shows_both_kinds(
    words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    seen = ex4d(capsys, *words, "--num-masks", "3", "--seed", "4")
    assert seen.code == 0, seen.err
    out = tmp_path / "clip_masks"
    assert "writing to clip_masks" in seen.err
    assert_published(out)
    names = {"sheet.png", "preview.mp4", "stats.json", "timings.json", *(f"mask_{i:02d}.mkv" for i in range(3))}
    assert {path.name for path in out.iterdir()} == names
    stats = json.loads((out / "stats.json").read_text())
    assert [mask["kind"] for mask in stats["of_mask"]] == ["rendering", "tracking", "rendering"]
    for number, mask in enumerate(stats["of_mask"]):
        with LosslessClip(out / f"mask_{number:02d}.mkv", "gray") as clip:
            stored = clip.read(0, NUM_FRAMES)
        assert set(np.unique(stored)) <= {0, 255}
        assert mask["coverage"] == pytest.approx((stored > 0).mean(axis=(1, 2)))
        assert mask["cam"] in seen.out
    assert stats["of_mask"][0]["coverage"][0] == 1.0
    assert stats["of_mask"][1]["licence"] == "Apache-2.0 (OpenCV)"
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.width > 4 * WIDTH
        assert sheet.height > 4 * HEIGHT
    with VideoReader(out / "preview.mp4") as reader:
        frames = np.concatenate([chunk.frames for chunk in reader])
    assert frames.shape == (NUM_FRAMES, 2 * HEIGHT, 2 * WIDTH, 3)


def test_flags_reach_the_masks(words: Words, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--kind", "rendering", "--style", "orbit", "--yaw-deg", "-60", "-60", "--num-masks", "2"]
    seen = ex4d(capsys, *words, *more, "--erode-px", "1", "1", "-o", tmp_path / "out")
    assert seen.code == 0, seen.err
    masks = json.loads((tmp_path / "out" / "stats.json").read_text())["of_mask"]
    assert {(mask["kind"], mask["cam"], mask["erode_px"]) for mask in masks} == {("rendering", "orbit-left:60.0", 1)}
    assert masks[0]["seed"] != masks[1]["seed"]


def test_a_clip_without_texture_is_said_of_tracking_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip, notice = tmp_path / "plain.mp4", "the clip has no texture to follow"
    with DeliveryWriter(clip, height=HEIGHT, width=WIDTH, fps=Fraction(24)) as writer:
        writer.write(np.full((4, HEIGHT, WIDTH, 3), 120, np.uint8), np.arange(4) / 24)
    words = ["masks", clip, "--depth", "layout", "--source-cameras", "static", "--num-masks", "2", "-o"]
    seen = ex4d(capsys, *words, tmp_path / "out")
    assert f"mask 01: {notice}" in seen.err
    lines = seen.out.splitlines()
    (at,) = [number for number, line in enumerate(lines) if notice in line]
    assert lines[at - 1].startswith("  mask 01  tracking")
    assert notice in ex4d(capsys, *words, tmp_path / "out", "--resume").out
    other = ex4d(capsys, *words, tmp_path / "other", "--kind", "rendering")
    assert other.code == 0
    assert notice not in other.err + other.out


def test_folders_that_are_taken(words: Words, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert ex4d(capsys, *words, "--num-masks", "2", "-o", out).code == 0
    first = snapshot(out)
    assert "--overwrite" in ex4d(capsys, *words, "--num-masks", "2", "-o", out).err
    resumed = ex4d(capsys, *words, "--num-masks", "2", "-o", out, "--resume")
    assert f"nothing to do: {out} is complete" in resumed.out
    assert snapshot(out) == first
    assert ex4d(capsys, *words, "--num-masks", "2", "-o", out, "--overwrite").code == 0
    assert snapshot(out, skip=["timings.json"]) == {k: v for k, v in first.items() if k != "timings.json"}
    assert ex4d(capsys, *words, "--num-masks", "1", "-o", out, "--overwrite").code == 0
    assert not (out / "mask_01.mkv").exists(), "masks of the earlier run are gone"


def test_interrupted_it_keeps_finished_masks(
    words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun: list[str] = []

    def begin(reporter: ConsoleReporter, stage: str, total: int | None, unit: str = "frames") -> None:
        begun.append(stage)
        if stage == "tracking masks":
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(ConsoleReporter, "begin", begin)
        stopped = ex4d(capsys, *words, "--num-masks", "2", "-o", out)
    assert stopped.code == 130
    assert "--resume" in stopped.err
    assert "rendering masks" in begun
    finished = ex4d(capsys, *words, "--num-masks", "2", "-o", out, "--resume")
    assert finished.code == 0
    assert "rendering masks" not in finished.err
    assert_published(out)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--num-masks", "0"], "--num-masks"),
        (["--num-masks", str(MAX_MASKS + 1)], "--num-masks"),
        (["--yaw-deg", "-120", "0"], "masks.yaw_deg"),
        (["--erode-px", "3", "1"], "masks.erode_px"),
        (["--tracker", "raft"], "pip install 'ex4d[gen]' torchvision"),
        (["--frames", "1:2"], "at least 2 frames"),
    ],
)
def test_bad_input(
    more: list[str], expected: str, words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    import sys

    monkeypatch.setitem(sys.modules, "torchvision", None)
    seen = ex4d(capsys, *words, *more, "-o", tmp_path / "out")
    assert (seen.code, seen.out) == (2, "")
    assert seen.err.splitlines()[-1].startswith("error: ")
    assert expected in seen.err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_no_input_says_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert "ex4d masks clip.mp4" in ex4d(capsys, "masks").err
