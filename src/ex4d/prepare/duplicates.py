"""Segments of different clips that look the same: the first in the order of the plan stays."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from ex4d.dataset.layout import SampleRow

_BITS = 192


def find_duplicates(rows: Sequence[SampleRow], max_distance: int) -> dict[int, int]:
    """Number of each row that is a duplicate → number of the row that stays.

    Two hashes that differ in at most d of 192 bits agree on at least one of d + 1 bands: only rows that share a band
    are compared. Segments of one clip are never duplicates of each other.

    Args:
        rows: in the order of the plan.
        max_distance: differing bits up to which two segments are the same; below 0 none are.
    """
    if max_distance < 0:
        return {}
    bands: list[dict[int, list[int]]] = [{} for _ in range(max_distance + 1)]
    found: dict[int, int] = {}
    hashes = [int(row.phash, 16) for row in rows]
    for number, row in enumerate(rows):
        parts = list(_bands(hashes[number], max_distance + 1))
        candidates = {other for band, part in zip(bands, parts, strict=True) for other in band.get(part, ())}
        near = [
            other
            for other in candidates
            if (hashes[other] ^ hashes[number]).bit_count() <= max_distance and _clip(rows[other]) != _clip(row)
        ]
        if near:
            found[number] = min(near)
            continue
        for band, part in zip(bands, parts, strict=True):
            band.setdefault(part, []).append(number)
    return found


def _bands(value: int, count: int) -> Iterator[int]:
    """`count` runs of bits that together are all bits of a hash."""
    edges = [_BITS * k // count for k in range(count + 1)]
    for low, high in pairwise(edges):
        yield (value >> low) & ((1 << (high - low)) - 1)


def _clip(row: SampleRow) -> str:
    """What samples of one clip have in common."""
    return row.key.rpartition("_")[0]
