"""Raw frames of a worker → upright uint8 RGB frames with square pixels at the wanted size."""

import cv2
import numpy as np

from ex4d.core.arrays import UInt8
from ex4d.io import tonemap
from ex4d.io.decode.protocol import FrameHeader

_PIXEL_TYPES: dict[str, tuple[type[np.generic], int]] = {
    "rgb24": (np.uint8, 3),
    "gray": (np.uint8, 1),
    "bgr0": (np.uint8, 4),
    "gray16le": (np.uint16, 1),
    "rgb48le": (np.uint16, 3),
}
_YUV_BITS = {"yuv444p10le": 10, "yuv444p12le": 12, "yuv444p16le": 16}


def raw_pixels(raw: UInt8, header: FrameHeader) -> np.ndarray:
    """View raw rows uint8 [planes,H,stride] as pixels: [H,W], [H,W,C] or, for YUV, [3,H,W]."""
    dtype, channels = _PIXEL_TYPES.get(header.layout, (np.uint16, 1))
    little = np.dtype(dtype).newbyteorder("<")
    rows = raw[..., : header.width * channels * little.itemsize].view(little)
    if header.num_planes == 3:
        return rows
    return rows[0] if channels == 1 else rows[0].reshape(header.height, header.width, channels)


def display_size(header: FrameHeader) -> tuple[int, int]:
    """(H, W) as shown: square pixels, upright."""
    width = max(1, round(header.width * header.sample_aspect))
    return (width, header.height) if header.orientation[0] == 0 else (header.height, width)


def output_size(header: FrameHeader, *, max_side: int | None, size: tuple[int, int] | None) -> tuple[int, int]:
    """(H, W) to deliver: `size` if given, else the display size, shrunk so that no side exceeds `max_side`."""
    if size is not None:
        return size
    return shrunk_size(*display_size(header), max_side)


def shrunk_size(height: int, width: int, max_side: int | None) -> tuple[int, int]:
    """(H, W) shrunk, at the same aspect, so that no side exceeds `max_side`; unchanged where none does."""
    longest = max(height, width)
    if max_side is None or longest <= max_side:
        return height, width
    return max(1, round(height * max_side / longest)), max(1, round(width * max_side / longest))


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resample [H,W] or [H,W,C] (uint8, uint16): by area where an axis shrinks, bicubic where it grows."""
    have = image.shape[:2]
    if min(have[0], height) != have[0] or min(have[1], width) != have[1]:
        image = cv2.resize(image, (min(have[1], width), min(have[0], height)), interpolation=cv2.INTER_AREA)
    if image.shape[:2] != (height, width):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    return image


class FrameConverter:
    """Converts the frames of one stream.

    Args:
        header: what the worker sends.
        height: of the frames to deliver, px.
        width: of the frames to deliver, px.
    """

    def __init__(self, header: FrameHeader, *, height: int, width: int) -> None:
        self._header = header
        self._turned = header.orientation[0] == 0
        self._coded_size = (width, height) if self._turned else (height, width)
        self._mapper = tonemap.mapper_for(header)
        self._gray = _gray_table(header) if header.layout.startswith("gray") else None

    def __call__(self, raw: UInt8) -> UInt8:
        """uint8 [planes,H,stride] as sent → uint8 [H,W,3] sRGB, contiguous.

        HDR is resampled before it is tone-mapped: PQ and HLG codes are about as even as sRGB's.
        """
        header, (height, width) = self._header, self._coded_size
        pixels = raw_pixels(raw, header)
        if header.num_planes == 3:
            planes = np.stack([resize(plane, height, width) for plane in pixels]).astype(np.float32)
            rgb = tonemap.yuv_to_rgb(
                planes, matrix=header.matrix, bits=_YUV_BITS[header.layout], full_range=header.full_range
            )
            assert self._mapper is not None
            return self._upright(self._mapper(rgb))
        pixels = resize(pixels, height, width)
        if self._gray is not None:
            pixels = np.repeat(self._gray[pixels][..., None], 3, axis=-1)
        elif self._mapper is not None:
            depth = 65535 if pixels.dtype.itemsize == 2 else 255
            pixels = self._mapper(pixels.astype(np.float32) / np.float32(depth))
        return self._upright(pixels)

    def _upright(self, image: np.ndarray) -> UInt8:
        a, b, c, d = self._header.orientation
        if self._turned:
            image = image.swapaxes(0, 1)
        flip_x, flip_y = (c < 0, b < 0) if self._turned else (a < 0, d < 0)
        image = image[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
        return np.ascontiguousarray(image)


def _gray_table(header: FrameHeader) -> UInt8:
    """Gray code → 8-bit gray; 16-bit codes of a limited range scale with the depth."""
    bits = 16 if header.layout == "gray16le" else 8
    code = np.arange(2**bits, dtype=np.float64)
    step = 2.0 ** (bits - 8)
    low, span = (0.0, 2.0**bits - 1) if header.full_range else (16 * step, 219 * step)
    return np.rint(np.clip((code - low) / span, 0, 1) * 255).astype(np.uint8)
