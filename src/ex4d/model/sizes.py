"""Which size a clip is generated at, and how a large frame is cut into tiles. Imports no torch."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ex4d.core.arrays import Float32
from ex4d.errors import ConfigError

PIXEL_MULTIPLE = 16
"""The VAE shrinks sides 8 times, the transformer's patches twice more."""

PIXEL_BUDGET = 512 * 512
"""What EX-4D was trained at; 256 tokens a latent frame for every 256² px."""

VAE_STRIDE = 8
"""Pixels a latent stands for, along each side."""


def choose_size(height: int, width: int, *, budget: int = PIXEL_BUDGET) -> tuple[int, int]:
    """(height, width), multiples of 16 with about `budget` pixels and the aspect of the input.

    Aspect counts twice as much as area: both are at most a few percent off, unless a side would fall below 16.

    Args:
        height: of the clip, px.
        width: of the clip, px.
        budget: pixels wanted.
    """
    wanted = math.sqrt(budget * height / width) / PIXEL_MULTIPLE
    best, best_cost = (1, 1), math.inf
    for rows in range(max(int(wanted * 0.8), 1), math.ceil(wanted * 1.25) + 2):
        exact = rows * width / height
        for columns in {max(math.floor(exact), 1), max(math.ceil(exact), 1)}:
            aspect = abs(math.log(columns / exact))
            area = abs(math.log(rows * columns * PIXEL_MULTIPLE**2 / budget))
            if 2 * aspect + area < best_cost:
                best, best_cost = (rows, columns), 2 * aspect + area
    return best[0] * PIXEL_MULTIPLE, best[1] * PIXEL_MULTIPLE


def num_tokens(num_latent_frames: int, height: int, width: int) -> int:
    """Tokens of the transformer for a window of this many latent frames and this size in px."""
    return num_latent_frames * (height // PIXEL_MULTIPLE) * (width // PIXEL_MULTIPLE)


@dataclass(frozen=True, slots=True)
class Tile:
    """A rectangle of latents; all edges are even, so that it holds whole patches.

    Attributes:
        top, bottom, left, right: rows and columns of latents, ends exclusive.
    """

    top: int
    bottom: int
    left: int
    right: int


def plan_tiles(height: int, width: int, *, tile_height: int, tile_width: int) -> tuple[Tile, ...]:
    """Tiles in latents that cover a frame and overlap by at least a quarter of their side.

    Args:
        height: of the latents.
        width: of the latents.
        tile_height: of a tile, in latents, even.
        tile_width: of a tile, in latents, even.

    Raises:
        ConfigError: tiles below 4 latents (32 px), which could not overlap.
    """
    if min(tile_height, tile_width) < 4:
        raise ConfigError("--tile of at least 32x32 px", f"{tile_height * VAE_STRIDE}x{tile_width * VAE_STRIDE}")
    return tuple(
        Tile(top, bottom, left, right)
        for top, bottom in _spans(height, tile_height)
        for left, right in _spans(width, tile_width)
    )


def _spans(length: int, tile: int) -> Iterator[tuple[int, int]]:
    """Even-edged spans of equal length, evenly spread."""
    if tile >= length:
        yield 0, length
        return
    rest = (length - tile) // 2  # all in pairs of latents: a patch has two
    step = tile // 2 - math.ceil(tile / 8)
    count = math.ceil(rest / step)
    for i in range(count + 1):
        start = 2 * (rest * i // count)
        yield start, start + tile


def tile_weights(tile: Tile, height: int, width: int) -> Float32:
    """float32 [tile height, tile width]: 1 inside, falling linearly towards edges that other tiles overlap.

    Weights stay above 0; divide the weighted sum of all tiles by the sum of their weights.
    """
    rows = _ramp(tile.bottom - tile.top, tile.top > 0, tile.bottom < height)
    columns = _ramp(tile.right - tile.left, tile.left > 0, tile.right < width)
    return rows[:, None] * columns[None, :]


def _ramp(length: int, falls_at_start: bool, falls_at_end: bool) -> Float32:
    ramp = np.ones(length, np.float32)
    steps = max(length // 4, 2)
    rising = (np.arange(steps, dtype=np.float32) + 1) / (steps + 1)
    if falls_at_start:
        ramp[:steps] *= rising
    if falls_at_end:
        ramp[-steps:] *= rising[::-1]
    return ramp
