"""Untrusted files: every bad one is a single clear error, and no worker outlives what it was for."""

import gc
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from video_media import bomb_png, frame_of, gradient, write_audio_only, write_clip

from ex4d.errors import ConfigError, Ex4dError, InputError, MediaError
from ex4d.io.decode.client import DecodeWorker
from ex4d.io.decode.limits import DecodeLimits
from ex4d.io.encode import LosslessWriter
from ex4d.io.video import VideoReader, VideoSelection, probe_video
from ex4d.io.video_lossless import LosslessClip

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def workers_of(pid: int | str = "self") -> list[int]:
    """Process ids of live decode workers of a process (Linux)."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            if b"ex4d.io.decode.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
    return found


def read(path: Path, selection: VideoSelection | None = None, limits: DecodeLimits | None = None) -> int:
    with VideoReader(path, selection=selection, limits=limits) as reader:
        return sum(len(chunk) for chunk in reader)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames = np.random.default_rng(0).integers(0, 256, (50, 48, 64, 3)).astype(np.uint8)
    return write_clip(
        tmp_path_factory.mktemp("clip") / "clip.mp4", frames, container_options={"movflags": "+faststart"}
    )


def test_files_that_are_not_there_or_not_files(tmp_path: Path) -> None:
    for path, message in (
        (tmp_path / "no.mp4", "does not exist"),
        (tmp_path, "the folder"),
        (Path("a\0b"), "a b"),
    ):
        with pytest.raises(InputError, match=message):
            read(path)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no devices on Windows")
def test_devices_are_not_read() -> None:
    with pytest.raises(InputError, match="device"):
        read(Path("/dev/zero"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"hello, this is no video\n", "text file"),
        (b"\x00\x01\x02\x03" * 300, "damaged or of another kind"),
        (b"ffconcat version 1.0\nfile secret.mp4\n", "playlist"),
        (b"#EXTM3U\n#EXTINF:1,\nsecret.mp4\n", "playlist"),
        (b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2", "index is missing"),
        (b"\x89PNG\r\n\x1a\n rubbish", "damaged"),
        (b"\xff\xd8\xff\xe0 rubbish", "damaged"),
        (b"ID3\x04\x00" + bytes(400), "audio"),
    ],
)
def test_files_that_are_no_media(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=message) as error:
        read(path)
    assert error.value.expected
    assert error.value.fix
    assert "clip.mp4" in str(error.value)


def test_a_playlist_in_an_mp4_never_opens_the_other_file(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "inner.mp4").write_bytes(clip.read_bytes())
    path = tmp_path / "outer.mp4"
    for text in ("ffconcat version 1.0\nfile inner.mp4\n", "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\ninner.mp4\n"):
        path.write_text(text)
        with pytest.raises(MediaError):
            read(path)


def test_sound_without_a_picture(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="only audio"):
        read(write_audio_only(tmp_path / "a.mp4"))
    with pytest.raises(MediaError, match="audio"):
        read(write_audio_only(tmp_path / "a.wav", "pcm_s16le"))


def test_a_wrong_extension_does_not_matter(tmp_path: Path, clip: Path) -> None:
    for name in ("clip.png", "clip.txt", "clip"):
        (tmp_path / name).write_bytes(clip.read_bytes())
        assert read(tmp_path / name) == 50


def test_codecs_off_the_list_are_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "odd.avi", gradient(), codec="cinepak", pix_fmt="rgb24")
    with pytest.raises(MediaError, match="cinepak"):
        read(path)


def test_a_picture_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb_png())
    assert path.stat().st_size < 100_000
    start = time.monotonic()
    with pytest.raises(MediaError, match="268 megapixels"):
        read(path)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("name", ["big.mp4", "big.mkv", "big.avi", "big.ts"])
def test_frames_beyond_the_limit_are_refused(tmp_path: Path, name: str) -> None:
    path = write_clip(tmp_path / name, gradient(3, 256, 256))
    with pytest.raises(MediaError, match=r"256x256|damaged|no video"):
        read(path, limits=DecodeLimits(max_pixels=128 * 128))
    assert read(path) == 3


def test_too_many_frames(clip: Path) -> None:
    with pytest.raises(MediaError, match="at most 20 frames"):
        read(clip, limits=DecodeLimits(max_frames=20))
    assert read(clip, VideoSelection(frames=(0, 10)), DecodeLimits(max_frames=20)) == 10
    with pytest.raises(MediaError, match="at most 60 frames"):
        read(clip, VideoSelection(fps=1000), DecodeLimits(max_frames=60))


def test_too_little_memory_is_a_clear_error(clip: Path) -> None:
    with pytest.raises(MediaError):
        read(clip, limits=DecodeLimits(memory_gib=0.02))


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95, 0.999])
def test_a_truncated_video_says_how_to_keep_the_readable_part(tmp_path: Path, clip: Path, keep: float) -> None:
    data = clip.read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(MediaError, match=r"--frames 0:\d+") as error:
        read(path)
    readable = int(str(error.value).rsplit("0:", 1)[1])
    assert readable >= 50 * keep - 12
    assert read(path, VideoSelection(frames=(0, readable))) == readable


@pytest.mark.parametrize("suffix", ["mkv", "avi"])
def test_other_containers_cut_off(tmp_path: Path, clip: Path, suffix: str) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (50, 48, 64, 3)).astype(np.uint8)
    path = write_clip(tmp_path / f"whole.{suffix}", frames)
    assert read(path) == 50
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(MediaError, match=r"--frames 0:\d+"):
        read(path)


def test_a_size_that_changes_in_the_middle(tmp_path: Path) -> None:
    """Two MPEG-TS files in a row are a valid MPEG-TS file."""
    one = write_clip(tmp_path / "one.ts", gradient(6, 48, 64))
    two = write_clip(tmp_path / "two.ts", gradient(6, 64, 96))
    path = tmp_path / "both.ts"
    path.write_bytes(one.read_bytes() + two.read_bytes())
    with pytest.raises(MediaError, match=r"64x48 to 96x64|damaged"):
        read(path)


@pytest.mark.parametrize("field", ["max_pixels", "max_frames", "stall_timeout_s", "memory_gib", "threads"])
def test_limits_are_checked(field: str) -> None:
    values: list[Any] = [0, -1, float("nan"), float("inf")]
    for value in values:
        with pytest.raises(ConfigError, match=f"limits.{field}"):
            DecodeLimits(**{field: value})


@linux_only
def test_workers_end_with_their_reader(tmp_path: Path, clip: Path) -> None:
    before = workers_of()
    read(clip)
    with VideoReader(clip, chunk_frames=2) as reader:
        next(iter(reader))
        assert len(workers_of()) == len(before) + 1
    probe_video(clip)
    with LosslessWriter(tmp_path / "x.mkv", "gray", height=8, width=8, fps=Fraction(25)) as writer:
        writer.write(np.zeros((3, 8, 8), np.uint8), np.arange(3) / 25)
    forgotten = LosslessClip(tmp_path / "x.mkv", "gray")
    assert len(workers_of()) == len(before) + 1
    del forgotten
    gc.collect()
    with pytest.raises(RuntimeError, match="caller"), VideoReader(clip):
        raise RuntimeError("caller")
    assert workers_of() == before


@linux_only
def test_a_worker_ends_when_its_parent_is_killed(clip: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from ex4d.io.video import VideoReader\n"
        "reader = VideoReader(Path(sys.argv[1])); print('ready', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(clip)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        (worker,) = workers_of(parent.pid)
        parent.kill()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{worker}/cmdline").exists() and Path(f"/proc/{worker}/cmdline").read_bytes():
        assert time.monotonic() < deadline, "the worker outlived its parent"
        time.sleep(0.05)


@pytest.mark.skipif(os.name != "posix", reason="needs SIGSTOP")
def test_a_worker_that_hangs_is_killed_and_reported(clip: Path) -> None:
    with DecodeWorker(DecodeLimits(stall_timeout_s=1.0)) as worker:
        worker.ask(op="stream", path=str(clip), selection={})
        header = worker.receive_header()
        os.kill(worker.pid, signal.SIGSTOP)
        with pytest.raises(MediaError, match="no progress for 1 s"):
            for _ in worker.receive_frames(header):
                pass
        assert not worker.alive


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_a_worker_that_crashes_is_reported(clip: Path) -> None:
    with DecodeWorker(DecodeLimits()) as worker:
        worker.ask(op="stream", path=str(clip), selection={})
        os.kill(worker.pid, signal.SIGSEGV)
        with pytest.raises(MediaError, match="could not survive"):
            worker.receive_header()


def test_a_slow_reader_is_not_a_hang(clip: Path) -> None:
    with VideoReader(clip, limits=DecodeLimits(stall_timeout_s=2.0), chunk_frames=25) as reader:
        chunks = iter(reader)
        next(chunks)
        time.sleep(2.5)
        assert sum(len(chunk) for chunk in chunks) == 25


@linux_only
def test_a_worker_imports_nothing_from_the_folder_it_is_started_in(tmp_path: Path, clip: Path) -> None:
    for name in ("av.py", "json.py", "ex4d.py", "PIL.py"):
        (tmp_path / name).write_text("raise SystemExit('a stranger was here')")
    code = (
        "import sys; from pathlib import Path; from ex4d.io.video import probe_video\n"
        "print(probe_video(Path(sys.argv[1])).num_frames)"
    )
    # -P keeps the parent itself from importing them.
    result = subprocess.run(
        [sys.executable, "-P", "-c", code, str(clip)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.stdout.strip() == "50", result.stderr


def test_errors_reach_the_user_without_control_characters(tmp_path: Path) -> None:
    path = tmp_path / "evil\x1b[2Jname.mp4"
    path.write_bytes(b"text")
    with pytest.raises(MediaError) as error:
        read(path)
    assert "\x1b" not in str(error.value)


# ---- fuzz ----------------------------------------------------------------------------------------------------


def seeds(folder: Path) -> list[bytes]:
    """Whole little files of many containers and codecs."""
    yuv10 = [np.full((32, 32), 500, np.uint16), np.full((16, 16), 520, np.uint16), np.full((16, 16), 500, np.uint16)]
    frames = gradient(10, 32, 32)
    files = [
        write_clip(folder / "a.mp4", frames, audio="aac"),
        write_clip(folder / "b.mkv", frames, codec="ffv1", pix_fmt="bgr0"),
        write_clip(folder / "c.avi", frames, codec="mpeg4"),
        write_clip(folder / "d.ts", frames),
        write_clip(folder / "e.webm", frames, codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8"}),
        write_clip(folder / "f.mov", frames, codec="prores", pix_fmt="yuv422p10le"),
        write_clip(folder / "g.gif", frames, codec="gif", pix_fmt="rgb8", times_ms=range(0, 1000, 100)),
        write_clip(folder / "h.mkv", [frame_of(yuv10, "yuv420p10le")] * 3, codec="ffv1", pix_fmt="yuv420p10le"),
        write_clip(folder / "i.flv", frames, codec="flv"),
        write_clip(folder / "j.mp4", frames, codec="libx265", options={"x265-params": "log-level=none"}),
        write_clip(folder / "k.mp4", frames, codec="mjpeg", pix_fmt="yuvj420p"),
    ]
    from PIL import Image

    for name in ("l.png", "m.jpg", "n.webp", "o.tiff"):
        Image.fromarray(frames[0]).save(folder / name)
        files.append(folder / name)
    return [path.read_bytes() for path in files]


def mutate(data: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    """One of: cut, flip bits, overwrite a run, splice with another file, swap the head, repeat a part."""
    kind = rng.integers(0, 6)
    at = int(rng.integers(0, len(data)))
    other = others[int(rng.integers(0, len(others)))]
    out = bytearray(data)
    if kind == 0:
        return data[:at]
    if kind == 1:
        for where in rng.integers(0, len(data), int(rng.integers(1, 30))):
            out[where] ^= 1 << int(rng.integers(0, 8))
        return bytes(out)
    if kind == 2:
        run = int(rng.integers(1, 64))
        out[at : at + run] = rng.integers(0, 256, run).astype(np.uint8).tobytes()
        return bytes(out)
    if kind == 3:
        return data[:at] + other[int(rng.integers(0, len(other))) :]
    if kind == 4:
        head = int(rng.integers(4, 64))
        return other[:head] + data[head:]
    return data[:at] + data[at // 2 :]


def fuzz(folder: Path, count: int, seed: int) -> tuple[int, int]:
    """Read mutated files; returns (read, refused). Anything but frames or an `Ex4dError` propagates."""
    whole = seeds(folder)
    rng = np.random.default_rng(seed)
    outcomes = [0, 0]
    limits = DecodeLimits(stall_timeout_s=8.0, max_frames=2000)
    path = folder / "mutant.mp4"
    for index in range(count):
        path.write_bytes(mutate(whole[index % len(whole)], whole, rng))
        start = time.monotonic()
        try:
            read(path, limits=limits)
            outcomes[0] += 1
        except Ex4dError as error:
            outcomes[1] += bool(error.expected)
        assert time.monotonic() - start < 20
    if sys.platform == "linux":
        assert workers_of() == []
    return outcomes[0], outcomes[1]


def test_fuzz(tmp_path: Path) -> None:
    read_count, refused = fuzz(tmp_path, 40, seed=1)
    assert min(read_count, refused) >= 3


@pytest.mark.prove
@pytest.mark.timeout(900)
def test_fuzz_at_length(tmp_path: Path) -> None:
    read_count, refused = fuzz(tmp_path, 300, seed=2)
    assert read_count + refused == 300
    assert min(read_count, refused) >= 30
