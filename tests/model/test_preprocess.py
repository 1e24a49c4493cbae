"""Ranges, edges and rounding of what goes into the model; the release's own values are in tests/parity."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ex4d.model import preprocess

COLOR = (200, 40, 10)


def half_seen(height: int = 60, width: int = 90, channels: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """One frame: one colour where observed, black elsewhere, with a slanted edge between them."""
    rows, columns = np.mgrid[:height, :width]
    seen = columns + rows / 3 < width / 2
    mask = np.where(seen, 255, 0).astype(np.uint8)
    rgb = (np.array(COLOR, np.uint8) * seen[..., None]).astype(np.uint8)
    return rgb[None], np.repeat(mask[..., None], 3, axis=-1)[None] if channels else mask[None]


@pytest.mark.parametrize("size", [(32, 48), (64, 64), (112, 160), (25, 180)])
@pytest.mark.parametrize("channels", [False, True])
def test_no_black_bleeds_into_edges(size: tuple[int, int], channels: bool) -> None:
    rgb, mask = half_seen(channels=channels)
    color, seen = preprocess.resize_view(rgb, mask, height=size[0], width=size[1], official=False)
    assert color.shape == (1, *size, 3)
    assert seen.shape == (1, *size, *([3] if channels else []))
    share = seen[..., 0] if channels else seen
    partly = (share > 0) & (share < 255)
    assert partly.any(), "no pixel of an edge to look at"
    assert np.abs(color[share > 0].astype(int) - COLOR).max() <= 1
    assert not color[share == 0].any()


def test_the_releases_resize_does_bleed() -> None:
    """Or the test above could not fail."""
    color, seen = preprocess.resize_view(*half_seen(), height=32, width=48, official=True)
    assert (color[seen > 127][:, 0] < 190).any()


def test_shrinking_averages_areas() -> None:
    stripes = np.zeros((1, 64, 64, 3), np.uint8)
    stripes[:, :, ::4] = 200
    seen = np.full((1, 64, 64), 255, np.uint8)
    color, _ = preprocess.resize_view(stripes, seen, height=16, width=16, official=False)
    assert np.abs(color.astype(int) - 50).max() <= 1
    aliased, _ = preprocess.resize_view(stripes, seen, height=16, width=16, official=True)
    assert not aliased.any()


def test_frames_of_the_right_size_stay_as_they_are() -> None:
    rgb, mask = half_seen()
    for official in (True, False):
        same = preprocess.resize_view(rgb, mask, height=60, width=90, official=official)
        np.testing.assert_array_equal(same[0], rgb)
        np.testing.assert_array_equal(same[1], mask)


@pytest.mark.parametrize("side", [1, 2, 5, 8])
def test_erosion_grows_holes_and_leaves_the_frames_edge(side: int) -> None:
    mask = np.full((2, 40, 40), 255, np.uint8)
    np.testing.assert_array_equal(preprocess.erode_mask(mask, str(side), seed=0), mask)
    mask[1, 20, 20] = 0
    eroded = preprocess.erode_mask(mask, str(side), seed=0)
    assert (eroded[0] == 255).all()
    assert (eroded[1] == 0).sum() == side * side


def test_the_threshold_is_above_one_half() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    for dtype in (torch.float32, torch.bfloat16):
        np.testing.assert_array_equal(preprocess.threshold_mask(levels, dtype=dtype), levels >= 128)


def test_the_quirk_maps_the_mask_to_minus_three_and_one() -> None:
    observed = np.zeros((1, 16, 32), bool)
    observed[:, :, :16] = True
    for dtype in (torch.float32, torch.bfloat16):
        for quirk, low in ((True, -3), (False, -1)):
            video = preprocess.observed_to_model(observed, quirk=quirk, dtype=dtype)
            assert video.shape == (1, 3, 1, 16, 32)
            assert video.dtype == dtype
            assert (video[..., :16] == 1).all()
            assert (video[..., 16:] == low).all()


def test_masks_with_and_without_channels_are_the_same() -> None:
    rgb, mask = half_seen()
    plain, stacked = mask > 127, np.repeat((mask > 127)[..., None], 3, axis=-1)
    assert torch.equal(*(preprocess.color_to_model(rgb, observed) for observed in (plain, stacked)))
    assert torch.equal(*(preprocess.observed_to_model(observed, quirk=True) for observed in (plain, stacked)))


def test_unobserved_color_is_black_whatever_it_was() -> None:
    rgb, mask = half_seen()
    noise = np.where((mask > 0)[..., None], rgb, 123).astype(np.uint8)
    color = preprocess.color_to_model(noise, mask > 0)
    assert torch.equal(color, preprocess.color_to_model(rgb, mask > 0))
    assert (color[:, :, torch.from_numpy(mask == 0)] == -1).all()
    assert color.min() >= -1
    assert color.max() <= 1


def test_the_first_frame_stands_for_all() -> None:
    rgb, _ = half_seen()
    video = np.concatenate([rgb, 255 - rgb, rgb])
    color = preprocess.color_to_model(video, np.ones(video.shape[:3], bool))
    image, frame = preprocess.first_frame_to_model(color)
    assert image.shape == (1, 3, 60, 90)
    assert frame.dtype == np.uint8
    assert np.abs(frame.astype(int) - rgb[0]).max() <= 1
    np.testing.assert_allclose(image[0].permute(1, 2, 0), frame * (2 / 255) - 1, atol=1e-6)


def test_clip_sees_the_whole_frame_stretched() -> None:
    image = torch.full((1, 3, 64, 192), -1.0)
    image[..., :96] = 1  # the left half; a centre crop would keep other shares
    pixels = preprocess.clip_pixels(image)
    assert pixels.shape == (1, 3, 224, 224)
    mean, std = (torch.tensor(values) for values in (preprocess._CLIP_MEAN, preprocess._CLIP_STD))
    torch.testing.assert_close(pixels[0, :, 100, 50], (1 - mean) / std)
    torch.testing.assert_close(pixels[0, :, 100, 170], (0 - mean) / std)
    bright = (pixels[0, 0] > 0).float().mean(dim=0)
    assert bright[:111].min() == 1
    assert bright[113:].max() == 0


def test_clip_pixels_are_not_antialiased() -> None:
    image = torch.zeros(1, 3, 896, 896)
    image[..., ::4] = 1
    plain = preprocess.clip_pixels(image)
    assert plain.std(dim=(2, 3)).max() < 1e-4  # every fourth column, sampled at one phase
    mean, std = preprocess._CLIP_MEAN[0], preprocess._CLIP_STD[0]
    average = (0.25 * 0.5 + 0.5 - mean) / std
    assert abs(plain[0, 0].mean().item() - average) > 0.1


def test_the_image_mask_is_one_at_latent_frame_zero() -> None:
    mask = preprocess.image_condition_mask(3, 4, 6)
    assert mask.shape == (1, 4, 3, 4, 6)
    assert (mask[:, :, 0] == 1).all()
    assert not mask[:, :, 1:].any()


def test_frames_are_truncated_not_rounded() -> None:
    values = torch.tensor([-1.5, -1.0, -0.9999, 0.0, 0.5, 0.99, 0.9999, 1.0, 1.5])
    video = values.view(1, 1, 1, 1, -1).expand(1, 3, 1, 1, -1)
    frames = preprocess.frames_from_model(video)
    assert frames.shape == (1, 1, 9, 3)
    assert frames[0, 0, :, 0].tolist() == [0, 0, 0, 127, 191, 253, 254, 255, 255]


def test_every_level_survives_the_way_there_and_back() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=-1)
    back = preprocess.frames_from_model(preprocess.color_to_model(levels, np.ones((1, 16, 16), bool)) + 1e-6)
    np.testing.assert_array_equal(back, levels)


@given(st.integers(1, 400), st.integers(1, 81))
def test_picked_frames_are_in_order_with_both_ends(num_frames: int, num_wanted: int) -> None:
    picked = preprocess.sample_frames(num_frames, num_wanted)
    assert len(picked) == num_wanted
    assert picked[0] == 0
    assert num_wanted == 1 or picked[-1] == num_frames - 1
    assert (np.diff(picked) >= 0).all()
