"""`kill -9` during `run`, then `--resume`: byte-identical to an uninterrupted run (all files but timings.json)."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

NUM_KILLS = 10


def _command(clip: Path, out: Path, *flags: str) -> list[str]:
    return [sys.executable, "-m", "ex4d", "run", str(clip), "--cam", "60", "--max-side", "480", "--frames", "0:40",
            "-o", str(out), *flags]  # fmt: skip


def _digest(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "timings.json"
    }


@pytest.mark.prove
@pytest.mark.skipif(os.name != "posix", reason="kills process groups")
def test_kill_at_random_moments_then_resume(shared: Path, tmp_path: Path) -> None:
    clip = shared / "clips" / "cot_bear.mp4"
    subprocess.run(_command(clip, tmp_path / "warm"), check=True, capture_output=True)
    started = time.monotonic()
    subprocess.run(_command(clip, tmp_path / "whole"), check=True, capture_output=True)
    duration = time.monotonic() - started
    want = _digest(tmp_path / "whole")
    rng = random.Random(0)
    for k in range(NUM_KILLS):
        out = tmp_path / f"killed_{k}"
        process = subprocess.Popen(
            _command(clip, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        moment = rng.uniform(0.1, 0.95) * duration
        time.sleep(moment)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        left = sorted(path.name for path in out.iterdir()) if out.exists() else []
        print(f"kill {k} after {moment:.1f} of {duration:.1f} s; left: {', '.join(left) or 'nothing'}")  # noqa: T201
        subprocess.run(_command(clip, out, "--resume"), check=True, capture_output=True)
        got = _digest(out)
        assert got.keys() == want.keys()
        assert [name for name in want if got[name] != want[name]] == []
