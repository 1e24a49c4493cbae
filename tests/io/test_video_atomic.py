"""Outputs are whole or absent."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ex4d.errors import OutputError
from ex4d.io.atomic import (
    atomic_path,
    is_temporary,
    output_error,
    remove_temporaries,
    write_bytes_atomic,
    write_json_atomic,
)


def test_a_file_appears_whole_and_alone(tmp_path: Path) -> None:
    final = tmp_path / "файл.json"
    final.write_text("old")
    with atomic_path(final) as temporary:
        assert (temporary.parent, temporary.suffix) == (tmp_path, ".json")
        assert is_temporary(temporary)
        temporary.write_text("new")
        assert final.read_text() == "old"
    assert final.read_text() == "new"
    assert list(tmp_path.iterdir()) == [final]
    assert not is_temporary(final)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    final = tmp_path / "x.bin"
    final.write_text("old")

    def fail() -> None:
        with atomic_path(final) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["x.bin"]
    assert final.read_text() == "old"


def test_errors_of_the_output_become_output_errors_others_stay(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        write_bytes_atomic(tmp_path / "none" / "x", b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="folder of that name"):
        write_bytes_atomic(tmp_path / "folder", b"")

    def no_space() -> None:
        with atomic_path(tmp_path / "x"):
            raise OSError(errno.ENOSPC, "No space left on device")

    def missing_input() -> None:
        with atomic_path(tmp_path / "x"):
            (tmp_path / "input").read_bytes()

    with pytest.raises(OutputError, match="full"):
        no_space()
    with pytest.raises(FileNotFoundError):
        missing_input()
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.ENOSPC, "full"), (errno.EACCES, "permission"), (errno.EROFS, "permission"), (errno.EIO, "output folder")],
)
def test_every_error_says_what_to_do(code: int, words: str) -> None:
    error = output_error(Path("/some/x.mkv"), OSError(code, os.strerror(code)))
    assert words in str(error)
    assert "/some/x.mkv".replace("/", os.sep) in str(error)
    assert error.fix


def test_json_is_stable_and_strict(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json_atomic(path, {"b": 1, "a": [0.1, None, "é"]})
    assert path.read_bytes() == '{\n  "b": 1,\n  "a": [\n    0.1,\n    null,\n    "é"\n  ]\n}\n'.encode()
    assert json.loads(path.read_text(encoding="utf-8")) == {"b": 1, "a": [0.1, None, "é"]}
    with pytest.raises(ValueError, match="JSON"):
        write_json_atomic(path, {"x": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8"))["b"] == 1


def test_a_killed_writer_leaves_only_a_temporary(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from ex4d.io.atomic import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as path:\n"
        "    path.write_text('half'); os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.bin")], check=False)
    (left,) = tmp_path.iterdir()
    assert is_temporary(left)
    (tmp_path / ".mine.tmp").write_text("not ours")
    assert remove_temporaries(tmp_path) == [left]
    assert [path.name for path in tmp_path.iterdir()] == [".mine.tmp"]


def test_what_is_said_of_a_path_is_true(tmp_path: Path) -> None:
    """A folder that is there is not said to be missing, and a file is not called a folder."""
    (tmp_path / "file").write_text("")
    said = {
        name: str(output_error(tmp_path / name, OSError(number, os.strerror(number))))
        for name, number in (("new", errno.ENOENT), ("none/new", errno.ENOENT), ("file", errno.EEXIST))
    }
    assert "does not exist" not in said["new"]
    assert f"the folder {tmp_path / 'none'} does not exist" in said["none/new"]
    assert "a file of that name is in the way" in said["file"]
