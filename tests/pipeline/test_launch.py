"""One command, several processes: what they say, how they fail, how they stop. No GPU is needed."""

import gc
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ex4d.errors import ConfigError, Ex4dError
from ex4d.pipeline.launch import FOLDER_VARIABLE, is_worker, relaunch_with_torchrun, run_worker

# torch's launcher leaves the closing of the workers' log files to the garbage collector
pytestmark = pytest.mark.filterwarnings(
    r"ignore:Exception ignored in. <_io.FileIO name='\S+ex4d-launch\S+.log':pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Within the test, where the warning above is expected; not at the end of the session."""
    yield
    gc.collect()


JOB = """
import os, signal, sys, time
from pathlib import Path
from ex4d.cli.failures import guarded
from ex4d.errors import ConfigError
from ex4d.pipeline.launch import is_worker, run_worker

rank, folder, what = int(os.environ["RANK"]), Path(sys.argv[1]), sys.argv[2]

def work():
    (folder / f"pid{rank}").write_text(str(os.getpid()))
    if what == "wait" or (what != "talk" and what != "meet" and rank == 0):
        try:
            time.sleep(100)
        except KeyboardInterrupt as stop:
            time.sleep(0.6)
            raise type(stop)(f"rank {rank} kept its work") from None
    if what == "fail":
        raise ConfigError("a better rank", str(rank), "ask another")
    if what == "odd failure":
        raise type("Odd", (Exception,), {})("never seen")
    if what == "die":
        print("last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "meet":
        from ex4d.model.parallel import is_main, on_all, open_parallel, plan_parallel
        plan = plan_parallel(2, uses_guidance=True, num_heads=4, num_tokens=8)
        with open_parallel(plan, "cpu", timeout_s=30) as context:
            print(f"rank {context.rank} computes {on_all(context, lambda: context.branch)}")
    print(f"{is_worker()} {rank} {sys.argv[3:]}")
    print(f"warning of {rank}", file=sys.stderr)
    return 0

sys.exit(guarded(lambda: run_worker(work)))
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a module ``launch_job`` that workers can run."""
    (tmp_path / "launch_job.py").write_text(JOB, "utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    return tmp_path


def _launch(job: Path, *words: str) -> int:
    return relaunch_with_torchrun([str(job), *words], 2, device="cpu", module="launch_job")


def _until(holds: Callable[[], bool], seconds: float = 20.0) -> bool:
    limit = time.monotonic() + seconds
    while not holds() and time.monotonic() < limit:
        time.sleep(0.05)
    return holds()


def _pids(job: Path) -> list[int]:
    return [int(path.read_text() or 0) for path in sorted(job.glob("pid?"))]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_only_rank_0_speaks(job: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert _launch(job, "talk", "--steps", "4", "a b") == 0
    said = capfd.readouterr()
    assert said.out == "True 0 ['--steps', '4', 'a b']\n"
    assert said.err == "warning of 0\n"
    assert len(set(_pids(job))) == 2
    assert not is_worker()
    assert FOLDER_VARIABLE not in os.environ
    assert logging.root.manager.disable == logging.NOTSET
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_workers_meet(job: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert _launch(job, "meet") == 0
    assert capfd.readouterr().out == "rank 0 computes cond\nTrue 0 []\n"


def test_a_failure_of_one_ends_all_and_is_raised_here(job: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError) as failure:
        _launch(job, "fail")
    assert str(failure.value) == "expected a better rank; got 1; to fix: ask another"
    assert "on rank 1:" in failure.value.__notes__[0]
    assert not any(_alive(pid) for pid in _pids(job))
    assert capfd.readouterr() == ("", "")


def test_a_failure_of_an_unknown_kind_is_named(job: Path) -> None:
    with pytest.raises(RuntimeError, match="Odd: never seen"):
        _launch(job, "odd failure")


def test_a_killed_worker_is_told(job: Path) -> None:
    with pytest.raises(Ex4dError, match=r"rank 1 ended by SIGKILL \(last words\).*out of memory"):
        _launch(job, "die")
    assert not any(_alive(pid) for pid in _pids(job))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 130)])
def test_a_signal_ends_all_workers(job: Path, number: signal.Signals, code: int) -> None:
    script = (
        "import sys; from ex4d.cli.failures import guarded; from ex4d.pipeline.launch import relaunch_with_torchrun\n"
        f"words = [{str(job)!r}, 'wait']\n"
        "sys.exit(guarded(lambda: relaunch_with_torchrun(words, 2, device='cpu', module='launch_job')))"
    )
    launcher = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    try:
        assert _until(lambda: len(_pids(job)) == 2 and all(_pids(job))), "workers did not start"
        launcher.send_signal(number)
        time.sleep(0.1)
        launcher.send_signal(signal.SIGINT)  # impatience changes nothing
        _, said = launcher.communicate(timeout=30)
    finally:
        launcher.kill()
    assert launcher.returncode == code
    assert said == "interrupted; rank 0 kept its work\n"
    assert not any(_alive(pid) for pid in _pids(job))


def test_too_few_gpus_are_told_before_anything_starts(job: Path) -> None:
    import torch

    found = torch.cuda.device_count()
    with pytest.raises(ConfigError, match=rf"{found + 1} CUDA GPUs.*got {found};"):
        relaunch_with_torchrun([str(job), "talk"], found + 1, module="launch_job")
    assert _pids(job) == []


def test_without_our_launcher_errors_stay_where_they_are() -> None:
    def fail() -> int:
        raise ConfigError("this", "that")

    assert run_worker(lambda: 7) == 7
    with pytest.raises(ConfigError):
        run_worker(fail)
