"""Lossless intermediates and delivery files: exact or truly coloured, equal bytes, whole or absent."""

import os
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from video_media import gradient, write_clip

from ex4d.core.clip import Clip
from ex4d.core.video import Video
from ex4d.errors import ConfigError, InputError, MediaError, OutputError
from ex4d.io.encode import LosslessWriter
from ex4d.io.encode_delivery import DeliverySettings, DeliveryWriter
from ex4d.io.video import VideoReader
from ex4d.io.video_lossless import LosslessClip, VideoClip

NTSC = Fraction(30000, 1001)


def noise(pix_fmt: str, num: int = 6, height: int = 37, width: int = 51) -> np.ndarray:
    rng = np.random.default_rng(3)
    if pix_fmt == "gray16":
        return rng.integers(0, 65536, (num, height, width)).astype(np.uint16)
    return rng.integers(0, 256, (num, height, width, 3) if pix_fmt == "rgb" else (num, height, width)).astype(np.uint8)


def write_lossless(
    path: Path, pix_fmt, frames: np.ndarray, times: np.ndarray | None = None, fps: Fraction = NTSC
) -> Path:
    times = np.arange(len(frames)) / float(fps) if times is None else times
    with LosslessWriter(path, pix_fmt, height=frames.shape[1], width=frames.shape[2], fps=fps) as writer:
        writer.write(frames[:2], times[:2])
        writer.write(frames[2:], times[2:])
    return path


@pytest.mark.parametrize("pix_fmt", ["rgb", "gray", "gray16"])
def test_lossless_round_trip_in_any_order(tmp_path: Path, pix_fmt) -> None:
    frames = noise(pix_fmt)
    path = write_lossless(tmp_path / "x.mkv", pix_fmt, frames)
    with LosslessClip(path, pix_fmt) as clip:
        assert (clip.num_frames, clip.height, clip.width, clip.fps) == (6, 37, 51, NTSC)
        np.testing.assert_allclose(clip.timestamps_s, np.arange(6) / float(NTSC), atol=1e-12)
        for start, stop in ((0, 6), (4, 5), (0, 1), (1, 3), (5, 6), (2, 4), (4, 6), (0, 2)):
            np.testing.assert_array_equal(clip.read(start, stop), frames[start:stop])
        one: Any = np.int64(1)  # what indexing an array of indices gives
        np.testing.assert_array_equal(clip.read(one, one + 1), frames[1:2])
        for start, stop in ((-1, 2), (3, 3), (4, 7)):
            with pytest.raises(ValueError, match="start < stop"):
                clip.read(start, stop)


def test_equal_frames_give_equal_bytes(tmp_path: Path) -> None:
    for pix_fmt in ("rgb", "gray", "gray16"):
        one, two = (write_lossless(tmp_path / f"{name}.mkv", pix_fmt, noise(pix_fmt)) for name in "ab")
        assert one.read_bytes() == two.read_bytes()


def test_equal_frames_give_equal_delivery_bytes_whatever_the_memory_held(tmp_path: Path) -> None:
    """Sizes and fillings at which x264 was seen to differ; glibc fills fresh memory with MALLOC_PERTURB_."""
    code = (
        "import sys, hashlib, numpy as np; from pathlib import Path; from fractions import Fraction\n"
        "sys.path.insert(0, sys.argv[1]); from video_media import gradient\n"
        "from ex4d.io.encode_delivery import DeliveryWriter\n"
        "for height, width in ((48, 64), (96, 96), (240, 426)):\n"
        "    with DeliveryWriter(Path(sys.argv[2]), height=height, width=width, fps=Fraction(25)) as writer:\n"
        "        writer.write(gradient(8, height, width), np.arange(8) / 25)\n"
        "    print(hashlib.sha256(Path(sys.argv[2]).read_bytes()).hexdigest())\n"
    )
    sums = set()
    for filling in ("0", "85", "170"):
        command = [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path / "d.mp4")]
        env = {**os.environ, "MALLOC_PERTURB_": filling}
        sums.add(subprocess.run(command, env=env, check=True, capture_output=True).stdout)
    assert len(sums) == 1


def test_variable_times_keep_a_millisecond_or_what_is_kept_beside(tmp_path: Path) -> None:
    times = np.array([0, 0.0401, 0.0554, 0.3, 0.3012, 0.7])
    path = write_lossless(tmp_path / "v.mkv", "gray", noise("gray"), times, Fraction(10))
    with LosslessClip(path, "gray") as clip:
        np.testing.assert_allclose(clip.timestamps_s, times, atol=5.01e-4)
    with LosslessClip(path, "gray", timestamps_s=times) as clip:
        np.testing.assert_array_equal(clip.timestamps_s, times)
    with pytest.raises(MediaError, match="5 frames"):
        LosslessClip(path, "gray", timestamps_s=times[:5])


def test_a_video_clip_is_a_clip_of_video(tmp_path: Path) -> None:
    frames = noise("rgb")
    clip: Clip[Video]
    with VideoClip(write_lossless(tmp_path / "c.mkv", "rgb", frames)) as clip:
        chunk = clip.read(1, 4)
        np.testing.assert_array_equal(chunk.frames, frames[1:4])
        np.testing.assert_array_equal(chunk.timestamps_s, clip.timestamps_s[1:4])


def test_streams_that_are_not_ours(tmp_path: Path) -> None:
    path = write_lossless(tmp_path / "c.mkv", "rgb", noise("rgb"))
    with pytest.raises(MediaError, match="gray16le"):
        LosslessClip(path, "gray16")
    with pytest.raises(MediaError, match="FFV1"):
        LosslessClip(write_clip(tmp_path / "h264.mkv", gradient()), "rgb")
    with pytest.raises(InputError, match="does not exist"):
        LosslessClip(tmp_path / "nothing.mkv", "rgb")


def test_ffv1_of_others_with_few_key_frames_is_read_in_any_order(tmp_path: Path) -> None:
    frames = gradient(14)
    path = write_clip(tmp_path / "o.mkv", frames, codec="ffv1", pix_fmt="bgr0", options={"g": "5"})
    with LosslessClip(path, "rgb") as clip:
        for start, stop in ((9, 12), (3, 4), (0, 14), (7, 8)):
            np.testing.assert_array_equal(clip.read(start, stop), frames[start:stop])


def test_damage_of_a_lossless_stream_is_found(tmp_path: Path) -> None:
    path = write_lossless(tmp_path / "c.mkv", "gray", noise("gray"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(MediaError, match="damaged"), LosslessClip(path, "gray") as clip:
        clip.read(0, 6)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(MediaError), LosslessClip(path, "gray", timestamps_s=np.arange(6.0)):
        pass


def deliver(path: Path, frames: np.ndarray, times: np.ndarray | None = None, **options) -> Path:
    times = np.arange(len(frames)) / 25 if times is None else times
    with DeliveryWriter(path, height=frames.shape[1], width=frames.shape[2], fps=Fraction(25), **options) as writer:
        writer.write(frames, times)
    return path


COLOURS = [(255, 255, 255), (200, 30, 30), (30, 200, 30), (30, 30, 200), (128, 128, 128), (0, 0, 0), (220, 220, 40)]


def bars(height: int, width: int) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    for index, colour in enumerate(COLOURS):
        image[:, index * 32 : index * 32 + 32] = colour
    return image


def test_delivery_colours_tags_and_layout(tmp_path: Path) -> None:
    path = deliver(tmp_path / "d.mp4", np.repeat(bars(64, 224)[None], 4, 0), settings=DeliverySettings(crf=4))
    with av.open(str(path)) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.color_primaries, codec.color_trc, codec.colorspace, codec.color_range) == (1, 1, 1, 1)
        assert (codec.name, codec.pix_fmt, container.streams.video[0].average_rate) == ("h264", "yuv420p", 25)
        luma = next(container.decode(video=0)).to_ndarray()[32, 16:224:32]
    rgb = np.array(COLOURS) / 255
    assert np.abs(luma - (16 + 219 * rgb @ [0.2126, 0.7152, 0.0722])).max() <= 1.5
    with VideoReader(path) as reader:
        image = next(iter(reader)).frames[1]
    assert np.abs(image[32, 16:224:32].astype(int) - COLOURS).max() <= 3
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_settings_are_checked() -> None:
    wrong: list[dict[str, Any]] = [{"crf": 52}, {"crf": -1}, {"preset": "quick"}]
    for fields in wrong:
        with pytest.raises(ConfigError, match=f"delivery.{next(iter(fields))}"):
            DeliverySettings(**fields)


def test_odd_sizes_are_padded_by_their_edge_and_said(tmp_path: Path) -> None:
    frames = gradient(3, 47, 63)
    with DeliveryWriter(
        tmp_path / "o.mp4", height=47, width=63, fps=Fraction(25), settings=DeliverySettings(crf=1)
    ) as writer:
        writer.write(frames, np.arange(3) / 25)
    assert any("63x47" in notice and "64x48" in notice for notice in writer.notices)
    with VideoReader(tmp_path / "o.mp4") as reader:
        image = next(iter(reader)).frames[0].astype(int)
    assert image.shape == (48, 64, 3)
    assert np.abs(image[47, :63] - frames[0, 46]).mean() < 6


def test_delivery_keeps_variable_times(tmp_path: Path) -> None:
    times = np.array([0, 0.04, 0.0554, 0.3, 0.3123, 0.7, 0.9, 1.0])
    path = deliver(tmp_path / "v.mp4", gradient(8), times)
    with VideoReader(path) as reader:
        got = np.concatenate([chunk.timestamps_s for chunk in reader])
    np.testing.assert_allclose(got, times, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "codec", "copied"), [("a.mp4", "aac", True), ("a.mkv", "ac3", True), ("a.avi", "pcm_s16le", False)]
)
def test_sound_is_copied_or_converted_with_a_notice(tmp_path: Path, name: str, codec: str, copied: bool) -> None:
    source = write_clip(tmp_path / name, gradient(25), audio=codec)
    with DeliveryWriter(tmp_path / "d.mp4", height=48, width=64, fps=Fraction(25), audio_from=source) as writer:
        writer.write(gradient(25), np.arange(25) / 25)
    assert any("AAC" in notice for notice in writer.notices) != copied
    packets: list[list[bytes]] = []
    for path in (source, tmp_path / "d.mp4"):
        with av.open(str(path)) as container:
            (stream,) = container.streams.audio
            packets.append([bytes(packet) for packet in container.demux(stream) if packet.size])
    # What begins after the last frame is left out.
    same = packets[1] == packets[0][: len(packets[1])] and len(packets[1]) >= len(packets[0]) - 1
    assert same == copied
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({name, "d.mp4"})


def test_sound_from_the_middle_of_a_file(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", gradient(50), audio="aac")
    with DeliveryWriter(
        tmp_path / "d.mp4", height=48, width=64, fps=Fraction(25), audio_from=source, audio_start_s=1.0
    ) as writer:
        writer.write(gradient(25), np.arange(25) / 25)
    with av.open(str(tmp_path / "d.mp4")) as container:
        times = [float((p.pts or 0) * (p.time_base or 0)) for p in container.demux(audio=0) if p.size]
    assert -0.001 <= times[0] < 0.03
    assert 0.9 < times[-1] < 1.0


def test_a_source_without_sound_gives_a_silent_file(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", gradient(4))
    path = deliver(tmp_path / "d.mp4", gradient(4), audio_from=source)
    with av.open(str(path)) as container:
        assert not container.streams.audio


@pytest.fixture(params=["lossless", "delivery"])
def writer_of(request: pytest.FixtureRequest) -> Callable[[Path], Any]:
    def make(path: Path) -> Any:
        if request.param == "lossless":
            return LosslessWriter(path.with_suffix(".mkv"), "rgb", height=48, width=64, fps=Fraction(25))
        return DeliveryWriter(path.with_suffix(".mp4"), height=48, width=64, fps=Fraction(25))

    return make


def test_an_error_inside_the_block_leaves_nothing(tmp_path: Path, writer_of) -> None:
    def interrupted() -> None:
        with writer_of(tmp_path / "x") as writer:
            writer.write(gradient(4), np.arange(4) / 25)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(ValueError, match="no frame"), writer_of(tmp_path / "x"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("frames", "times", "message"),
    [
        (gradient(2, 50), np.arange(2.0), "expected uint8"),
        (gradient(2).astype(np.float32), np.arange(2.0), "expected uint8"),
        (gradient(2), np.arange(3.0), "2 finite times"),
        (gradient(2), np.array([0.0, np.nan]), "2 finite times"),
        (gradient(2), np.array([0.5, 0.5]), "increasing"),
    ],
)
def test_wrong_frames_and_times(tmp_path: Path, writer_of, frames, times, message: str) -> None:
    with pytest.raises(ValueError, match=message), writer_of(tmp_path / "x") as writer:
        writer.write(frames, times)
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_cannot_be_written(tmp_path: Path, writer_of) -> None:
    with pytest.raises(OutputError, match="does not exist"), writer_of(tmp_path / "none" / "x"):
        pass
    for suffix in (".mkv", ".mp4"):
        (tmp_path / f"taken{suffix}").mkdir()
    with pytest.raises(OutputError, match="folder of that name"), writer_of(tmp_path / "taken"):
        pass


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limit on Windows")
def test_a_full_disk_is_an_output_error_and_leaves_nothing(tmp_path: Path, writer_of) -> None:
    import resource

    frames = np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3)).astype(np.uint8)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(OutputError, match="full"), writer_of(tmp_path / "x") as writer:
            writer.write(frames, np.arange(20) / 25)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_without_permission(tmp_path: Path, writer_of) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="permission"), writer_of(tmp_path / "x"):
        pass
