"""Depth as a folder of images: 16-bit PNG or PGM, and EXR (extra ``exr``)."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ex4d.core.arrays import Float32, Int64
from ex4d.errors import DepthError, MissingDependencyError
from ex4d.io.depth.raw import MAX_PIXELS, check_declared_size

IMAGE_SUFFIXES = (".png", ".pgm", ".exr")
_EXR_NAMES = ("Z", "depth", "Depth", "disparity", "Y", "V", "R")
PILLOW_ERRORS = (OSError, ValueError, SyntaxError, EOFError, OverflowError, MemoryError, Image.DecompressionBombError)
"""What Pillow raises on damaged or hostile images (SyntaxError comes from its PNG parser)."""


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key in which ``frame_10`` follows ``frame_9``."""
    parts = re.split(r"(\d+)", name.lower())
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts if part]


def list_depth_images(folder: Path) -> list[Path]:
    """Depth images of one suffix in natural order (hidden files are skipped).

    Raises:
        DepthError: none, or several kinds of them.
    """
    found = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    suffixes = sorted({p.suffix.lower() for p in found})
    if len(suffixes) != 1:
        raise DepthError(
            f"depth images of one kind ({', '.join(IMAGE_SUFFIXES)}) in {folder}",
            "none" if not suffixes else f"a mixture of {', '.join(suffixes)}",
            "name the folder that holds one image a frame and nothing else",
        )
    return sorted(found, key=lambda p: natural_key(p.name))


class ImageFrames:
    """One depth image a frame, all of the size of the first; satisfies `DepthFrames`.

    Args:
        files: the images in order.

    Raises:
        DepthError: the first image cannot be read.
        MissingDependencyError: EXR without the package OpenEXR.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = list(files)
        first = read_depth_image(self.files[0])
        self.height, self.width = first.shape
        self.is_integer = first.dtype.kind in "iu"
        self.num_frames = len(self.files)
        check_declared_size(str(self.files[0].parent), num_frames=self.num_frames, height=self.height, width=self.width)

    def read_frames(self, indices: Int64) -> Float32:
        """float32 [n,H,W], stored numbers.

        Raises:
            DepthError: an image that cannot be read or has another size than the first.
        """
        out = np.empty((len(indices), self.height, self.width), np.float32)
        for slot, index in enumerate(indices):
            image = read_depth_image(self.files[index])
            if image.shape != (self.height, self.width):
                raise DepthError(
                    f"{self.width}x{self.height} depth in frame {index}, as in frame 0",
                    f"{image.shape[1]}x{image.shape[0]} in {self.files[index].name}",
                )
            out[slot] = image
        return out


def read_depth_image(path: Path) -> np.ndarray[Any, Any]:
    """One depth image [H,W] with its stored numbers, exact: uint16 or float32.

    Raises:
        DepthError: unreadable, too large, coloured, or with only 8 bits.
        MissingDependencyError: EXR without the package OpenEXR.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".exr":
            return _read_exr(path)
        if suffix == ".pgm":
            return _read_pgm(path)
        return _read_pillow(path)
    except PILLOW_ERRORS as error:
        raise DepthError(
            f"a readable depth image at {path}", str(error) or type(error).__name__, "export it again"
        ) from error


def _check_pixels(path: Path, height: int, width: int) -> None:
    if not 0 < height * width <= MAX_PIXELS:
        raise DepthError(f"at most {MAX_PIXELS} pixels in {path}", f"{width}x{height}")


def _read_pillow(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path, formats=("PNG",)) as image:
        _check_pixels(path, image.height, image.width)
        if image.mode in ("I;16", "I;16B", "I;16L", "I"):
            values = np.array(image)
            if values.min() < 0 or values.max() > 65535:
                raise DepthError(f"16-bit numbers in {path}", f"{values.min()} to {values.max()}")
            return values.astype(np.uint16)
        raise DepthError(
            f"a 16-bit grayscale image at {path}",
            f"mode {image.mode} (8-bit or coloured pictures of depth have lost it)",
            "export depth as 16-bit grayscale PNG, .npz or EXR",
        )


def _read_pgm(path: Path) -> np.ndarray[Any, Any]:
    """Binary PGM without Pillow's rescaling by maxval (format: netpbm.sourceforge.net/doc/pgm.html)."""
    data = path.read_bytes() if path.stat().st_size <= 2 * MAX_PIXELS + 4096 else b""
    header = re.match(rb"P5\s(?:\s*#[^\n]*\n)*\s*(\d{1,9})\s+(?:#[^\n]*\n\s*)*(\d{1,9})\s+(\d{1,5})\s", data[:4096])
    if header is None:
        raise DepthError(f"a binary 16-bit PGM (P5) at {path}", "another kind of file")
    width, height, maximum = (int(group) for group in header.groups())
    _check_pixels(path, height, width)
    if not 255 < maximum <= 65535:
        raise DepthError(f"16-bit numbers in {path}", f"a maximum of {maximum}")
    body = data[header.end() :]
    if len(body) < 2 * width * height:
        raise DepthError(f"{2 * width * height} bytes of pixels in {path}", f"{len(body)} (truncated)")
    return np.frombuffer(body, ">u2", count=width * height).reshape(height, width).astype(np.uint16)


def _read_exr(path: Path) -> np.ndarray[Any, Any]:
    try:
        import OpenEXR  # the extra `exr`: loaded only when an EXR file is met
    except ImportError as error:
        raise MissingDependencyError("OpenEXR", "exr", f"reading {path.name}") from error
    if not path.is_file():
        raise DepthError(f"an EXR file at {path}", "no file")
    try:
        with OpenEXR.File(str(path), header_only=True) as header:
            low, high = (np.asarray(corner, np.int64) for corner in header.header()["dataWindow"])
        _check_pixels(path, int(high[1] - low[1] + 1), int(high[0] - low[0] + 1))
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels = {name: np.array(channel.pixels) for name, channel in file.channels().items()}
    except (RuntimeError, TypeError, KeyError) as error:
        raise DepthError(f"a readable EXR at {path}", str(error) or type(error).__name__, "export it again") from error
    return _pick_channel(path, channels)


def _pick_channel(path: Path, channels: dict[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """The depth channel: a depth-like (last part of the) name, else the only one."""
    by_name = {name.rsplit(".", 1)[-1]: name for name in channels}
    chosen = next((by_name[name] for name in _EXR_NAMES if name in by_name), None)
    if chosen is None and len(channels) == 1:
        chosen = next(iter(channels))
    if chosen is None:
        raise DepthError(
            f"a channel named {', '.join(_EXR_NAMES)} in {path}",
            ", ".join(sorted(channels)),
            "rename the depth channel",
        )
    values = channels[chosen]
    if values.ndim != 2:
        raise DepthError(f"one number a pixel in {path}", f"shape {list(values.shape)}")
    return values.astype(np.float32)
