"""Windows cover a clip exactly, whatever its length."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ex4d.errors import ConfigError
from ex4d.model.windows import Window, fade_weights, latent_frames, plan_windows, round_up

LENGTHS = st.integers(1, 2000)
SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40)).filter(lambda pair: pair[0] > pair[1])
"""(k, v): windows of 4k+1 frames that share 4v+1."""


@given(LENGTHS, SIZES)
def test_every_window_fits_the_vae_and_the_limit(num_frames: int, sizes: tuple[int, int]) -> None:
    limit, overlap = (4 * size + 1 for size in sizes)
    windows = plan_windows(num_frames, window_frames=limit, overlap_frames=overlap)
    assert {window.num_frames for window in windows} == {windows[0].num_frames}
    for window in windows:
        assert window.num_frames % 4 == 1
        assert 5 <= window.num_frames <= limit
        assert window.num_latent_frames == (window.num_frames - 1) // 4 + 1
        assert window.start % 4 == 0  # latent frames of all windows fall on the same times


@given(LENGTHS, SIZES)
def test_windows_cover_all_frames_and_share_what_was_asked(num_frames: int, sizes: tuple[int, int]) -> None:
    limit, overlap = (4 * size + 1 for size in sizes)
    windows = plan_windows(num_frames, window_frames=limit, overlap_frames=overlap)
    assert windows[0].start == 0
    assert windows[0].num_shared == windows[0].num_shared_latents == 0
    for before, after in itertools.pairwise(windows):
        assert before.stop - after.start == after.num_shared == overlap
        assert after.num_shared_latents == (overlap - 1) // 4
        assert before.stop < num_frames, "the window after it would add nothing"
    assert num_frames <= windows[-1].stop


@given(LENGTHS, SIZES)
def test_as_few_windows_as_possible_and_then_as_short(num_frames: int, sizes: tuple[int, int]) -> None:
    limit, overlap = (4 * size + 1 for size in sizes)
    windows = plan_windows(num_frames, window_frames=limit, overlap_frames=overlap)
    count = len(windows)
    if count > 1:
        assert (count - 1) * (limit - overlap) + overlap < num_frames, "one window fewer would do"
    shorter = windows[0].num_frames - 4
    if shorter >= 5 and (count == 1 or shorter > overlap):
        assert count * (shorter - overlap) + overlap < num_frames if count > 1 else shorter < num_frames


@pytest.mark.parametrize(
    ("num_frames", "wanted"),
    [
        (1, [(0, 5)]),
        (5, [(0, 5)]),
        (6, [(0, 9)]),
        (48, [(0, 49)]),
        (49, [(0, 49)]),
        (50, [(0, 33), (24, 57)]),
        (120, [(0, 49), (40, 89), (80, 129)]),
    ],
)
def test_plans(num_frames: int, wanted: list[tuple[int, int]]) -> None:
    windows = plan_windows(num_frames, window_frames=49, overlap_frames=9)
    assert [(window.start, window.stop) for window in windows] == wanted


@pytest.mark.parametrize(
    ("window_frames", "overlap_frames", "said"),
    [
        (48, 9, "--window-frames of 4k"),
        (1, 1, "--window-frames"),
        (49, 8, "--overlap-frames of 4k"),
        (49, 1, "--overlap-frames"),
        (49, 49, "below --window-frames"),
        (9, 13, "below --window-frames"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(window_frames: int, overlap_frames: int, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plan_windows(10, window_frames=window_frames, overlap_frames=overlap_frames)


@given(st.integers(1, 10_000))
def test_rounding_up(num_frames: int) -> None:
    rounded = round_up(num_frames)
    assert rounded % 4 == 1
    assert max(num_frames, 5) <= rounded < max(num_frames, 2) + 4
    assert latent_frames(rounded) == (rounded + 3) // 4


def test_latent_frames_of_other_counts_are_refused() -> None:
    assert [latent_frames(num_frames) for num_frames in (1, 5, 49, 81)] == [1, 2, 13, 21]
    with pytest.raises(ValueError, match="4k"):
        latent_frames(50)


@given(st.integers(0, 200))
def test_fades_rise_and_are_their_own_mirror(count: int) -> None:
    weights = fade_weights(count)
    assert len(weights) == count
    assert all(0 < weight < 1 for weight in weights)
    assert all(a < b for a, b in itertools.pairwise(weights))
    assert [1 - weight for weight in reversed(weights)] == pytest.approx(list(weights))


def test_shared_latents_of_a_window() -> None:
    assert Window(start=40, num_frames=49, num_shared=9).num_shared_latents == 2
    assert Window(start=0, num_frames=49, num_shared=0).num_shared_latents == 0
