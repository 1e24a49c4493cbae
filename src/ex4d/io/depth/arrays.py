"""Depth in NumPy files: .npy and members of .npz, read frame by frame without pickle and without loading them whole."""

import contextlib
import io
import math
import threading
import tokenize
import weakref
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np

from ex4d.core.arrays import Float32, Float64, Int64
from ex4d.errors import DepthError
from ex4d.io.depth.raw import check_declared_size

DEPTH_KEYS = ("depth", "depths")
DISPARITY_KEYS = ("disparity", "disparities")
_MAX_SMALL_BYTES = 64 << 20
_MAX_HEADER_BYTES = 1 << 16

_READ_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
    KeyError,
)
"""What NumPy and zipfile raise on damaged, encrypted or exotic archives."""

_HEADER_ERRORS = (SyntaxError, tokenize.TokenError, TypeError, IndexError, MemoryError, RecursionError)
"""What NumPy lets through from Python's own parser on damaged headers."""


class ArrayFrames:
    """Frames of one array in a .npy file or in a .npz archive; satisfies `DepthFrames`.

    Accepted shapes: [T,H,W], [T,1,H,W], [T,H,W,1], [H,W]; any integer or float type; C order.
    A compressed archive is read forward; going back restarts it.

    Args:
        path: the file.
        member: the archive's member (``"depth.npy"``), or None for a .npy file.
        kinds: NumPy's letters of the accepted kinds of numbers.

    Raises:
        DepthError: a damaged file, an object array (pickle), a shape or size that cannot be depth.
    """

    def __init__(self, path: Path, member: str | None = None, *, kinds: str = "fiu") -> None:
        self._path = path
        self._member = member
        self._kinds = kinds
        self._what = path.name if member is None else f"{path.name}[{member.removesuffix('.npy')}]"
        self._lock = threading.Lock()
        self._stack = contextlib.ExitStack()
        self._stream: IO[bytes] | None = None
        weakref.finalize(self, self._stack.close)
        try:
            with self._lock:
                self.shape, self.dtype, self._offset = self._read_header(self._open())
        except _READ_ERRORS as error:
            self._stack.close()
            raise self._damaged(error) from error
        self.num_frames, self.height, self.width = _as_frames(self.shape, self._what)

    def _open(self) -> IO[bytes]:
        if self._stream is None:
            if self._member is None:
                self._stream = self._stack.enter_context(self._path.open("rb"))
            else:
                archive = self._stack.enter_context(zipfile.ZipFile(self._path))
                self._stream = self._stack.enter_context(archive.open(self._member))
        return self._stream

    def _read_header(self, stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype, int]:
        shape, dtype, fortran, offset = read_npy_header(stream)
        if dtype.kind not in self._kinds:
            raise DepthError(f"numbers in {self._what}", f"dtype {dtype}", "save a float or integer array, no objects")
        if fortran and len(shape) > 1:
            raise DepthError(f"{self._what} in C order", "Fortran order", "save np.ascontiguousarray(depth)")
        size = self._path.stat().st_size if self._member is None else self._member_size()
        needed = offset + math.prod(shape) * dtype.itemsize
        if size < needed:
            raise DepthError(
                f"{needed} bytes for the declared shape {list(shape)} in {self._what}",
                f"{size} bytes",
                "the file is truncated or its header is wrong: export it again",
            )
        return shape, dtype, offset

    def _member_size(self) -> int:
        with zipfile.ZipFile(self._path) as archive:
            return archive.getinfo(self._member or "").file_size

    def _damaged(self, error: Exception) -> DepthError:
        detail = str(error) or type(error).__name__
        return DepthError(f"a readable NumPy file at {self._path}", detail, "export it again with numpy.savez")

    def read_frames(self, indices: Int64) -> Float32:
        """float32 [n,H,W] of the named frames.

        Raises:
            DepthError: the data of a frame cannot be read.
        """
        out = np.empty((len(indices), self.height, self.width), np.float32)
        num_bytes = self.height * self.width * self.dtype.itemsize
        with self._lock:
            stream = self._open()
            for slot, index in enumerate(indices):
                try:
                    stream.seek(self._offset + int(index) * num_bytes)
                    data = stream.read(num_bytes)
                except _READ_ERRORS as error:
                    raise self._damaged(error) from error
                if len(data) != num_bytes:
                    raise DepthError(f"{num_bytes} bytes for frame {index} of {self._what}", f"{len(data)} bytes")
                frame = np.frombuffer(data, self.dtype).reshape(self.height, self.width)
                with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite and is reported as that
                    out[slot] = frame
        return out


def read_npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype, bool, int]:
    """Shape, dtype, whether Fortran order, and the data offset of a .npy stream, which is left at the data.

    Raises:
        ValueError: not a .npy header of version 1 or 2.
    """
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"npy format version {version} is not supported")
    if version == (2, 0):
        # NumPy reads the whole header before it looks at its length, which a bomb puts at 4 GiB.
        length = int.from_bytes(stream.read(4), "little")
        if length > _MAX_HEADER_BYTES:
            raise ValueError(f"a header of {length} bytes")
        stream.seek(-4, io.SEEK_CUR)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, fortran, dtype = read(stream)
    except _HEADER_ERRORS as error:
        raise ValueError(f"damaged header ({type(error).__name__})") from error
    if any(size < 0 for size in shape):
        raise ValueError(f"negative shape {shape}")
    return shape, dtype, fortran, stream.tell()


def _as_frames(shape: Sequence[int], what: str) -> tuple[int, int, int]:
    """(T, H, W) of an accepted shape."""
    sizes: tuple[int, ...] = tuple(shape)
    if len(sizes) == 2:
        sizes = (1, *sizes)
    if len(sizes) == 4 and sizes[1] == 1:
        sizes = (sizes[0], *sizes[2:])
    elif len(sizes) == 4 and sizes[3] == 1:
        sizes = sizes[:3]
    if len(sizes) != 3:
        raise DepthError(f"shape [T,H,W], [T,1,H,W] or [H,W] in {what}", str(list(shape)))
    check_declared_size(what, num_frames=sizes[0], height=sizes[1], width=sizes[2])
    return sizes[0], sizes[1], sizes[2]


def list_npz(path: Path) -> dict[str, str]:
    """Names of the arrays in an archive → their member names.

    Raises:
        DepthError: not a zip archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except _READ_ERRORS as error:
        raise DepthError(
            f"a .npz archive at {path}", str(error) or type(error).__name__, "export it again with numpy.savez"
        ) from error
    return {name.removesuffix(".npy"): name for name in names if name.endswith(".npy")}


def read_small_array(path: Path, member: str) -> Float64:
    """A small numeric array (cameras) of an archive as float64.

    Raises:
        DepthError: damaged, not numeric, or larger than 64 MiB.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
            shape, dtype, fortran, _ = read_npy_header(stream)
            size = math.prod(shape) * dtype.itemsize
            if dtype.kind not in "fiu" or size > _MAX_SMALL_BYTES:
                raise DepthError(f"a small array of numbers in {path.name}[{member}]", f"{dtype} {list(shape)}")
            data = stream.read(size)
        values = np.frombuffer(data, dtype, count=math.prod(shape))
    except _READ_ERRORS as error:
        raise DepthError(
            f"a readable array {member} in {path}", str(error) or type(error).__name__, "export it again"
        ) from error
    return values.reshape(shape, order="F" if fortran else "C").astype(np.float64)
