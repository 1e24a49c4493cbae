"""Checks and resampling that all given depth passes."""

import numpy as np
import pytest

from ex4d.core.clip import ArrayClip
from ex4d.core.depth import DepthVideo
from ex4d.errors import DepthError
from ex4d.io.depth.clip import CheckedDepthClip, ResampledDepthClip, check_depth_clip, nearest_index
from ex4d.io.depth.raw import RawDepthClip


class MemoryFrames:
    """Frames in memory."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values.astype(np.float32)
        self.num_frames, self.height, self.width = values.shape

    def read_frames(self, indices: np.ndarray) -> np.ndarray:
        return self.values[indices]


def checked(values: np.ndarray, frames: list[int] | None = None, max_depth: float | None = None) -> CheckedDepthClip:
    index = np.array(frames if frames is not None else range(len(values)), np.int64)
    raw = RawDepthClip(
        frames=MemoryFrames(values), kind="depth", scale="metric", timestamps_s=index / 30.0, frame_index=index
    )
    return CheckedDepthClip(raw=raw, max_depth=max_depth)


def test_zero_and_too_far_are_invalid() -> None:
    values = np.full((2, 4, 5), 3.0)
    values[0, 0, 0], values[1, 2, 3] = 0, 25
    chunk = checked(values, max_depth=20).read(0, 2)
    assert chunk.valid.sum() == 38
    assert chunk.depth[1, 2, 3] == 0
    assert checked(values).read(0, 2).valid.sum() == 39


@pytest.mark.parametrize(
    ("bad", "word"), [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite"), (-0.5, "negative")]
)
def test_the_first_bad_frame_is_named(bad: float, word: str) -> None:
    values = np.ones((20, 4, 5))
    values[13, 1, 1] = values[17, 1, 1] = bad
    with pytest.raises(DepthError, match=rf"frame 13.*{word}"):
        check_depth_clip(checked(values))


def test_a_selected_frame_keeps_its_number_in_the_file() -> None:
    values = np.ones((20, 4, 5))
    values[13, 1, 1] = np.nan
    with pytest.raises(DepthError, match="frame 13"):
        check_depth_clip(checked(values, frames=[11, 12, 13]))
    check_depth_clip(checked(values, frames=[11, 12, 14]))


def test_a_frame_without_depth_is_named() -> None:
    values = np.ones((6, 4, 5))
    values[4] = 0
    with pytest.raises(DepthError, match="frame 4"):
        check_depth_clip(checked(values))
    with pytest.raises(DepthError, match=r"at most 0\.5"):
        check_depth_clip(checked(np.ones((1, 4, 5)), max_depth=0.5))


def test_nearest_resampling_carries_validity() -> None:
    depth = np.arange(1, 13, dtype=np.float32).reshape(1, 3, 4)
    valid = depth != 6
    video = DepthVideo(depth=np.where(valid, depth, 0), valid=valid, timestamps_s=np.zeros(1), scale="metric")
    twice = ResampledDepthClip(
        clip=ArrayClip(video), frame_index=np.array([0, 0]), timestamps_s=np.array([0.0, 0.1]), height=6, width=8
    ).read(0, 2)
    np.testing.assert_array_equal(twice.depth[0], np.kron(video.depth[0], np.ones((2, 2))))
    np.testing.assert_array_equal(twice.valid[1], np.kron(valid[0], np.ones((2, 2))).astype(bool))
    np.testing.assert_array_equal(twice.timestamps_s, [0, 0.1])


def test_nearest_index_is_symmetric_and_in_range() -> None:
    for size in range(1, 12):
        for new in range(1, 30):
            index = nearest_index(size, new)
            assert index.min() >= 0
            assert index.max() < size
    np.testing.assert_array_equal(nearest_index(4, 4), np.arange(4))
    np.testing.assert_array_equal(nearest_index(4, 2), [1, 3])
