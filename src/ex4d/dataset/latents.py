"""Cached latents of a dataset: shards beside the shards, one safetensors file a sample.

::

    latents/KEY/shard-000000.tar    SAMPLE.safetensors
    latents/KEY/shard-000000.json   its commit record
    latents/KEY/latents.json        what they were made with; written last

KEY names the networks and settings that decide the tensors. The folder can be deleted: it is made from the samples.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ex4d.dataset.layout import LATENTS, Member, shard_name
from ex4d.dataset.members import read_member
from ex4d.dataset.shards import read_record
from ex4d.errors import DatasetError, MissingDependencyError

LATENTS_INFO, LATENTS_SUFFIX = "latents.json", "safetensors"
ROWS = "rows."
"""``rows.NAME`` in a file's metadata: how many rows a tensor has once zeros are put after it (text is padded)."""

_MAX_ROWS = 1 << 16


def latents_folder(folder: Path, cache_key: str) -> Path:
    """Where the cache of a key lies in a dataset's folder."""
    return folder / LATENTS / cache_key


class LatentCache:
    """What is there of one cache; records are read when their shard is first asked for.

    Args:
        folder: of the dataset.
        cache_key: of the cache.
    """

    def __init__(self, folder: Path, cache_key: str) -> None:
        self._folder, self._key = latents_folder(folder, cache_key), cache_key
        self._members: dict[int, dict[str, Member]] = {}

    def read(self, shard: int, key: str) -> Mapping[str, np.ndarray] | None:
        """Tensors of a sample; None where they are not cached.

        Raises:
            DatasetError: damaged.
            MissingDependencyError: safetensors is not installed.
        """
        tar = self._folder / f"{shard_name(shard)}.tar"
        if shard not in self._members:
            record = read_record(tar)
            if record is None or record.plan != self._key:
                return None
            self._members[shard] = {row.key: row.members[0] for row in record.samples}
        member = self._members[shard].get(key)
        if member is None:
            return None
        try:
            from safetensors import SafetensorError
            from safetensors.numpy import load
        except ImportError as error:
            raise MissingDependencyError("safetensors", "train", "cached latents") from error
        data = read_member(tar, member)
        try:
            return _padded(load(data), data)
        except (SafetensorError, KeyError, ValueError) as error:
            raise DatasetError(f"safetensors of {key} in {tar}", str(error), f"delete {tar.name}") from error


def _padded(tensors: dict[str, np.ndarray], data: bytes) -> dict[str, np.ndarray]:
    """With the zeros that `ROWS` leaves out; the header is JSON after its length, as safetensors defines it."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    for name, rows in header.get("__metadata__", {}).items():
        if name.startswith(ROWS):
            short = tensors[name.removeprefix(ROWS)]
            whole = np.zeros((min(int(rows), _MAX_ROWS), *short.shape[1:]), short.dtype)
            whole[: len(short)] = short
            tensors[name.removeprefix(ROWS)] = whole
    return tensors
