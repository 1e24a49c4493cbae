"""The focal length that cameras write: Exif of stills, tags and boxes of videos; hostile values are no lens."""

import math
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational
from video_media import gradient, patch_track_matrix

from ex4d.io.exif import (
    FILM_DIAGONAL_MM,
    focal_35mm_of_exif,
    focal_35mm_of_mov,
    focal_35mm_of_video,
    focal_from_35mm,
)
from ex4d.io.video import probe_video

APPLE = "com.apple.quicktime.camera.focal_length.35mm_equivalent"
FOCAL, FOCAL_35MM, WIDTH, HEIGHT, X_RES, Y_RES, UNIT = 0x920A, 0xA405, 0xA002, 0xA003, 0xA20E, 0xA20F, 0xA210
ORIENTATION = 0x0112


def save_still(path: Path, tags: dict[int, Any], *, size: tuple[int, int] = (48, 64), orientation: int = 1) -> Path:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif.get_ifd(0x8769).update(tags)
    exif[0x8769] = 8  # any offset: Pillow's TIFF writer looks whether there is one
    Image.fromarray(np.zeros((*size, 3), np.uint8)).save(path, exif=exif)
    return path


def write_video(path: Path, tags: dict[str, str]) -> Path:
    options = {} if path.suffix == ".mkv" else {"movflags": "use_metadata_tags"}
    with av.open(str(path), "w", options=options) as container:
        container.metadata.update(tags)
        stream: Any = container.add_stream("libx264", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for image in gradient(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def box(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", 8 + len(data)) + kind + data


def meta_box(value: bytes, kind: int, *, key: str = APPLE, is_mp4: bool = False) -> bytes:
    """A metadata box as iPhones write on the video track (QuickTime File Format, "Metadata")."""
    handler = box(b"hdlr", struct.pack(">I4s4s12x", 0, bytes(4), b"mdta") + b"\0")
    names = [b"com.apple.quicktime.camera.lens_model", key.encode()]
    keys = box(b"keys", struct.pack(">II", 0, 2) + b"".join(box(b"mdta", name) for name in names))
    items = [b"iPhone back camera", value]
    kinds = [1, kind]
    values = b"".join(
        box(struct.pack(">I", i + 1), box(b"data", struct.pack(">II", kinds[i], 0) + items[i])) for i in range(2)
    )
    return box(b"meta", (bytes(4) if is_mp4 else b"") + handler + keys + box(b"ilst", values))


def add_to_track(path: Path, meta: bytes) -> Path:
    """Put a box at the end of the first track; the samples lie before it in files that FFmpeg writes."""
    data = bytearray(path.read_bytes())
    movie, track = data.index(b"moov") - 4, data.index(b"trak") - 4
    assert data.index(b"mdat") < movie
    sizes = [struct.unpack_from(">I", data, at)[0] for at in (movie, track)]
    data[track + sizes[1] : track + sizes[1]] = meta
    for at, size in zip((movie, track), sizes, strict=True):
        struct.pack_into(">I", data, at, size + len(meta))
    path.write_bytes(data)
    return path


def test_the_equivalent_is_by_the_diagonal() -> None:
    assert pytest.approx(43.2666, abs=1e-4) == FILM_DIAGONAL_MM
    focal = focal_from_35mm(50.0, 2400, 3600)
    assert focal == pytest.approx(5000)
    fov_deg = math.degrees(2 * math.atan(math.hypot(2400, 3600) / 2 / focal))
    assert fov_deg == pytest.approx(46.8, abs=0.05)  # the diagonal angle of a normal lens
    assert focal_from_35mm(26.0, 1080, 1920) == focal_from_35mm(26.0, 1920, 1080)
    # A 16:9 film of a phone shows the whole width of its 4:3 sensor.
    assert focal_from_35mm(26.0, 1080, 1920) == focal_from_35mm(26.0, 1440, 1920) == pytest.approx(1442, abs=1)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_stills(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = save_still(tmp_path / f"a{suffix}", {FOCAL_35MM: 26, FOCAL: IFDRational(57, 10)}, orientation=orientation)
    info = probe_video(path)
    assert info.focal_35mm == 26
    assert (info.height, info.width) == ((48, 64) if orientation == 1 else (64, 48))


@pytest.mark.parametrize(("unit", "per_mm"), [(None, 25.4), (2, 25.4), (3, 10.0), (4, 1.0)])
def test_stills_with_the_sensor_size_alone(tmp_path: Path, unit: int | None, per_mm: float) -> None:
    """An APS-C sensor of 23.5 x 15.6 mm and 6016 x 4016 px, here in a smaller copy."""
    x, y = 6016 / 23.5 * per_mm, 4016 / 15.6 * per_mm
    tags = {FOCAL: 35.0, WIDTH: 6016, HEIGHT: 4016, X_RES: IFDRational(round(x * 1000), 1000), Y_RES: y}
    path = save_still(tmp_path / "a.jpg", tags if unit is None else {**tags, UNIT: unit}, size=(401, 601))
    focal_35mm = probe_video(path).focal_35mm
    assert focal_35mm == pytest.approx(35 * math.hypot(36, 24) / math.hypot(23.5, 15.6), rel=1e-4)


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {FOCAL: 5.7},
        {FOCAL_35MM: 0},
        {FOCAL_35MM: 65535},
        {FOCAL: IFDRational(0, 0), WIDTH: 64, HEIGHT: 48, X_RES: 100.0},
        {FOCAL: 5.7, WIDTH: 64, HEIGHT: 48, X_RES: IFDRational(1, 0)},
        {FOCAL: 5.7, WIDTH: 64, HEIGHT: 48, X_RES: 100.0, UNIT: 1},
        {FOCAL: 35.0, X_RES: 6000.0},
        {FOCAL_35MM: 26, WIDTH: 64, HEIGHT: 64},
    ],
)
def test_stills_that_do_not_say(tmp_path: Path, tags: dict[int, Any]) -> None:
    with Image.open(save_still(tmp_path / "a.jpg", tags)) as image:
        stored = image.getexif().get_ifd(0x8769)
    assert stored.keys() == tags.keys()
    assert focal_35mm_of_exif(stored, 48, 64) is None


@pytest.mark.parametrize("value", ["x", b"26", (26, 27), None, float("nan"), -26, [], 1e300])
def test_values_of_any_type_are_no_lens(value: Any) -> None:
    assert focal_35mm_of_exif({FOCAL_35MM: value}, 48, 64) in (None, 26.0)  # float() takes b"26"
    assert focal_35mm_of_exif({FOCAL: 5.0, WIDTH: value, HEIGHT: value, X_RES: value, UNIT: value}, 48, 64) is None


def test_damaged_exif_leaves_the_picture_readable(tmp_path: Path) -> None:
    data = save_still(tmp_path / "a.jpg", {FOCAL_35MM: 26}).read_bytes()
    start = data.index(b"Exif\0\0") + 14
    rng = np.random.default_rng(0)
    for i in range(6):
        broken = bytearray(data)
        at = start + int(rng.integers(0, 40))
        broken[at : at + 4] = rng.integers(0, 256, 4, dtype=np.uint8).tobytes()
        (tmp_path / f"{i}.jpg").write_bytes(broken)
        assert probe_video(tmp_path / f"{i}.jpg").is_still


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
def test_tags_of_videos(tmp_path: Path, name: str) -> None:
    path = write_video(tmp_path / name, {APPLE: "23.50mm", "com.apple.quicktime.make": "Apple"})
    assert probe_video(path).focal_35mm == 23.5


def test_videos_that_do_not_say(tmp_path: Path) -> None:
    tags = {"com.android.capture.fps": "30.0", "comment": "focal length 26", "com.apple.quicktime.focal": "5"}
    assert probe_video(write_video(tmp_path / "a.mp4", tags)).focal_35mm is None


@pytest.mark.parametrize("is_mp4", [False, True])
@pytest.mark.parametrize(
    ("kind", "value", "focal"),
    [
        (1, b"26.00mm", 26.0),
        (21, b"\x17", 23.0),
        (22, struct.pack(">I", 120), 120.0),
        (67, struct.pack(">i", 24), 24.0),
        (23, struct.pack(">f", 13.5), 13.5),
        (24, struct.pack(">d", 77.0), 77.0),
        (21, b"\xff", None),
        (23, struct.pack(">f", math.nan), None),
        (1, b"\xff\xfe", None),
        (99, b"26", None),
    ],
)
def test_types_of_quicktime(tmp_path: Path, kind: int, value: bytes, focal: float | None, is_mp4: bool) -> None:
    track = box(b"trak", meta_box(value, kind, is_mp4=is_mp4))
    (tmp_path / "a.mov").write_bytes(box(b"ftyp", b"qt  ") + box(b"moov", box(b"mvhd", bytes(100)) + track))
    assert focal_35mm_of_mov(tmp_path / "a.mov") == focal


def test_iphones_note_it_on_the_track(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mov", {})
    assert probe_video(path).focal_35mm is None
    assert probe_video(add_to_track(path, meta_box(b"\x17", 21))).focal_35mm == 23


def test_a_turned_video_has_the_same_lens(tmp_path: Path) -> None:
    path = add_to_track(write_video(tmp_path / "a.mp4", {}), meta_box(b"26", 1))
    info = probe_video(patch_track_matrix(path, (0, 1, -1, 0)))
    assert (info.height, info.width, info.rotation_deg, info.focal_35mm) == (64, 48, 90, 26.0)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data.replace(b"ilst", b"ilsx"),
        lambda data: data.replace(b"moov", b"\0\0\0\0"),
        lambda data: box(b"moov", box(b"trak", struct.pack(">I4s", 1, b"meta"))),
        lambda data: box(b"moov", box(b"trak", struct.pack(">I4sQ", 1, b"meta", 2**63))),
        lambda data: box(b"moov", box(b"trak", struct.pack(">I4s", 4, b"meta") * 50)),
        lambda data: box(b"moov", box(b"trak", box(b"meta", b"\0\0\0\x08hdlr" + struct.pack(">I4s", 0, b"keys")))),
        lambda data: struct.pack(">I4s", 8, b"free") * 100_000,
    ],
)
def test_damaged_boxes(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = add_to_track(write_video(tmp_path / "a.mov", {}), meta_box(b"26", 1))
    assert focal_35mm_of_mov(path) == 26
    path.write_bytes(damage(path.read_bytes()))
    assert focal_35mm_of_mov(path) is None


def test_mutated_boxes(tmp_path: Path) -> None:
    path = tmp_path / "a.mov"
    data = box(b"moov", box(b"trak", meta_box(b"26", 1)))
    rng = np.random.default_rng(3)
    for _ in range(300):
        broken = bytearray(data)
        at = int(rng.integers(0, len(data)))
        broken[at : at + int(rng.integers(0, 5))] = rng.integers(0, 256, 3, dtype=np.uint8).tobytes()
        path.write_bytes(broken)
        focal_35mm = focal_35mm_of_mov(path)
        assert focal_35mm is None or 3 <= focal_35mm <= 3000


def test_the_first_usable_tag_counts() -> None:
    assert focal_35mm_of_video({}, {APPLE: "nothing"}, {APPLE.upper(): "28"}) == 28
    assert focal_35mm_of_video({"FocalLengthIn35mmFormat": "35 mm"}) == 35
    for value in ("wide", "0", "26,5", "-26", "26 px", "1e3", ""):
        assert focal_35mm_of_video({APPLE: value}) is None
    assert focal_35mm_of_video() is None
