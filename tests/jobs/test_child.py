"""Children: what they answer, and what their owner learns when they hang, crash, fill the memory or are left alone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ex4d.errors import MediaError
from ex4d.jobs.child import Child, ChildDied, ChildSpec

HANDLER = "jobs.job_tools:make_handler"
posix = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX")


def child(*, timeout_s: float = 60.0, memory_gib: float | None = None) -> Child:
    return Child(ChildSpec(handler=HANDLER, settings={"a": 1}, timeout_s=timeout_s, memory_gib=memory_gib))


def test_a_child_stays_and_its_errors_arrive() -> None:
    with child() as one:
        first, second = one.ask(("echo", [1, 2])), one.ask(("echo", None))
        assert first[:3] == ({"a": 1}, [1, 2], 1)
        assert second[2] == 2
        assert first[3] == second[3] == one.pid != os.getpid()
        assert first[4] == "1"
        with pytest.raises(MediaError, match="expected a video; got nothing"):
            one.ask(("fail", "nothing"))
        with pytest.raises(RuntimeError, match="KeyError: 'oops'"):
            one.ask(("bug", "oops"))
        assert one.ask(("echo", 0))[2] == 5
    assert one.pid is None


@posix
def test_what_ended_a_child_is_told_and_the_next_request_starts_another() -> None:
    with child(timeout_s=3.0, memory_gib=2.0) as one:
        pid = one.ask(("echo", 0))[3]
        for request, cause, words in (
            (("exit", 3), "crash", "code 3: last words"),
            (("kill", signal.SIGSEGV), "crash", f"signal {int(signal.SIGSEGV)}"),
            (("kill", signal.SIGKILL), "memory", "killed"),
            (("sleep", 30), "timeout", "within 3 s"),
            (("allocate", 1 << 32), "memory", "2.0 GiB"),
        ):
            with pytest.raises(ChildDied, match=words) as died:
                one.ask(request)
            assert died.value.cause == cause
        answer = one.ask(("echo", 0))
        assert answer[2] == 1
        assert answer[3] != pid


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_no_child_outlives_its_owner(tmp_path: Path) -> None:
    script = tmp_path / "owner.py"
    script.write_text(
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "from ex4d.jobs.child import Child, ChildSpec\n"
        f"one = Child(ChildSpec(handler={HANDLER!r}, settings=None, timeout_s=60))\n"
        "print(one.ask(('echo', 0))[3], flush=True)\n"
        "one.ask(('sleep', 60))\n",
        "utf-8",
    )
    owner = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    assert Path(f"/proc/{pid}").exists()
    owner.kill()
    owner.wait()
    owner.stdout.close()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline, "the child is still there"
        time.sleep(0.05)
