"""`kill -9` during `generate`, then `--resume`: byte-identical to an uninterrupted run; on one process and on two."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from generation_tools import contents, make_prior

NUM_KILLS = 6


def _command(prior: Path, out: Path, *flags: str) -> list[str]:
    settings = ["--weights", "tiny", "--size", "64x64", "--steps", "8", "--window-frames", "9", "--overlap-frames", "5"]
    return [sys.executable, "-m", "ex4d", "generate", str(prior), *settings, "-o", str(out), *flags]


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes], float]:
    """A prior of 45 frames (ten windows), what is made of it, and how long the windows take, seconds."""
    folder = tmp_path_factory.mktemp("whole")
    prior = make_prior(folder, 45, sound=True)
    process = _start(_command(prior, folder / "out"))
    first = _wait_for_window(folder / "out", 0)
    _wait_for_window(folder / "out", 9)
    seconds = time.monotonic() - first
    assert process.wait() == 0
    return prior, contents(folder / "out"), seconds


def _wait_for_window(out: Path, index: int) -> float:
    """The time when it was finished."""
    record = out / ".ex4d-work" / "windows" / f"window_{index:04d}.json"
    deadline = time.monotonic() + 100
    while not record.exists() and not (out / "config.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return time.monotonic()


def _kill_and_resume(whole: tuple[Path, dict[str, bytes], float], out: Path, delay_s: float, *flags: str) -> None:
    prior, want, _ = whole
    process = _start(_command(prior, out, *flags))
    _wait_for_window(out, 0)
    time.sleep(delay_s)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "result.mp4").exists(), "killed too late: nothing is proven"
    finished = len(list((out / ".ex4d-work" / "windows").glob("*.json")))
    print(f"killed {delay_s:.2f} s after the first window, {finished} of 10 finished")  # noqa: T201
    assert 1 <= finished <= 10
    subprocess.run(_command(prior, out, *flags, "--resume"), check=True, capture_output=True)
    got = contents(out)
    assert got.keys() == want.keys()
    if flags:  # the number of processes is recorded
        got.pop("config.json")
    assert [name for name in got if got[name] != want[name]] == []


@pytest.mark.prove
@pytest.mark.skipif(os.name != "posix", reason="kills process groups")
def test_kill_at_random_moments_then_resume(whole: tuple[Path, dict[str, bytes], float], tmp_path: Path) -> None:
    rng = random.Random(0)
    for k in range(NUM_KILLS):
        _kill_and_resume(whole, tmp_path / f"killed_{k}", rng.uniform(0, 0.9) * whole[2])


@pytest.mark.prove
@pytest.mark.skipif(os.name != "posix", reason="kills process groups")
def test_kill_two_processes_then_resume(whole: tuple[Path, dict[str, bytes], float], tmp_path: Path) -> None:
    """Both at once, with the one that started them; the result is that of one process."""
    _kill_and_resume(whole, tmp_path / "killed", 0.3 * whole[2], "--gpus", "2")
