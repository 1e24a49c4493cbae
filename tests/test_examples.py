"""Every example runs as a user would run it: a process of its own, no input, tiny size."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"

CASES: dict[str, tuple[list[str], list[str]]] = {
    "01_refilm_a_clip.py": (
        ["--num-frames", "3", "--size", "64x48"],
        ["clip.mp4", "clip_depth.npz", "refilm/result.mp4", "refilm/prior.json"],
    ),
    "02_mesh_from_one_frame.py": (["--size", "64x48"], ["frame.glb", "frame.ply"]),
    "03_own_camera_path.py": (["--num-frames", "3", "--size", "64x48"], ["my_path.mp4", "my_path.json"]),
    "04_generate_from_a_prior.py": (
        ["--num-frames", "3", "--size", "64x48"],
        ["prior/prior.json", "generated/result.mp4", "generated/config.json", "generated/sheet.png"],
    ),
}
"""Arguments, and the files that must be there afterwards."""


def run_example(name: str, arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments, "-o", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(EXAMPLES.parent / "src")}
    return subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", timeout=110, check=False, env=environment
    )


def test_every_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_example_runs(name: str, tmp_path: Path) -> None:
    arguments, files = CASES[name]
    done = run_example(name, arguments, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.strip()
    for file in files:
        assert (tmp_path / file).stat().st_size > 0


def test_the_mesh_example_says_that_it_is_closed(tmp_path: Path) -> None:
    done = run_example("02_mesh_from_one_frame.py", ["--size", "32x24"], tmp_path)
    assert f"{34 * 26} vertices" in done.stdout
    assert "watertight: True" in done.stdout


def test_the_saved_path_can_be_filmed_from(tmp_path: Path) -> None:
    """What example 03 writes is what its docstring says: a file for ``--cam``."""
    from ex4d.io.cameras.files import read_cameras

    assert run_example("03_own_camera_path.py", CASES["03_own_camera_path.py"][0], tmp_path).returncode == 0
    loaded = read_cameras(tmp_path / "my_path.json", height=48, width=64)
    assert len(loaded.path) == 3
    assert loaded.notices == ()
    assert loaded.path.center[-1, 0] > 0
