"""The focal length that a camera wrote into its file, as its 35 mm equivalent; standard library only.

What reads untrusted bytes here runs in the decode worker.

The equivalent is the focal length that shows the same *diagonal* angle of view on 35 mm film, whose frame of
36 x 24 mm has a diagonal of 43.27 mm (the usual reading, CIPA guideline DCG-001). A diagonal does not care how a
picture was turned, but it is the sensor's: phones cut films and wide pictures out of 4:3 sensors of the same width
and write the lens's own value. For stabilisation they cut more, by an amount that no file tells: the true focal
length of a phone's film is longer by that share.
"""

import io
import math
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

FILM_DIAGONAL_MM = math.hypot(36.0, 24.0)
WIDEST_SENSOR = 1.55
"""Sensors are 4:3 or 3:2; wider pictures, within rounding, are cut."""
SHORTEST_MM, LONGEST_MM = 3.0, 3000.0
"""Equivalents outside are no lenses: fisheyes begin below, telescopes above."""

# Exif 2.32 (CIPA DC-008), tags of the Exif IFD.
_FOCAL_LENGTH, _FOCAL_LENGTH_35MM = 0x920A, 0xA405
_WIDTH, _HEIGHT = 0xA002, 0xA003
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 0xA20E, 0xA20F, 0xA210
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 1e-3}
_CROP_TOLERANCE = 0.01

# Apple's QuickTime key is com.apple.quicktime.camera.focal_length.35mm_equivalent ("50.00mm" in Apple's documentation,
# a whole number in iPhones' files); Matroska copies of such files write keys in capitals. Android and GoPro have none.
_VIDEO_KEY = re.compile(r"focal.?length.*35.?mm", re.IGNORECASE)
_MAX_BOXES = 4096
_MAX_META_BYTES = 1 << 20
_NUMBER_MM = re.compile(r"\s*(\d{1,6}(?:\.\d{1,9})?)\s*(?:mm)?\s*", re.IGNORECASE)


def focal_from_35mm(focal_35mm: float, height: int, width: int) -> float:
    """Focal length in px of a picture of this size, from its 35 mm equivalent in mm.

    ``f = f35 · diagonal / 43.27 mm``. The diagonal is the picture's own up to 3:2; a wider one is taken for a
    strip of a 4:3 picture with the same longer side.
    """
    longer, shorter = max(height, width), min(height, width)
    if longer > WIDEST_SENSOR * shorter:
        shorter = 0.75 * longer
    return focal_35mm * math.hypot(longer, shorter) / FILM_DIAGONAL_MM


def focal_35mm_of_exif(tags: Mapping[int, Any], height: int, width: int) -> float | None:
    """35 mm equivalent in mm from the Exif IFD of a picture, or None where it does not say.

    FocalLengthIn35mmFilm, else FocalLength and the sensor's size: PixelXDimension over FocalPlaneXResolution, and
    the same for Y. A picture of another shape than PixelXDimension x PixelYDimension was cropped since: None.

    Args:
        tags: tag number → value, as untrusted as the file.
        height: px of the picture.
        width: px of the picture.
    """
    shot = _positive(tags.get(_HEIGHT)), _positive(tags.get(_WIDTH))
    if shot[0] is None or shot[1] is None:
        return _lens(_positive(tags.get(_FOCAL_LENGTH_35MM)))
    aspects = max(height, width) / min(height, width), max(shot[0], shot[1]) / min(shot[0], shot[1])
    if abs(aspects[0] / aspects[1] - 1) > _CROP_TOLERANCE:
        return None
    given = _lens(_positive(tags.get(_FOCAL_LENGTH_35MM)))
    focal_mm, unit_mm = _positive(tags.get(_FOCAL_LENGTH)), _UNIT_MM.get(_unit(tags.get(_RESOLUTION_UNIT)))
    per_unit_x = _positive(tags.get(_X_RESOLUTION))
    if given is not None or focal_mm is None or unit_mm is None or per_unit_x is None:
        return given
    per_unit_y = _positive(tags.get(_Y_RESOLUTION)) or per_unit_x
    sensor_mm = math.hypot(shot[1] / per_unit_x, shot[0] / per_unit_y) * unit_mm
    return _lens(focal_mm * FILM_DIAGONAL_MM / sensor_mm) if 0 < sensor_mm < math.inf else None


def focal_35mm_of_video(*metadata: Mapping[str, str]) -> float | None:
    """35 mm equivalent in mm from the tags of a container and its streams, or None where none says it."""
    for tags in metadata:
        for key, value in tags.items():
            lens = _lens(_millimetres(value)) if _VIDEO_KEY.search(key) else None
            if lens is not None:
                return lens
    return None


def focal_35mm_of_mov(path: Path) -> float | None:
    """35 mm equivalent in mm from the metadata of a QuickTime or MP4 file, or None where it does not say.

    iPhones note it on the video *track* (moov/trak/meta), which FFmpeg does not read. Boxes: QuickTime File
    Format, "Metadata"; keys number the names, ilst holds the values. Damage means None.
    """
    try:
        with path.open("rb") as file:
            for meta in _meta_boxes(file):
                focal_35mm = _focal_of_meta(meta)
                if focal_35mm is not None:
                    return focal_35mm
    except (OSError, struct.error, ValueError):
        return None
    return None


def _meta_boxes(file: BinaryIO) -> Iterator[bytes]:
    """Content of every moov/trak/meta and moov/meta, the tracks' first."""
    file_end = file.seek(0, io.SEEK_END)
    in_movie: list[tuple[int, int]] = []
    for kind, start, end in _boxes(file, 0, file_end):
        if kind == b"moov":
            for inner, inner_start, inner_end in _boxes(file, start, end):
                if inner == b"trak":
                    for own, own_start, own_end in _boxes(file, inner_start, inner_end):
                        if own == b"meta":
                            yield _content(file, own_start, own_end)
                elif inner == b"meta":
                    in_movie.append((inner_start, inner_end))
    for start, end in in_movie:
        yield _content(file, start, end)


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start of the content, end) of the boxes between two offsets; ends at the first impossible one."""
    for _ in range(_MAX_BOXES):
        if start + 8 > end:
            return
        file.seek(start)
        size, kind = struct.unpack(">I4s", file.read(8))
        head = 8
        if size == 1:
            size, head = struct.unpack(">Q", file.read(8))[0], 16
        stop = end if size == 0 else start + size
        if not start + head <= stop <= end:
            return
        yield kind, start + head, stop
        start = stop


def _content(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(min(end - start, _MAX_META_BYTES))


def _focal_of_meta(data: bytes) -> float | None:
    """The focal length in a meta box, whose MP4 form begins with 4 bytes more than QuickTime's."""
    file = io.BytesIO(data)
    boxes = {kind: (a, b) for kind, a, b in _boxes(file, 0 if data[4:8] == b"hdlr" else 4, len(data))}
    if b"keys" not in boxes or b"ilst" not in boxes:
        return None
    names = [data[a:b] for _, a, b in _boxes(file, boxes[b"keys"][0] + 8, boxes[b"keys"][1])]
    for index, start, end in _boxes(file, *boxes[b"ilst"]):
        number = int.from_bytes(index, "big")
        known = 1 <= number <= len(names)
        if not known or not _VIDEO_KEY.search(names[number - 1].decode("utf-8", "replace")):
            continue
        for kind, a, b in _boxes(file, start, end):
            if kind == b"data" and b - a > 8:
                return _lens(_metadata_value(int.from_bytes(data[a : a + 4], "big"), data[a + 8 : b]))
    return None


def _metadata_value(kind: int, value: bytes) -> float | None:
    """A number of one of QuickTime's well-known types: text, integers, floats."""
    if kind == 1:
        return _millimetres(value.decode("utf-8", "replace"))
    if kind in (23, 24) and len(value) == (4 if kind == 23 else 8):
        return _positive(struct.unpack(">f" if kind == 23 else ">d", value)[0])
    if kind in (21, 22, *range(65, 68), *range(74, 79)) and len(value) <= 8:
        return _positive(int.from_bytes(value, "big", signed=kind in (21, 65, 66, 67, 74)))
    return None


def _millimetres(text: str) -> float | None:
    number = _NUMBER_MM.fullmatch(text)
    return None if number is None else float(number.group(1))


def _positive(value: Any) -> float | None:
    """A finite number above 0; Exif rationals may be 0/0 or anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError, ArithmeticError):
        return None
    return number if 0 < number < math.inf else None


def _unit(value: Any) -> int:
    return value if isinstance(value, int) else 2  # inches, as Exif says for a missing unit


def _lens(focal_35mm: float | None) -> float | None:
    return focal_35mm if focal_35mm is not None and SHORTEST_MM <= focal_35mm <= LONGEST_MM else None
