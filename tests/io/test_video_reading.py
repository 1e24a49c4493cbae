"""Video in: what a file shows is what arrives, whatever its container, rate, rotation, colour or depth."""

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import Interpolation
from PIL import Image
from video_media import frame_of, gradient, patch_track_matrix, write_clip

from ex4d.core.video import Video
from ex4d.errors import ConfigError, MediaError
from ex4d.io.video import VideoReader, VideoSelection, probe_video

EXACT = {"codec": "ffv1", "pix_fmt": "bgr0", "tags": {"color_range": 2}}


def read_all(path: Path, selection: VideoSelection | None = None) -> tuple[Video, VideoReader]:
    with VideoReader(path, selection=selection, chunk_frames=3) as reader:
        chunks = list(reader)
    frames = np.concatenate([chunk.frames for chunk in chunks])
    return Video(frames=frames, timestamps_s=np.concatenate([chunk.timestamps_s for chunk in chunks])), reader


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight lossless frames of 48x64."""
    return write_clip(tmp_path_factory.mktemp("clip") / "exact.mkv", gradient(), **EXACT)


def test_frames_times_and_info_of_a_lossless_clip(exact: Path) -> None:
    video, reader = read_all(exact)
    np.testing.assert_array_equal(video.frames, gradient())
    np.testing.assert_allclose(video.timestamps_s, np.arange(8) * 0.04, atol=1e-9)
    info = reader.info
    assert (info.height, info.width, info.fps, info.codec, info.is_still) == (48, 64, Fraction(25), "ffv1", False)
    assert reader.notices == ()


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mov", "clip.mkv", "clip.avi", "clip.ts", "clip.flv"])
def test_containers(tmp_path: Path, name: str) -> None:
    write_clip(tmp_path / name, gradient(), options={"crf": "1"})
    video, reader = read_all(tmp_path / name)
    assert video.frames.shape == (8, 48, 64, 3)
    assert np.abs(video.frames.astype(int) - gradient()).mean() < 3
    np.testing.assert_allclose(np.diff(video.timestamps_s), 0.04, atol=1.1e-3)
    assert reader.info.fps == 25


def test_variable_rate_keeps_its_timestamps(tmp_path: Path) -> None:
    times_ms = [0, 40, 55, 300, 301, 700, 900, 1000]
    path = write_clip(tmp_path / "vfr.mkv", gradient(), times_ms=times_ms, **EXACT)
    video, _ = read_all(path)
    np.testing.assert_allclose(video.timestamps_s, np.array(times_ms) / 1000, atol=1e-9)
    part, _ = read_all(path, VideoSelection(frames=(2, 5)))
    np.testing.assert_allclose(part.timestamps_s, [0, 0.245, 0.246], atol=1e-9)


@pytest.mark.parametrize(
    ("matrix", "turn", "degrees", "mirrored"),
    [
        ((1, 0, 0, 1), lambda image: image, 0, False),
        ((0, 1, -1, 0), lambda image: np.rot90(image, -1), 90, False),
        ((-1, 0, 0, -1), lambda image: np.rot90(image, 2), 180, False),
        ((0, -1, 1, 0), lambda image: np.rot90(image, 1), 270, False),
        ((-1, 0, 0, 1), lambda image: image[:, ::-1], 0, True),
    ],
)
def test_rotation_metadata(tmp_path: Path, matrix, turn, degrees: int, mirrored: bool) -> None:
    path = write_clip(tmp_path / "phone.mp4", gradient(3), options={"crf": "1"})
    upright, _ = read_all(path)
    turned, reader = read_all(patch_track_matrix(path, matrix))
    np.testing.assert_array_equal(turned.frames, np.stack([turn(image) for image in upright.frames]))
    assert (reader.info.height, reader.info.width) == turned.frames.shape[1:3]
    assert reader.info.rotation_deg == degrees
    assert any("mirrored" in notice for notice in reader.notices) == mirrored


def test_rotation_and_shrinking_together(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "phone.mp4", gradient(3, 48, 96), options={"crf": "1"})
    small, _ = read_all(path, VideoSelection(max_side=48))
    turned, _ = read_all(patch_track_matrix(path, (0, 1, -1, 0)), VideoSelection(max_side=48))
    assert turned.frames.shape == (3, 48, 24, 3)
    np.testing.assert_array_equal(turned.frames, np.rot90(small.frames, -1, axes=(1, 2)))


KR_KB = {"bt709": (0.2126, 0.0722), "bt601": (0.299, 0.114), "bt2020": (0.2627, 0.0593)}


def expected_rgb(yuv: tuple[int, int, int], matrix: str, full: bool) -> np.ndarray:
    """RGB 0-255 of 8-bit codes, from the definition of the matrices."""
    y, u, v = yuv
    luma = y / 255 if full else (y - 16) / 219
    cb, cr = ((value - 128) / (255 if full else 224) for value in (u, v))
    kr, kb = KR_KB[matrix]
    red, blue = luma + 2 * (1 - kr) * cr, luma + 2 * (1 - kb) * cb
    green = (luma - kr * red - kb * blue) / (1 - kr - kb)
    return np.clip(np.array([red, green, blue]), 0, 1) * 255


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("tag", "height", "matrix"),
    [(1, 48, "bt709"), (5, 48, "bt601"), (6, 720, "bt601"), (9, 48, "bt2020"), (2, 48, "bt601"), (2, 720, "bt709")],
)
def test_yuv_matrix_and_range_are_honoured(tmp_path: Path, tag: int, height: int, matrix: str, full: bool) -> None:
    yuv = (120, 90, 170)
    planes = [np.full((height, 16), value, np.uint8) for value in yuv]
    tags = {"colorspace": tag, "color_range": 2 if full else 1, "color_primaries": 1, "color_trc": 1}
    path = write_clip(tmp_path / "c.mkv", [frame_of(planes, "yuv444p")], codec="ffv1", pix_fmt="yuv444p", tags=tags)
    video, _ = read_all(path)
    got = video.frames.reshape(-1, 3)
    assert np.abs(got - expected_rgb(yuv, matrix, full)).max() <= 1.0


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("depth", [8, 16])
def test_gray_is_expanded_with_its_range(tmp_path: Path, full: bool, depth: int) -> None:
    step = 2 ** (depth - 8)
    ramp = np.tile(np.linspace(16 * step, 235 * step, 64), (16, 1)).astype(np.uint8 if depth == 8 else np.uint16)
    pix_fmt = "gray" if depth == 8 else "gray16le"
    tags = {"color_range": 2 if full else 1}
    path = write_clip(tmp_path / "g.mkv", [frame_of([ramp], pix_fmt)], codec="ffv1", pix_fmt=pix_fmt, tags=tags)
    video, _ = read_all(path)
    unit = ramp / (2**depth - 1) if full else (ramp - 16 * step) / (219 * step)
    assert np.abs(video.frames[0] - (unit * 255)[..., None]).max() <= 0.51


def test_alpha_is_dropped_with_a_notice(tmp_path: Path) -> None:
    rgba = np.dstack([gradient(1)[0], np.full((48, 64), 77, np.uint8)])
    frame = av.VideoFrame.from_ndarray(rgba, format="rgba")
    path = write_clip(tmp_path / "alpha.mov", [frame], codec="png", pix_fmt="rgba")
    video, reader = read_all(path)
    np.testing.assert_array_equal(video.frames, gradient(1))
    assert any("alpha" in notice for notice in reader.notices)


def test_odd_sizes_are_kept(tmp_path: Path) -> None:
    images = gradient(3, 37, 51)
    video, _ = read_all(write_clip(tmp_path / "odd.mkv", images, **EXACT))
    np.testing.assert_array_equal(video.frames, images)


def test_pixels_that_are_not_square_become_square(tmp_path: Path) -> None:
    tags = {"sample_aspect_ratio": Fraction(4, 3)}
    path = write_clip(tmp_path / "sar.mp4", gradient(2, 48, 60), options={"crf": "1"}, tags=tags)
    video, reader = read_all(path)
    assert video.frames.shape == (2, 48, 80, 3)
    assert any("square" in notice for notice in reader.notices)


def test_interlaced_is_noticed(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "i.mp4", gradient(4), options={"x264-params": "interlaced=1:tff=1"})
    _, reader = read_all(path)
    assert any("interlaced" in notice for notice in reader.notices)


def test_names_that_are_not_ascii(tmp_path: Path, exact: Path) -> None:
    for name in ("видео 映像 é.mkv", "a:b.mkv", "%03d.mkv", "-x.mkv"):
        path = tmp_path / name
        path.write_bytes(exact.read_bytes())
        assert len(read_all(path)[0]) == 8


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff", "bmp"])
def test_a_still_is_a_clip_of_one_frame(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"still.{suffix}"
    Image.fromarray(gradient(1)[0]).save(path, quality=95)
    video, reader = read_all(path)
    assert video.frames.shape == (1, 48, 64, 3)
    assert reader.info.is_still
    assert np.abs(video.frames.astype(int) - gradient(1)).mean() < 3
    assert probe_video(path).num_frames == 1


def test_exif_orientation_of_a_still(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    Image.fromarray(gradient(1)[0]).save(tmp_path / "phone.png", exif=exif)
    video, _ = read_all(tmp_path / "phone.png")
    np.testing.assert_array_equal(video.frames[0], np.rot90(gradient(1)[0], -1))


def test_sixteen_bit_and_transparent_stills(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (8, 1))
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    video, reader = read_all(tmp_path / "deep.png")
    assert np.abs(video.frames[0, ..., 0] - ramp / 257).max() <= 0.51
    assert any("16-bit" in notice for notice in reader.notices)
    rgba = np.dstack([gradient(1)[0], np.full((48, 64), 9, np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "clear.png")
    video, reader = read_all(tmp_path / "clear.png")
    np.testing.assert_array_equal(video.frames, gradient(1))
    assert any("alpha" in notice for notice in reader.notices)


@pytest.mark.parametrize(
    ("selection", "indices"),
    [
        (VideoSelection(frames=(2, 5)), [2, 3, 4]),
        (VideoSelection(start_s=0.08, end_s=0.2), [2, 3, 4]),
        (VideoSelection(start_s=0.0801), [3, 4, 5, 6, 7]),
        (VideoSelection(fps=12.5), [0, 2, 4, 6]),
        (VideoSelection(fps=50), [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7]),
        (VideoSelection(frames=(4, 8), fps=12.5), [4, 6]),
    ],
)
def test_selections(exact: Path, selection: VideoSelection, indices: list[int]) -> None:
    video, _ = read_all(exact, selection)
    np.testing.assert_array_equal(video.frames, gradient()[indices])
    assert video.timestamps_s[0] == 0
    if selection.fps:
        np.testing.assert_allclose(video.timestamps_s, np.arange(len(indices)) / selection.fps, atol=1e-9)


def test_a_seek_finds_the_same_frames_as_reading_on(tmp_path: Path) -> None:
    for name in ("long.mp4", "long.ts", "long.avi"):
        path = write_clip(tmp_path / name, gradient(120, 16, 16), options={"g": "17", "bf": "2"})
        whole, _ = read_all(path)
        part, _ = read_all(path, VideoSelection(start_s=3.0, end_s=3.6))
        np.testing.assert_array_equal(part.frames, whole.frames[75:90])


def test_sizes(exact: Path) -> None:
    half, _ = read_all(exact, VideoSelection(max_side=32))
    blocks = gradient().reshape(8, 24, 2, 32, 2, 3).mean(axis=(2, 4))
    assert np.abs(half.frames - blocks).max() <= 0.51
    native, _ = read_all(exact, VideoSelection(max_side=500))
    assert native.frames.shape == (8, 48, 64, 3)
    forced, reader = read_all(exact, VideoSelection(size=(20, 128), max_side=8))
    assert forced.frames.shape == (8, 20, 128, 3)
    assert any("enlarged" in notice for notice in reader.notices)


def test_selections_beyond_the_end(exact: Path) -> None:
    _, reader = read_all(exact, VideoSelection(frames=(5, 20)))
    assert any("5:20" in notice and "8" in notice for notice in reader.notices)
    for selection in (VideoSelection(frames=(30, 40)), VideoSelection(start_s=99)):
        with pytest.raises(MediaError, match="at least one frame"):
            read_all(exact, selection)


@pytest.mark.parametrize(
    "fields",
    [
        {"start_s": -1.0},
        {"start_s": float("nan")},
        {"start_s": 2.0, "end_s": 1.0},
        {"frames": (3, 3)},
        {"frames": (0, 3), "start_s": 1.0},
        {"fps": 0.0},
        {"max_side": 0},
        {"size": (0, 5)},
    ],
)
def test_impossible_selections_name_their_field(fields: dict) -> None:
    with pytest.raises(ConfigError, match=r"selection\."):
        VideoSelection(**fields)


def test_expected_number_of_frames(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "n.mp4", gradient(20))
    for selection in (None, VideoSelection(frames=(3, 9)), VideoSelection(fps=50), VideoSelection(start_s=0.4)):
        with VideoReader(path, selection=selection) as reader:
            expected = reader.num_frames_expected
            assert expected == sum(len(chunk) for chunk in reader)


def shared_clips() -> list[Path]:
    root = Path(os.environ.get("EX4D_SHARED", Path(__file__).parents[3] / "shared"))
    return sorted((root / "clips").glob("*.mp4"))


@pytest.mark.skipif(not shared_clips(), reason="no real clips: set EX4D_SHARED to the shared folder")
@pytest.mark.parametrize("path", shared_clips()[:2] + shared_clips()[7:8], ids=lambda path: path.name)
def test_real_clips_equal_a_direct_decode(path: Path) -> None:
    exact = int(Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT)
    video, _ = read_all(path, VideoSelection(frames=(0, 10)))
    with av.open(str(path)) as container:
        for image, frame in zip(video.frames, container.decode(video=0), strict=False):
            space = 1 if frame.colorspace == 1 or frame.height >= 720 else 5
            rgb = frame.reformat(
                format="rgb24", src_colorspace=space, src_color_range=1, dst_color_range=2, interpolation=exact
            )
            np.testing.assert_array_equal(image, rgb.to_ndarray())
