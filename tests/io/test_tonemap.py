"""HDR to SDR against published anchors and against the plain formulas."""

from pathlib import Path

import av
import numpy as np
import pytest
from video_media import frame_of, write_clip

from ex4d.core.arrays import Float32
from ex4d.io import tonemap
from ex4d.io.video import VideoReader


def test_pq_anchors() -> None:
    """Codes of ITU-R BT.2408 table 1 and ST 2084."""
    np.testing.assert_allclose(
        tonemap.nits_to_pq(np.array([0.0, 100, 203, 1000, 10000])), [7.3e-7, 0.508, 0.581, 0.752, 1], atol=5e-4
    )
    code = np.linspace(0, 1, 101)
    np.testing.assert_allclose(tonemap.nits_to_pq(tonemap.pq_to_nits(code)), code, atol=1e-6)


def test_hlg_anchors() -> None:
    """BT.2100: the two halves meet at 1/12; BT.2408: 75 % gray is 203 cd/m2 on a 1000 cd/m2 display."""
    np.testing.assert_allclose(tonemap.hlg_to_scene(np.array([0.0, 0.5, 1.0])), [0, 1 / 12, 1], atol=1e-6)
    gray = np.full((1, 3), tonemap.hlg_to_scene(np.array(0.75)))
    np.testing.assert_allclose(tonemap.hlg_scene_to_nits(gray), 203, atol=1)
    np.testing.assert_allclose(tonemap.hlg_scene_to_nits(np.ones((1, 3))), 1000)


def test_roll_off_is_identity_below_the_knee_and_monotonic_to_the_top() -> None:
    nits = np.linspace(0, 1000, 2001)
    shown = tonemap.roll_off_nits(nits, 1000)
    np.testing.assert_allclose(shown[nits < 80], nits[nits < 80], rtol=1e-6, atol=1e-9)
    assert (np.diff(shown) >= 0).all()
    np.testing.assert_allclose(shown[-1], tonemap.SDR_WHITE_NITS, rtol=1e-6)
    np.testing.assert_allclose(tonemap.roll_off_nits(np.array([50.0, 500.0]), 100), [50, 203])


def test_primaries() -> None:
    """ITU-R BT.2087 M2 and white stays white."""
    published = [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
    np.testing.assert_allclose(tonemap.primaries_matrix("bt2020"), published, atol=1e-4)
    for name in ("bt709", "bt2020", "p3"):
        np.testing.assert_allclose(tonemap.primaries_matrix(name) @ np.ones(3), 1, atol=1e-12)


def plain(rgb: np.ndarray, transfer: str, primaries: str, peak: float) -> np.ndarray:
    """The mapping written out in float64, without tables."""
    light = {"pq": tonemap.pq_to_nits, "hlg": tonemap.hlg_to_scene, "sdr": tonemap.srgb_decode}[transfer](rgb)
    light = tonemap.hlg_scene_to_nits(light) if transfer == "hlg" else light * (203 if transfer == "sdr" else 1)
    light = np.maximum(light @ tonemap.primaries_matrix(primaries).T, 0)
    largest = np.maximum(light.max(-1, keepdims=True), 1e-9)
    shown = light * tonemap.roll_off_nits(np.minimum(largest, peak), peak) / np.minimum(largest, peak)
    return tonemap.srgb_encode(np.minimum(shown / 203, 1)) * 255


@pytest.mark.parametrize(
    ("transfer", "primaries", "peak"),
    [
        ("pq", "bt2020", 1000),
        ("pq", "bt2020", 4000),
        ("hlg", "bt2020", 1000),
        ("sdr", "bt2020", 203),
        ("sdr", "p3", 203),
    ],
)
def test_tables_equal_the_formulas(transfer, primaries: str, peak: float) -> None:
    rgb: Float32 = np.random.default_rng(0).random((50_000, 3), np.float32)
    rgb[:1000] *= np.float32(0.05)
    got = tonemap.ToneMapper(transfer, primaries, peak)(rgb)
    assert np.abs(got - plain(rgb.astype(np.float64), transfer, primaries, peak)).max() <= 1.0


def test_neutral_sdr_gray_is_untouched_by_a_change_of_primaries() -> None:
    gray: Float32 = np.repeat((np.arange(256) / 255).astype(np.float32)[:, None], 3, axis=1)
    np.testing.assert_array_equal(tonemap.ToneMapper("sdr", "bt2020")(gray)[:, 0], np.arange(256))


def limited10(code: float) -> int:
    return round(64 + 876 * code)


@pytest.mark.parametrize(
    ("trc", "transfer", "levels"),
    [
        (16, "pq", {0.0: 0, 0.4: None, 0.581: None, 0.752: 255, 1.0: 255}),
        (18, "hlg", {0.0: 0, 0.5: None, 0.75: None, 1.0: 255}),
    ],
)
def test_a_tagged_ten_bit_video_is_tone_mapped(tmp_path: Path, trc: int, transfer: str, levels: dict) -> None:
    """Gray patches, coded as Y'CbCr 4:2:0 of 10 bits in BT.2020."""
    width = 16
    y = np.repeat(np.array([limited10(code) for code in levels], np.uint16), width)[None].repeat(16, 0)
    chroma = np.full((8, y.shape[1] // 2), 512, np.uint16)
    tags = {"color_trc": trc, "color_primaries": 9, "colorspace": 9, "color_range": 1}
    frame = frame_of([y, chroma, chroma], "yuv420p10le")
    path = write_clip(tmp_path / "hdr.mkv", [frame], codec="ffv1", pix_fmt="yuv420p10le", tags=tags)
    with VideoReader(path) as reader:
        image = next(iter(reader)).frames[0]
    assert any("tone-mapped" in notice for notice in reader.notices)
    for index, (code, shown) in enumerate(levels.items()):
        got = image[8, index * width + width // 2].astype(int)
        exact = plain(np.full((1, 3), (limited10(code) - 64) / 876), transfer, "bt2020", 1000)[0]
        assert np.abs(got - exact).max() <= 1
        assert shown is None or (got == shown).all()


def test_ten_bit_sdr_needs_no_tone_mapping(tmp_path: Path) -> None:
    planes = [np.full((16, 16), value, np.uint16) for value in (limited10(0.5), 512, 512)]
    tags = {"color_trc": 1, "color_primaries": 1, "colorspace": 1, "color_range": 1}
    path = write_clip(
        tmp_path / "sdr.mkv", [frame_of(planes, "yuv444p10le")], codec="ffv1", pix_fmt="yuv444p10le", tags=tags
    )
    with VideoReader(path) as reader:
        image = next(iter(reader)).frames[0]
    assert np.abs(image.astype(int) - 127.5).max() <= 1
    assert reader.notices == ()


def test_yuv_colours_of_deep_video(tmp_path: Path) -> None:
    """A saturated BT.2020 colour through the file equals the formulas applied to its codes."""
    codes = (500, 420, 640)
    frame = frame_of([np.full((16, 16), value, np.uint16) for value in codes], "yuv444p10le")
    assert isinstance(frame, av.VideoFrame)
    tags = {"color_trc": 16, "color_primaries": 9, "colorspace": 9, "color_range": 1}
    path = write_clip(tmp_path / "c.mkv", [frame], codec="ffv1", pix_fmt="yuv444p10le", tags=tags)
    with VideoReader(path) as reader:
        image = next(iter(reader)).frames[0]
    luma, cb, cr = (codes[0] - 64) / 876, (codes[1] - 512) / 896, (codes[2] - 512) / 896
    red, blue = luma + 1.4746 * cr, luma + 1.8814 * cb
    green = (luma - 0.2627 * red - 0.0593 * blue) / 0.678
    assert np.abs(image[8, 8] - plain(np.array([[red, green, blue]]), "pq", "bt2020", 1000)[0]).max() <= 1
