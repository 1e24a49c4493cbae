"""Disparity to depth: parity with the official release, the floor mapping, and clip-global statistics."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ex4d.core.depth import DepthScale
from ex4d.depth.mapping import (
    DisparityStatistics,
    MappedDepthClip,
    floor_depth,
    measure_disparity,
    official_depth,
)
from ex4d.errors import DepthError
from ex4d.io.depth.raw import DepthKind, RawDepth, RawDepthClip
from helpers import load_safetensors

ORACLE = Path(os.environ.get("EX4D_GEOMETRY_ORACLE") or Path(__file__).parents[1] / "data/geometry_oracle.safetensors")


class ArrayDisparity:
    """Disparity (and sky) in memory; counts how many frames a read may ask for."""

    kind: DepthKind = "disparity"
    scale: DepthScale = "relative"
    K = None
    path = None
    description = "test"
    notices = ()

    def __init__(self, values: np.ndarray, sky: np.ndarray | None = None) -> None:
        self.values, self.sky = values.astype(np.float32), sky
        self.num_frames, self.height, self.width = values.shape
        self.timestamps_s = np.arange(len(values)) / 30
        self.largest_read = 0

    def read(self, start: int, stop: int) -> RawDepth:
        self.largest_read = max(self.largest_read, stop - start)
        sky = None if self.sky is None else self.sky[start:stop]
        return RawDepth(values=self.values[start:stop], timestamps_s=self.timestamps_s[start:stop], sky=sky)


def test_official_mapping_equals_the_oracle() -> None:
    oracle = load_safetensors(ORACLE)
    raw = ArrayDisparity(oracle["disparity"])
    clip = MappedDepthClip(raw=raw, statistics=measure_disparity(raw), mapping="official")
    depth = clip.read(0, clip.num_frames).depth
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth, oracle["depth"], rtol=1e-5, atol=0)


def test_official_range() -> None:
    depth = official_depth(np.array([0.0, 0.5, 1.0], np.float32) * 7 - 2, -2, 5)
    np.testing.assert_allclose(depth, [1e4, 10000 / 1950, 10000 / 3900], rtol=1e-6)


def test_floor_mapping_by_its_formula() -> None:
    depth = floor_depth(np.array([-1.0, 2.0, 4.0, 6.0, 9.0], np.float32), 2, 6)
    np.testing.assert_allclose(depth, 1 / np.array([0.15, 0.15, 0.575, 1, 1]), rtol=1e-6)


def test_sky_lies_beyond() -> None:
    values = np.array([0.0, 1.0], np.float32)
    depth = floor_depth(values, 0, 1, sky=np.array([True, False]))
    assert depth[0] > 1 / 0.15 + 1
    assert depth[1] == 1


@given(
    values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=30),
    floor=st.floats(0.01, 0.9),
)
def test_floor_mapping_is_bounded_and_monotone(values: list[float], floor: float) -> None:
    disparity = np.sort(np.array(values, np.float32))
    low, high = float(disparity[0]), float(disparity[-1])
    if not high > low + 1e-3:
        return
    depth = floor_depth(disparity, low, high, floor=floor)
    assert (np.diff(depth) <= 0).all()
    np.testing.assert_allclose([depth[-1], depth[0]], [1, 1 / floor], rtol=1e-5)


def test_statistics_are_of_the_whole_clip_and_stream() -> None:
    values = np.random.default_rng(0).normal(size=(40, 90, 120))
    values[37, 5, 5], values[2, 80, 3] = 50, -60
    clip = ArrayDisparity(values)
    stats = measure_disparity(clip)
    assert (stats.minimum, stats.maximum) == (-60, 50)
    np.testing.assert_allclose([stats.low, stats.high], np.percentile(values, (1, 99)), atol=0.01)
    assert clip.largest_read <= 8


def test_statistics_of_long_clips_are_sampled() -> None:
    frame = np.linspace(0, 1, 40 * 60).reshape(40, 60)
    stats = measure_disparity(ArrayDisparity(np.repeat(frame[None], 3000, axis=0)))
    assert (stats.minimum, stats.maximum) == (0, 1)
    np.testing.assert_allclose([stats.low, stats.high], [0.01, 0.99], atol=0.02)


def test_sky_does_not_count() -> None:
    values = np.random.default_rng(0).uniform(1, 2, (3, 20, 20))
    sky = np.zeros(values.shape, bool)
    sky[:, :10] = True
    values[sky] = -100
    stats = measure_disparity(ArrayDisparity(values, sky))
    assert 1 <= stats.minimum < stats.low < stats.high < stats.maximum <= 2


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_disparity_is_named(bad: float) -> None:
    values = np.random.default_rng(0).uniform(size=(12, 4, 4))
    values[9, 0, 0] = bad
    with pytest.raises(DepthError, match="frame 9"):
        measure_disparity(ArrayDisparity(values))


def test_flat_disparity_is_refused() -> None:
    with pytest.raises(DepthError, match="same value"):
        measure_disparity(ArrayDisparity(np.ones((3, 4, 4))))


def test_a_clip_flat_but_for_a_few_pixels_uses_its_full_range() -> None:
    values = np.zeros((2, 30, 30))
    values[0, 0, 0] = 1
    raw = ArrayDisparity(values)
    depth = MappedDepthClip(raw=raw, statistics=measure_disparity(raw)).read(0, 1).depth
    assert depth[0, 0, 0] == 1
    assert depth[0, 1, 1] == pytest.approx(1 / 0.15)


def test_negative_disparity_is_fine_because_its_shift_is_unknown() -> None:
    raw = ArrayDisparity(np.linspace(-3, -1, 100).reshape(1, 10, 10))
    depth = MappedDepthClip(raw=raw, statistics=measure_disparity(raw)).read(0, 1).depth
    assert depth.min() == 1
    assert isinstance(measure_disparity(raw), DisparityStatistics)


def test_raw_clip_is_a_disparity_source(tmp_path: Path) -> None:
    from ex4d.io.depth.files import open_depth

    np.savez(tmp_path / "d.npz", disparity=np.linspace(0, 1, 200).reshape(2, 10, 10))
    raw = open_depth(tmp_path / "d.npz")
    assert isinstance(raw, RawDepthClip)
    depth = MappedDepthClip(raw=raw, statistics=measure_disparity(raw)).read(0, 2)
    assert depth.valid.all()
