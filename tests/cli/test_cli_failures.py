"""Failures become one line and an exit code."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from ex4d.cli.failures import Terminated, guarded, one_line
from ex4d.errors import InputError, MissingDependencyError


def raiser(error: BaseException) -> Callable[[], int]:
    def job() -> int:
        raise error

    return job


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (InputError("a video", "soup", "cook less"), 2, "error: expected a video; got soup; to fix: cook less\n"),
        (InputError("a video", "two\nlines\x1b[2J"), 2, "error: expected a video; got two lines [2J\n"),
        (
            MissingDependencyError("OpenEXR", "exr", "EXR depth"),
            2,
            "error: expected the package 'OpenEXR' for EXR depth; got it is not installed; "
            "to fix: pip install 'ex4d[exr]'\n",
        ),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (KeyboardInterrupt("go on with --resume"), 130, "interrupted; go on with --resume\n"),
        (Terminated(), 143, "interrupted\n"),
        (MemoryError(), 2, "error: out of memory; to fix: a smaller --max-side, or close other programs\n"),
        (
            ZeroDivisionError("a/0"),
            1,
            "internal error: ZeroDivisionError: a/0; this is a fault of ex4d: please report it with the command, "
            "`ex4d doctor` and EX4D_DEBUG=1 set\n",
        ),
    ],
)
def test_message_and_code(
    error: BaseException, code: int, text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EX4D_DEBUG", raising=False)
    assert guarded(raiser(error)) == code
    assert capsys.readouterr() == ("", text)


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EX4D_DEBUG", "1")
    assert guarded(raiser(RuntimeError("deep"))) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert err.splitlines()[-1].startswith("internal error: RuntimeError: deep")


def test_one_line_keeps_letters_of_any_language() -> None:
    assert one_line("späť – 動画\n.mp4") == "späť – 動画 .mp4"


def test_the_signal_handler_is_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert guarded(lambda: 0) == 0
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process without asking it")
def test_sigterm_is_an_interruption() -> None:
    code = (
        "import os, signal, sys; from ex4d.cli.failures import guarded\n"
        "sys.exit(guarded(lambda: os.kill(os.getpid(), signal.SIGTERM) or 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "interrupted\n")


def test_a_closed_pipe_is_no_traceback() -> None:
    """As in `ex4d run --help | head -1`."""
    with subprocess.Popen(
        [sys.executable, "-m", "ex4d", "run", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode in (0, 1)


def test_a_poor_terminal_is_no_reason_to_crash() -> None:
    code = "from ex4d.cli.failures import guarded; import sys\nguarded(lambda: sys.stdout.write('· 動画\\n') and 0)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii:strict"},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "\\xb7 \\u52d5\\u753b\n", "")
