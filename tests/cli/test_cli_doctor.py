"""`ex4d doctor` on a sound installation, and on one where a part fails."""

from pathlib import Path

import pytest
from cli_tools import ex4d

from ex4d.cli import checks
from ex4d.depth.cache import cache_folder


def test_all_is_well(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EX4D_CACHE", str(tmp_path))
    seen = ex4d(capsys, "doctor")
    assert (seen.code, seen.err) == (0, "")
    *lines, last = seen.out.splitlines()
    assert last == "all that ex4d needs is here"
    assert all(line[:4] in ("ok  ", "note") for line in lines)
    text = seen.out
    for part in ("python", "FFmpeg", "numba", "opencv", "GiB free", "EXR", "torch", "layout", str(cache_folder())):
        assert part in text
    assert list(tmp_path.iterdir()) == [], "a check writes nothing"


def test_a_broken_part_fails_with_its_fix(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> checks.Check:
        raise ImportError("libfoo.so:\n not found")

    monkeypatch.setattr(checks, "_opencv", broken)
    seen = ex4d(capsys, "doctor")
    assert seen.code == 2
    assert "FAIL  opencv          ImportError: libfoo.so: not found; to fix: pip install" in seen.out
    assert seen.err.startswith("error: 1 of the checks failed")
    assert "ok    render" in seen.out, "the others are checked too"
