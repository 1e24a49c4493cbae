"""`kill -9` of driver or worker during `prepare`, ten times; a rerun completes with the bytes of a quiet run."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ex4d.dataset.reader import Dataset
from prepare.prepare_tools import BUCKET, pan, tree, write_clip

NUM_KILLS = 10
NUM_CLIPS = 80


def _command(clips: Path, out: Path, *flags: str) -> list[str]:
    settings = ["--bucket", BUCKET, "--depth", "layout", "--items-per-shard", "2", "--workers", "2", "--retries", "10"]
    return [sys.executable, "-m", "ex4d", "prepare", str(clips), "-o", str(out), *settings, *flags]


def _children(pid: int) -> list[int]:
    """Processes that work on clips: children of the driver, not the decoders below them."""
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()] + [
        int(text)
        for task in Path(f"/proc/{pid}/task").iterdir()
        if task.name != str(pid)
        for text in (task / "children").read_text().split()
    ]


def _kill_a_child(pid: int) -> None:
    deadline = time.monotonic() + 60
    while not (children := _children(pid)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(children[-1], signal.SIGKILL)


def _num_committed(out: Path) -> int:
    return len(list((out / "shards").glob("shard-*.json")))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighty clips, two of them duplicates, four damaged."""
    folder = tmp_path_factory.mktemp("clips")
    for number in range(NUM_CLIPS):
        path = write_clip(folder / f"clip{number:02d}.mp4", pan(number % (NUM_CLIPS - 2), 12))
        if number % 20 == 7:
            data = path.read_bytes()
            path.write_bytes(data[: len(data) // 2])
    return folder


@pytest.mark.prove
@pytest.mark.skipif(sys.platform != "linux", reason="kills processes found in /proc")
def test_kill_at_random_moments_then_rerun(clips: Path, tmp_path: Path) -> None:
    subprocess.run(_command(clips, tmp_path / "whole"), check=True, capture_output=True)
    want = tree(tmp_path / "whole")
    out = tmp_path / "killed"
    rng = random.Random(0)
    kept: dict[str, str] = {}
    for kill in range(NUM_KILLS):
        process = subprocess.Popen(_command(clips, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before, deadline = _num_committed(out), time.monotonic() + 200
        while kill % 3 and _num_committed(out) <= before:  # one in three is killed whatever it has done
            assert process.poll() is None, "it ended before it was killed: nothing is proven"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 1.0))
        target = "driver" if kill % 2 else "worker"
        if target == "worker":
            _kill_a_child(process.pid)
            time.sleep(rng.uniform(0, 1.0))  # it goes on with another child; then the run is ended
        assert process.poll() is None, "killed too late: nothing is proven"
        process.kill()
        process.wait()
        left = list((out / "shards").glob(".*"))
        print(f"kill {kill}: {target}, {_num_committed(out)} of 40 shards, {len(left)} half-written")  # noqa: T201
        now = {name: digest for name, digest in tree(out / "shards").items() if not name.startswith(".")}
        committed = {name: digest for name, digest in now.items() if Path(name).with_suffix(".json").name in now}
        assert kept.items() <= committed.items(), "a finished shard was lost"
        assert all(want[f"shards/{name}"] == digest for name, digest in committed.items())
        kept = committed
        assert not _survivors(out)
    done = subprocess.run(_command(clips, out), check=True, capture_output=True, text=True)
    print(done.stdout)  # noqa: T201
    assert tree(out) == want
    dataset = Dataset.open(out)
    keys = [row.key for row in dataset.rows]
    assert len(set(keys)) == len(keys) == dataset.verify() > 140


def _survivors(out: Path) -> list[str]:
    """Processes that still know of the dataset a moment after their driver was killed."""
    deadline = time.monotonic() + 10
    while True:
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdecimal() and str(out).encode() in (entry / "cmdline").read_bytes():
                    found.append(entry.name)
            except OSError:
                continue
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)
