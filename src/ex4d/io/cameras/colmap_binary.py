"""COLMAP's binary model files, little-endian: https://colmap.github.io/format.html#binary-file-format"""

import struct
from pathlib import Path

from ex4d.core.camera import CameraPath
from ex4d.errors import CameraPathError
from ex4d.io.atomic import write_bytes_atomic
from ex4d.io.cameras.colmap import (
    MAX_MODEL_BYTES,
    MODEL_NAMES,
    MODEL_PARAMETERS,
    ColmapCamera,
    ColmapImage,
    assemble,
    colmap_rows,
    make_camera,
)
from ex4d.io.cameras.common import MAX_CAMERAS, RawCameras
from ex4d.io.strict_json import read_bytes

_CAMERA = struct.Struct("<IiQQ")  # id, model, width, height; then the parameters
_IMAGE = struct.Struct("<I7dI")  # id, qvec wxyz, tvec, camera id; then the name, a zero byte and the points
_COUNT = struct.Struct("<Q")
_POINT_BYTES = 24


class _Cursor:
    """Reads forward through bytes and never past their end."""

    def __init__(self, file: Path) -> None:
        self._data = read_bytes(file, MAX_MODEL_BYTES)
        self._file = file
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, layout: struct.Struct) -> tuple[int | float, ...]:
        self._need(layout.size)
        values = layout.unpack_from(self._data, self._at)
        self._at += layout.size
        return values

    def count(self, smallest_bytes: int) -> int:
        """A number of records, refused when that many cannot follow."""
        number = int(self.take(_COUNT)[0])
        self._need(number * smallest_bytes)
        return number

    def skip(self, size: int) -> None:
        self._need(size)
        self._at += size

    def name(self) -> str:
        end = self._data.find(b"\0", self._at, self._at + 4096)
        if end < 0:
            raise CameraPathError(f"an image name that ends in {self._file}", "none within 4096 bytes")
        text = self._data[self._at : end].decode("utf-8", errors="replace")
        self._at = end + 1
        return text

    def _need(self, size: int) -> None:
        if size > self.left:
            raise CameraPathError(
                f"{size} more bytes in {self._file}", f"{self.left}", "the file is cut short: export the model again"
            )


def read_colmap_binary(folder: Path) -> RawCameras:
    """Cameras of ``cameras.bin`` and ``images.bin``.

    Raises:
        CameraPathError: cut short, impossible counts, or a model with distortion.
    """
    return assemble(_read_cameras(folder / "cameras.bin"), _read_images(folder / "images.bin"))


def _read_cameras(file: Path) -> dict[int, ColmapCamera]:
    cursor = _Cursor(file)
    cameras: dict[int, ColmapCamera] = {}
    for _ in range(cursor.count(_CAMERA.size)):
        number, model, width, height = (int(value) for value in cursor.take(_CAMERA))
        name = MODEL_NAMES[model] if 0 <= model < len(MODEL_NAMES) else f"number {model}"
        params = cursor.take(struct.Struct(f"<{MODEL_PARAMETERS.get(name, 0)}d"))
        cameras[number] = make_camera(name, (height, width), tuple(float(value) for value in params))
    return cameras


def _read_images(file: Path) -> list[ColmapImage]:
    cursor = _Cursor(file)
    images: list[ColmapImage] = []
    num_images = cursor.count(_IMAGE.size + 1 + _COUNT.size)
    if num_images > MAX_CAMERAS:
        raise CameraPathError(f"at most {MAX_CAMERAS} images in {file}", f"{num_images}")
    for _ in range(num_images):
        values = cursor.take(_IMAGE)
        name = cursor.name()
        cursor.skip(cursor.count(_POINT_BYTES) * _POINT_BYTES)
        images.append(ColmapImage(tuple(float(value) for value in values[1:8]), int(values[8]), name))
    return images


def write_colmap_binary(folder: Path, path: CameraPath) -> None:
    """Write ``cameras.bin``, ``images.bin`` and a ``points3D.bin`` without points into an existing folder."""
    cameras, images = colmap_rows(path)
    pinhole = MODEL_NAMES.index("PINHOLE")
    camera_bytes = [_COUNT.pack(len(cameras))]
    camera_bytes += [
        _CAMERA.pack(number, pinhole, path.width, path.height) + struct.pack("<4d", *row)
        for number, row in cameras.items()
    ]
    image_bytes = [_COUNT.pack(len(images))]
    image_bytes += [
        _IMAGE.pack(i, *image.pose, image.camera_id) + image.name.encode() + b"\0" + _COUNT.pack(0)
        for i, image in enumerate(images, 1)
    ]
    for name, parts in (("cameras", camera_bytes), ("images", image_bytes), ("points3D", [_COUNT.pack(0)])):
        write_bytes_atomic(folder / f"{name}.bin", b"".join(parts))
