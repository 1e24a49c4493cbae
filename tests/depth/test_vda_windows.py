"""Windows over clips of any length: every frame once, in order; jumps of scale and shift between windows undone."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from ex4d.core.arrays import Float32
from ex4d.depth.pretrained.vda_windows import KEY_SLOTS, WINDOW_FRAMES, cross_fade, stitch_windows
from ex4d.errors import DepthError

HEIGHT, WIDTH = 6, 8


def truth(num_frames: int, seed: int = 0) -> Float32:
    """Disparity in (1, 2) that changes from frame to frame."""
    return (1 + np.random.default_rng(seed).random((num_frames, HEIGHT, WIDTH))).astype(np.float32)


class WindowScales:
    """A network that knows the truth, and has a scale and shift of its own in every window."""

    def __init__(self, scales: Sequence[tuple[float, float]] = ((1.0, 0.0),)) -> None:
        self.scales = scales
        self.windows: list[list[int]] = []
        self.wanted: list[int] = []

    def decode(self, window: Sequence[Any], wanted: int) -> Float32:
        scale, shift = self.scales[len(self.windows) % len(self.scales)]
        self.windows.append([number for number, _ in window])
        self.wanted.append(wanted)
        return np.stack([scale * values + shift for _, values in window[:wanted]]).astype(np.float32)


def stitched(
    network: WindowScales, frames: Float32, misfits: list[int] | None = None
) -> tuple[Float32, list[int], list[int]]:
    """(all frames, how many came at a time, how many were read by then)."""
    read = 0

    def encoded() -> Iterator[tuple[int, Float32]]:
        nonlocal read
        for number, frame in enumerate(frames):
            read = number + 1
            yield number, frame

    heard = [] if misfits is None else misfits
    parts, read_by_then = [], []
    for part in stitch_windows(encoded(), len(frames), network, on_misfit=heard.append, name="fake"):
        parts.append(part)
        read_by_then.append(read)
    return np.concatenate(parts), [len(part) for part in parts], read_by_then


@pytest.mark.parametrize("num_frames", [1, 5, 31, 32, 33, 49, 54, 55, 76, 77, 120])
def test_every_frame_once_and_in_order(num_frames: int) -> None:
    frames, network = truth(num_frames), WindowScales()
    found, counts, _ = stitched(network, frames)
    assert found.shape == frames.shape
    assert np.abs(found - frames).max() < 1e-5
    assert sum(counts) == num_frames
    assert len(network.windows) == max(1, -(-(num_frames - 10) // 22)), "no window without a new frame"
    assert all(len(window) == WINDOW_FRAMES for window in network.windows)
    assert [n for i, w in enumerate(network.windows) for n in w[10 if i else 0 : network.wanted[i]]] == list(
        range(num_frames)
    )


def test_windows_are_the_release_s() -> None:
    network = WindowScales()
    stitched(network, truth(80))
    first, second, third, fourth = network.windows
    assert first == list(range(32))
    assert second == [0, 12, *range(24, 32), *range(32, 54)]
    assert third == [0, 34, *range(46, 54), *range(54, 76)]
    assert fourth == [0, 56, *range(68, 76), *range(76, 80), *[79] * 18], "filled up with the last frame"
    assert network.wanted == [32, 32, 32, 14]
    assert len(KEY_SLOTS) == 10


@pytest.mark.parametrize("num_frames", [33, 49, 120])
def test_scale_and_shift_of_windows_are_undone(num_frames: int) -> None:
    frames = truth(num_frames)
    scales = [(1.3, 0.2), (0.4, 0.1), (5.0, -1.0), (0.9, 3.0), (2.0, 0.0)]
    misfits: list[int] = []
    found, _, _ = stitched(WindowScales(scales), frames, misfits)
    assert np.abs(found - (1.3 * frames + 0.2)).max() < 1e-4, "the unit of the first window"
    assert misfits == []


def test_windows_that_disagree_are_cross_faded() -> None:
    class Late(WindowScales):
        """After the first window, what was not seen before is nearer by 1."""

        def decode(self, window: Sequence[Any], wanted: int) -> Float32:
            values = super().decode(window, wanted)
            if len(self.windows) > 1:
                values[2:] += 1
            return values

    frames = truth(54)
    found, _, _ = stitched(Late(), frames)
    step = (found - frames).mean(axis=(1, 2))
    assert np.allclose(step[:25], 0, atol=1e-5)
    assert np.allclose(step[24:32], np.arange(8) / 7, atol=1e-5)
    assert np.allclose(step[32:], 1, atol=1e-5)


def test_negative_disparity_is_none() -> None:
    found, _, _ = stitched(WindowScales([(1.0, -1.5)]), truth(60))
    assert found.min() == 0
    assert np.abs(found - np.maximum(truth(60) - 1.5, 0)).max() < 0.2, "clipped values enter the fit, as the release's"


@pytest.mark.parametrize(
    ("kind", "scales"),
    [("constant", ((1.0, 0.0), (0.0, 7.0))), ("reversed", ((1.0, 0.0), (-1.0, 3.0)))],
)
def test_windows_that_cannot_be_fitted_are_said(kind: str, scales: tuple[tuple[float, float], ...]) -> None:
    frames, misfits = truth(40), list[int]()
    found, _, _ = stitched(WindowScales(scales), frames, misfits)
    assert np.isfinite(found).all(), kind
    assert misfits == [32]
    mean = frames[[0, 12]].mean()
    if kind == "constant":
        assert np.allclose(found[32:], mean, atol=1e-4)
    else:
        assert np.allclose(found[32:], np.maximum(2 * mean - frames[32:], 0), atol=1e-4), "never turned about"


def test_a_constant_clip_stays_constant() -> None:
    frames = np.full((60, HEIGHT, WIDTH), 3.0, np.float32)
    found, _, _ = stitched(WindowScales([(1.0, 0.0), (1.0, 2.0), (1.0, -1.0)]), frames)
    assert np.allclose(found, 3.0, atol=1e-5)


def test_little_is_read_ahead_and_held() -> None:
    _, counts, read = stitched(WindowScales(), truth(200))
    given = np.cumsum(counts)
    assert max(counts) <= WINDOW_FRAMES
    assert (np.array(read) - given).max() <= WINDOW_FRAMES


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("number", [3, 40, 47])
def test_nan_names_the_frame(bad: float, number: int) -> None:
    frames = truth(50)
    frames[number, 2, 3] = bad
    with pytest.raises(DepthError, match=rf"finite numbers from fake in frame {number}; got 1 of 48 pixels"):
        stitched(WindowScales(), frames)


def test_cross_fade_starts_and_ends_with_what_it_is_given() -> None:
    before, after = truth(8, seed=1), truth(8, seed=2)
    faded = cross_fade(before, after)
    assert np.array_equal(faded[0], before[0])
    assert np.array_equal(faded[7], after[7])
    assert np.allclose(faded[3], before[3] * 4 / 7 + after[3] * 3 / 7)
