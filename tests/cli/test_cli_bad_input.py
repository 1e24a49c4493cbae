"""Bad input: exit code 2, one line that says what to do, nothing left behind."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cli_tools import HEIGHT, NUM_FRAMES, WIDTH, depth_maps, ex4d, snapshot, write_clip, write_depth

Words = list[str | Path]
Make = Callable[[Path], tuple[Words, str]]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4")


def with_depth(depth: np.ndarray) -> Callable[[Path, Path], Words]:
    return lambda clip, tmp: [clip, "--depth", write_depth(tmp / "depth.npz", depth)]


def changed(value: float) -> np.ndarray:
    depth = depth_maps()
    depth[2, 5, 7] = value
    return depth


def written(name: str, data: bytes) -> Callable[[Path, Path], Words]:
    def make(clip: Path, tmp: Path) -> Words:
        (tmp / name).write_bytes(data)
        return [tmp / name]

    return make


def folder(clip: Path, tmp: Path) -> Words:
    (tmp / "pictures").mkdir()
    return [tmp / "pictures"]


def truncated(clip: Path, tmp: Path) -> Words:
    (tmp / "cut.mp4").write_bytes(clip.read_bytes()[:600])
    return [tmp / "cut.mp4"]


def audio_only(clip: Path, tmp: Path) -> Words:
    import wave

    with wave.open(str(tmp / "sound.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16000))
    return [tmp / "sound.wav"]


def camera_with_nan(clip: Path, tmp: Path) -> Words:
    matrix = np.eye(4).tolist()
    matrix[0][3] = float("nan")
    frame = {"source_index": 0, "K": [[50, 0, 24], [0, 50, 16], [0, 0, 1]], "world_to_camera": matrix}
    content = {"schema_version": 1, "convention": "opencv", "height": HEIGHT, "width": WIDTH, "frames": [frame]}
    (tmp / "camera.json").write_text(json.dumps(content))
    return [clip, "--cam", tmp / "camera.json"]


CASES: dict[str, tuple[Callable[[Path, Path], Words], str]] = {
    "missing file": (lambda clip, tmp: [tmp / "none.mp4"], "nothing at"),
    "folder instead of file": (folder, "the folder"),
    "no input": (lambda clip, tmp: [], "an INPUT"),
    "empty video": (written("empty.mp4", b""), "empty"),
    "truncated video": (truncated, "cut.mp4"),
    "corrupt video": (written("noise.mp4", bytes(range(256)) * 20), "noise.mp4"),
    "wrong extension": (written("notes.txt", b"no video at all\n" * 50), "notes.txt"),
    "audio only": (audio_only, "sound.wav"),
    "missing depth": (lambda clip, tmp: [clip, "--depth", tmp / "none.npz"], "--depth"),
    "depth of another size": (with_depth(np.ones((NUM_FRAMES, 20, 20), np.float32)), "20x20"),
    "depth of another count": (with_depth(np.ones((3, HEIGHT, WIDTH), np.float32)), "3"),
    "depth with NaN": (with_depth(changed(np.nan)), "NaN"),
    "negative depth": (with_depth(changed(-1)), "negative"),
    "depth all invalid": (with_depth(np.zeros((NUM_FRAMES, HEIGHT, WIDTH), np.float32)), "valid"),
    "unknown preset": (lambda clip, tmp: [clip, "--cam", "orbit-lft:30"], "orbit-left"),
    "angle out of range": (lambda clip, tmp: [clip, "--cam", "120"], "-90 to 90"),
    "missing camera file": (lambda clip, tmp: [clip, "--cam", tmp / "path.json"], "path.json"),
    "NaN in a camera file": (camera_with_nan, "NaN"),
    "frames in disorder": (lambda clip, tmp: [clip, "--frames", "5:2"], "--frames"),
    "frames and times": (lambda clip, tmp: [clip, "--frames", "0:2", "--start", "1"], "--start"),
    "frozen frame outside": (lambda clip, tmp: [clip, "--freeze", "99"], "--freeze"),
    "no time left": (lambda clip, tmp: [clip, "--start", "50"], "to fix"),
    "impossible lens": (lambda clip, tmp: [clip, "--fov-deg", "200"], "--fov-deg"),
    "pivot nowhere": (lambda clip, tmp: [clip, "--pivot", "middle"], "--pivot"),
    "no prior to repeat": (lambda clip, tmp: [clip, "--from", tmp / "prior.json"], "prior.json"),
}


@pytest.mark.parametrize("case", CASES)
def test_run_refuses(case: str, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, expected = CASES[case]
    words = make(clip, tmp_path)
    before = snapshot(tmp_path)
    seen = ex4d(capsys, "run", *words, "-o", tmp_path / "new" / "out")
    assert seen.code == 2
    assert seen.out == ""
    *progress, last = seen.err.splitlines()
    assert last.startswith("error: ")
    assert expected in last
    assert not any(line.startswith("error:") or "Traceback" in line for line in progress)
    assert not (tmp_path / "new").exists()
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("case", ["corrupt video", "depth with NaN", "unknown preset", "frozen frame outside"])
def test_overwrite_keeps_what_is_there_until_the_new_run_is_done(
    case: str, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "prior.json").write_text("{}")
    (out / "mine.txt").write_text("keep")
    before = snapshot(out)
    words = CASES[case][0](clip, tmp_path)
    assert ex4d(capsys, "run", *words, "-o", out, "--overwrite").code == 2
    assert snapshot(out) == before
    assert sorted(path.name for path in out.iterdir()) == ["mine.txt", "prior.json"]


def test_a_file_in_the_way_of_the_output(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("a file")
    for out in (tmp_path / "out", tmp_path / "out" / "below"):
        seen = ex4d(capsys, "run", clip, "-o", out)
        assert seen.code == 2
        assert str(tmp_path / "out") in seen.err.splitlines()[-1]
    assert (tmp_path / "out").read_text() == "a file"


@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_FSIZE")
def test_disk_full(clip: Path, tmp_path: Path) -> None:
    """A limit on the size of files fails as a full disk does."""
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))\n"
        "from ex4d.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    words = [sys.executable, "-c", code, "run", str(clip), "-o", str(tmp_path / "out")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert "the disk (or your quota) is full" in last
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_name_that_is_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As bytes of another encoding arrive from a Unix shell."""
    seen = ex4d(capsys, "run", "caf\udce9.mp4", "-o", tmp_path / "out")
    assert seen.code == 2
    assert seen.err == (
        r"error: expected names in valid UTF-8; got 'caf\udce9.mp4'; to fix: rename the file or folder" "\n"
    )
    assert not (tmp_path / "out").exists()


def test_fill_refuses_what_is_no_prior(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        seen = ex4d(capsys, "fill", folder)
        assert seen.code == 2
        assert seen.err.startswith("error: expected a prior folder")
        assert len(seen.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"config": 3}', '{"config": {"input": "a", "warp": 1}}', '{"config": {"input": 1}}',
                '{"config": {"input": "a", "camera": {"cam": [30]}}}', '{"config": {}}']
)  # fmt: skip
def test_from_refuses_what_no_run_wrote(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "prior.json").write_text(content)
    seen = ex4d(capsys, "run", "--from", tmp_path)
    assert seen.code == 2
    assert seen.err.startswith("error: ")
    assert len(seen.err.splitlines()) == 1
