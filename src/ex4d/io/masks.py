"""Masks of the subject: a folder of pictures, one picture, a video or an array as ``Clip[SubjectMask]``.

White is the subject: a pixel of a picture counts whose brightest channel is above the middle of its range, so that
masks in colours (one a person, as annotation tools write them) count as well.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from ex4d.core.arrays import Bool, Float64, check_array
from ex4d.core.clip import DEFAULT_CHUNK_FRAMES
from ex4d.core.subject import SubjectMask
from ex4d.errors import InputError, MediaError
from ex4d.io.depth.arrays import ArrayFrames, list_npz
from ex4d.io.depth.clip import nearest_index
from ex4d.io.depth.images import PILLOW_ERRORS, natural_key
from ex4d.io.depth.raw import MAX_PIXELS
from ex4d.io.intrinsics import same_aspect
from ex4d.io.video import VideoReader

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
ARRAY_KEYS = ("subject", "mask", "masks", "arr_0")
_FIX_EMPTY = "white (255, 1.0 or True) is the subject; multiply masks of 0 and 1 by 255"


class MaskFrames(Protocol):
    """Where masks come from: one kind of input, read frame by frame."""

    @property
    def num_frames(self) -> int: ...

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    def read(self, start: int, stop: int) -> Bool:
        """bool [n,h,w] at the input's own size; cheap in ascending order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectMaskClip:
    """Masks at the size and with the times of a clip; satisfies ``Clip[SubjectMask]``. Opened by `open_subject_mask`.

    Attributes:
        frames: the masks, one a frame of the clip or a single one that holds for all.
        timestamps_s: float64 [num_frames], those of the clip.
        height: px of the clip.
        width: px of the clip.
    """

    frames: MaskFrames
    timestamps_s: Float64
    height: int
    width: int

    def __post_init__(self) -> None:
        check_array("SubjectMaskClip.timestamps_s", self.timestamps_s, np.float64, (None,))

    @property
    def num_frames(self) -> int:
        return len(self.timestamps_s)

    def read(self, start: int, stop: int) -> SubjectMask:
        """Frames ``start:stop``; another size than the clip's is resampled to the nearest pixel.

        Raises:
            InputError: a mask that cannot be read (any more).
        """
        if self.frames.num_frames == 1:
            subject = np.repeat(self.frames.read(0, 1), stop - start, axis=0)
        else:
            subject = self.frames.read(start, stop)
        if subject.shape[1:] != (self.height, self.width):
            rows = nearest_index(subject.shape[1], self.height)
            columns = nearest_index(subject.shape[2], self.width)
            subject = subject[:, rows[:, None], columns]
        return SubjectMask(subject=subject, timestamps_s=self.timestamps_s[start:stop])


def open_subject_mask(
    path: Path | str, *, num_frames: int, height: int, width: int, timestamps_s: Float64
) -> SubjectMaskClip:
    """Masks of a clip's subject; every frame is read once, so that what is wrong is said now.

    Args:
        path: a folder of PNG or JPEG pictures (one a frame, in natural order of names), one such picture or a
            folder of one (held for all frames), a video, or a .npy or .npz (`ARRAY_KEYS`, or the only array)
            of shape [T,H,W], [T,1,H,W], [T,H,W,1] or [H,W]: True, integers above 127 or floats above 0.5.
        num_frames: of the clip.
        height: px of the clip; masks of another size and the same aspect (1 %) are resampled.
        width: px of the clip.
        timestamps_s: float64 [num_frames], of the clip.

    Raises:
        InputError: nothing there, another count or shape, no subject in any frame, or a damaged file
            (`MediaError`, `DepthError` from the readers).
    """
    path = Path(path)
    frames = _open_frames(path, num_frames)
    if frames.num_frames not in (1, num_frames):
        raise InputError(
            f"1 or {num_frames} masks, one a frame, in {path.name}",
            f"{frames.num_frames}",
            "export one mask a frame, or choose the frames that have masks with --frames A:B",
        )
    if not same_aspect((frames.height, frames.width), (height, width)):
        raise InputError(
            f"masks of the video's shape ({width}x{height}, or another size at the same aspect ratio) in {path.name}",
            f"{frames.width}x{frames.height}",
            "export the masks at the video's size, without cropping or padding",
        )
    some = False
    for start in range(0, frames.num_frames, DEFAULT_CHUNK_FRAMES):
        some |= bool(frames.read(start, min(start + DEFAULT_CHUNK_FRAMES, frames.num_frames)).any())
    if not some:
        raise InputError(f"a subject in some frame of {path.name}", "black masks only", _FIX_EMPTY)
    return SubjectMaskClip(frames=frames, timestamps_s=timestamps_s, height=height, width=width)


def _open_frames(path: Path, num_frames: int) -> MaskFrames:
    if path.is_dir():
        files = [file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.name[0] != "."]
        if not files:
            raise InputError(f"masks ({', '.join(IMAGE_SUFFIXES)}) in {path}", "none")
        return ImageMasks(sorted(files, key=lambda file: natural_key(file.name)))
    if not path.is_file():
        raise InputError(f"masks at {path}", "nothing there", "check the name")
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return ImageMasks([path])
    if suffix in (".npy", ".npz"):
        return ArrayMasks(path)
    return VideoMasks(path, max_frames=num_frames)


class ImageMasks:
    """One picture a frame, all of the first one's size; satisfies `MaskFrames`."""

    def __init__(self, files: list[Path]) -> None:
        self._files = files
        self.num_frames = len(files)
        self.height, self.width = read_mask_image(files[0]).shape

    def read(self, start: int, stop: int) -> Bool:
        """bool [n,h,w]."""
        out = np.empty((stop - start, self.height, self.width), np.bool_)
        for slot, file in enumerate(self._files[start:stop]):
            mask = read_mask_image(file)
            if mask.shape != (self.height, self.width):
                raise InputError(
                    f"{self.width}x{self.height} in {file.name}, as in {self._files[0].name}",
                    f"{mask.shape[1]}x{mask.shape[0]}",
                )
            out[slot] = mask
        return out


def read_mask_image(path: Path) -> Bool:
    """bool [H,W] of a PNG or JPEG: True where the brightest channel is above half; transparency is ignored.

    Raises:
        MediaError: not such a picture, damaged, or larger than `MAX_PIXELS`.
    """
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            if not 0 < image.width * image.height <= MAX_PIXELS:
                raise MediaError(f"at most {MAX_PIXELS} pixels in {path}", f"{image.width}x{image.height}")
            if image.mode.startswith("I"):
                return np.array(image) > 32767
            return np.array(image.convert("RGB")).max(axis=2) > 127
    except PILLOW_ERRORS as error:
        raise MediaError(
            f"a readable PNG or JPEG at {path}", str(error) or type(error).__name__, "export it again"
        ) from error


class ArrayMasks:
    """An array in a .npy or .npz file; satisfies `MaskFrames`."""

    def __init__(self, path: Path) -> None:
        self._frames = ArrayFrames(path, _mask_member(path), kinds="biuf")
        self.num_frames = self._frames.num_frames
        self.height, self.width = self._frames.height, self._frames.width
        self._limit = 127.0 if self._frames.dtype.kind in "iu" else 0.5

    def read(self, start: int, stop: int) -> Bool:
        """bool [n,h,w]."""
        return self._frames.read_frames(np.arange(start, stop)) > self._limit


def _mask_member(path: Path) -> str | None:
    if path.suffix.lower() == ".npy":
        return None
    members = list_npz(path)
    key = next((key for key in ARRAY_KEYS if key in members), None)
    if key is None and len(members) == 1:
        key = next(iter(members))
    if key is None:
        raise InputError(
            f"an array named {', '.join(ARRAY_KEYS)} in {path.name}", ", ".join(sorted(members)[:10]) or "none"
        )
    return members[key]


class VideoMasks:
    """A video, decoded once in the sandboxed child; satisfies `MaskFrames`.

    Packed bits compress to a few kilobytes a frame, so all of them are kept and any order of reading is cheap.

    Args:
        path: the video.
        max_frames: decoding stops beyond: the count is wrong then, whatever it is.

    Raises:
        MediaError: not a readable video.
    """

    def __init__(self, path: Path, *, max_frames: int) -> None:
        self._packed: list[bytes] = []
        with VideoReader(path) as reader:
            self.height, self.width = reader.height, reader.width
            for chunk in reader:
                self._packed += [
                    zlib.compress(np.packbits(mask).tobytes(), 1) for mask in chunk.frames.max(axis=3) > 127
                ]
                if self.num_frames > max_frames:
                    break

    @property
    def num_frames(self) -> int:
        return len(self._packed)

    def read(self, start: int, stop: int) -> Bool:
        """bool [n,h,w]."""
        bits = np.frombuffer(b"".join(map(zlib.decompress, self._packed[start:stop])), np.uint8)
        rows = np.unpackbits(bits.reshape(stop - start, -1), axis=1, count=self.height * self.width)
        return rows.reshape(stop - start, self.height, self.width).astype(np.bool_)
