"""The yardstick of depth on tiny scenes: the truth is perfect, everything else is not, and goals are reported."""

import importlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ex4d.core.clip import Clip
from ex4d.core.video import Video
from ex4d.depth.estimator import SequentialDepth
from ex4d.io.depth.raw import RawDepthSource

REPO = Path(__file__).parents[1]
TINY = ["--sets", "procedural", "--seeds", "102", "107", "--frames", "3", "--width", "96"]


@pytest.fixture(autouse=True)
def _places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The scripts import each other by name; scenes are rendered once for this file, recordings are not there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPO / "benchmarks"))
        patch.setenv("EX4D_CACHE", str(tmp_path_factory.getbasetemp() / "depth_benchmark"))
        patch.setenv("EX4D_SHARED", str(tmp_path_factory.getbasetemp() / "nothing"))
        yield


def script(name: str) -> Any:
    return importlib.import_module(name)


def tiny_clips() -> list[Any]:
    data = script("depth_data")
    return list(data.procedural((102, 107), size=data.ProceduralSize(num_frames=3, height=64, width=96)))


def of_disparity(disparity: np.ndarray, source: Clip[Video]) -> RawDepthSource:
    return SequentialDepth(
        num_frames=source.num_frames,
        height=disparity.shape[1],
        width=disparity.shape[2],
        timestamps_s=source.timestamps_s,
        chunks=iter([(disparity.astype(np.float32), None)]),
        kind="disparity",
        scale="relative",
    )


def test_baselines_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert script("depth_rgbd").main([*TINY, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found["clips"][::6]] == ["102 room dolly", "107 outdoor pan"]
    sets = {row["method"]: row for row in found["sets"]}
    assert list(sets) == list(script("depth_rgbd").METHODS)
    assert sets["constant"]["order"] == sets["constant"]["sign"] == 0
    assert 0.1 < sets["ramp"]["abs_rel"] < sets["constant"]["abs_rel"] < 1
    assert all(row["flicker"] > 0 and row["num_pairs"] > 100 for row in found["clips"])
    of_ramp = [row for row in found["clips"] if row["method"] == "ramp"]
    pooled = sum(row["sign"] * row["num_pairs"] for row in of_ramp) / sum(row["num_pairs"] for row in of_ramp)
    assert sets["ramp"]["sign"] == pytest.approx(pooled)
    assert sets["ramp"]["abs_rel"] == pytest.approx(np.mean([row["abs_rel"] for row in of_ramp]))


def test_truth_of_unknown_scale_and_shift_is_perfect(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = script("depth_rgbd")
    for clip in tiny_clips():
        monkeypatch.setitem(bench.METHODS, "truth", lambda source, c=clip: of_disparity(3 / c.depth - 0.2, source))
        borders = [bench.border_pairs(depth, known) for depth, known in zip(clip.depth, clip.known, strict=True)]
        row = bench.measure("truth", clip, borders)
        assert (row.abs_rel, row.flicker) == (pytest.approx(0, abs=1e-5), pytest.approx(0, abs=1e-5))
        assert row.delta1 == row.order == row.sign == 1


def test_movers_are_followed_and_jumps_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, data = script("depth_rgbd"), script("depth_data")
    (clip,) = data.procedural((102,), ("static",), size=data.ProceduralSize(num_frames=3, height=64, width=96))
    moved = [points for points in clip.matches if (points.before != points.after).any()]
    assert moved  # the camera stands still: these are objects
    share = np.array([[1.0], [1.1], [1.0]])[..., None]
    monkeypatch.setitem(bench.METHODS, "jumpy", lambda source: of_disparity(share / clip.depth, source))
    row = bench.measure("jumpy", clip, [bench.border_pairs(clip.depth[0], clip.known[0])] * 3)
    assert 0.03 < row.flicker < 0.12
    assert row.sign > 0.95


def test_maps_of_another_size_and_the_sky_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = script("depth_rgbd")
    clip = tiny_clips()[1]
    assert not clip.known.all()
    monkeypatch.setitem(bench.METHODS, "half", lambda source: of_disparity(1 / clip.depth[:, ::2, ::2], source))
    disparity, seconds = bench.run_method(bench.METHODS["half"], clip)
    assert disparity.shape == clip.depth.shape
    assert np.array_equal(disparity[:, ::2, ::2], 1 / clip.depth[:, ::2, ::2])
    assert seconds > 0
    wild = replace(clip, depth=np.where(clip.known, clip.depth, np.float32(9e4)))
    assert np.array_equal(bench.fit_depth(disparity, wild), bench.fit_depth(disparity, clip))


def test_scenes_are_rendered_once() -> None:
    tiny_clips()
    folder = Path(script("depth_data").cache_root()) / "benchmarks/depth"
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    tiny_clips()
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before


def test_sets_that_are_not_there_are_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    assert script("depth_rgbd").main(["--sets", "7scenes", "slambook"]) == 0
    assert capsys.readouterr().out.count("skipped") == 2


def test_goals_are_held_against_builtin(capsys: pytest.CaptureFixture[str]) -> None:
    bench = script("depth_rgbd")

    def row(method: str, abs_rel: float, order: float) -> Any:
        return bench.Row(
            name="7scenes",
            method=method,
            abs_rel=abs_rel,
            delta1=0.5,
            num_pairs=10,
            order=order,
            sign=order,
            flicker=0.01,
            seconds_a_frame=0.1,
        )

    others = [row("constant", 0.3, 0.0), row("ramp", 0.2, 0.1)]
    assert bench.report_goals([*others, row("builtin", 0.14, 0.5)])
    assert not bench.report_goals([*others, row("builtin", 0.16, 0.5)])
    assert not bench.report_goals([*others, row("builtin", 0.14, 0.05)])
    assert capsys.readouterr().out.count("MISSED") == 2
    assert "builtin" not in [method.method for method in others]
    assert bench.report_goals(others)
