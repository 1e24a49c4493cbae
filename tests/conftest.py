"""Shared fixtures: real clips (outside the project), small random scenes."""

import os
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]


def find_shared() -> Path | None:
    """The folder of real clips and oracles: `EX4D_SHARED`, or ../shared beside the project."""
    candidates = [os.environ.get("EX4D_SHARED"), REPO.parent / "shared"]
    for candidate in candidates:
        if candidate and (Path(candidate) / "clips").is_dir():
            return Path(candidate).resolve()
    return None


@pytest.fixture(scope="session")
def shared() -> Path:
    folder = find_shared()
    if folder is None:
        pytest.skip("real clips not found: set EX4D_SHARED to the folder that holds clips/")
    return folder
