"""The gate of a small depth network, at a tiny size: clips are made, a loss falls out, the table is printed."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.prove  # minutes, for a network that is not shipped

REPO = Path(__file__).parents[1]
SEEDS = ["1006", "1008"]  # a dolly and a camera that stands


@pytest.fixture(autouse=True, scope="module")
def _places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The scripts import each other by name; recordings are not there."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPO / "benchmarks"))
        patch.setenv("EX4D_CACHE", str(tmp_path_factory.getbasetemp() / "depth_network_cache"))
        patch.setenv("EX4D_SHARED", str(tmp_path_factory.getbasetemp() / "nothing"))
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of four frames and a network of three steps."""
    where = tmp_path_factory.mktemp("network")
    for seed in SEEDS:
        assert (
            script("depth_network").main(
                ["make", str(where), "--seeds", seed, str(int(seed) + 1), "--frames", "4", "--width", "96"]
            )
            == 0
        )
    return where


def script(name: str) -> Any:
    return importlib.import_module(name)


def test_training_clips_hold_what_was_rendered(folder: Path) -> None:
    moving, still = (np.load(folder / f"{seed}.npz") for seed in SEEDS)
    for stored in (moving, still):
        assert stored["rgb"].shape == (4, 128, 192, 3)
        assert stored["maps"].shape == (4, 6, 128, 192)
        z = stored["depth"].reshape(4, -1)
        near, far = (np.take_along_axis(z, stored["pairs"][:, side].astype(np.int64), axis=1) for side in (0, 1))
        assert (far > 1.05 * near).mean() > 0.9
    assert (moving["maps"][:, 1] > 0).mean() > 0.3  # parallax is known
    assert not still["maps"][:, :3].any()


def test_the_truth_costs_nothing_and_mirroring_keeps_borders(folder: Path) -> None:
    network = script("depth_network_training")
    for seed in range(4):
        batch = network.load_batch([folder / f"{s}.npz" for s in SEEDS], np.random.default_rng(seed), 2, "cpu")
        truth, shifted = network.loss_of(batch.inverse, batch), network.loss_of(3 * batch.inverse + 1, batch)
        assert float(truth) < 0.02
        assert float(shifted) == pytest.approx(float(truth), abs=1e-3)
        assert float(network.loss_of(batch.maps[:, :, 3].exp(), batch)) > 0.1


@pytest.mark.timeout(600)
def test_an_untrained_network_is_builtin_and_three_steps_change_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = script("depth_network")
    torch.save(network.DepthNetwork().state_dict(), folder / "untrained.pt")
    tiny = ["judge", str(folder), "--sets", "procedural", "7scenes", "--seeds", "102", "--frames", "3", "--width", "96"]
    assert network.main([*tiny, "--checkpoint", "untrained.pt"]) == 1
    rows = rows_of(capsys.readouterr().out)
    assert rows["network"][:3] == rows["network-still"][:3] == rows["builtin"][:3]
    _, losses = network.train(folder, minutes=5, steps=3)
    assert len(losses) == 3
    assert np.isfinite(losses).all()
    assert network.main(tiny) == 1
    out = capsys.readouterr().out
    assert "gate, network: 7scenes abs_rel not measured" in out
    assert rows_of(out)["network"] != rows["network"]


def rows_of(table: str) -> dict[str, list[str]]:
    """Numbers of the set's rows by method."""
    lines = [line.split() for line in table.splitlines() if line.startswith("procedural ")]
    return {words[1]: words[2:] for words in lines}
