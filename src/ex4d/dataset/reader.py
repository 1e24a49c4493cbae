"""A finished dataset: rows of the index, and samples by number."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np

from ex4d.dataset.decode import MemberDecoder
from ex4d.dataset.index import IndexTable, read_index
from ex4d.dataset.latents import LatentCache
from ex4d.dataset.layout import (
    DATASET,
    INDEX,
    INFO_SUFFIX,
    SCHEMA_VERSION,
    VIDEO_SUFFIX,
    Bucket,
    SampleRow,
    mask_suffix,
    shard_path,
)
from ex4d.dataset.members import AGAIN, read_member
from ex4d.dataset.sample import TrainingSample
from ex4d.errors import DatasetError, MediaError


class Dataset:
    """Use `Dataset.open`. May be pickled; a process that gets it reads with a decoder of its own.

    Attributes:
        folder: where it lies.
        info: ``dataset.json`` as read.
    """

    def __init__(self, folder: Path, info: Mapping[str, Any], table: IndexTable) -> None:
        self.folder, self.info, self._table = folder, info, table
        self._decoder = MemberDecoder()
        self._latents: dict[str, LatentCache] = {}

    @staticmethod
    def open(folder: Path | str) -> "Dataset":
        """Open what `ex4d prepare` finished. Looks at sizes, not at the content of shards (see `verify`).

        Raises:
            DatasetError: no dataset, unfinished, of another version, with files missing or cut off, or with a
                ``dataset.json`` that is not that of its index.
            MissingDependencyError: pyarrow is not installed.
        """
        folder = Path(folder)
        info = _read_info(folder)
        _check_files(folder, info)
        table = read_index(folder / INDEX)
        if len(table) != info["num_samples"]:
            raise DatasetError(f"{info['num_samples']} rows in {folder / INDEX}", str(len(table)), AGAIN)
        found = table.fingerprint()
        if found != info["fingerprint"]:
            got = f"{str(info['fingerprint'])[:16]} in {DATASET}"
            raise DatasetError(f"the fingerprint of the samples in {folder} ({found[:16]})", got, AGAIN)
        return Dataset(folder, info, table)

    @property
    def fingerprint(self) -> str:
        """Hex digest of every sample's bytes and order: equal datasets have equal ones."""
        return self.info["fingerprint"]

    @property
    def rows(self) -> Sequence[SampleRow]:
        """All samples, in the order of the plan; made from the index when asked for."""
        return _Rows(self._table)

    @cached_property
    def buckets(self) -> Mapping[Bucket, list[int]]:
        """Bucket → numbers of its samples, ascending; buckets in order of size."""
        found: dict[Bucket, list[int]] = {}
        for number, bucket in enumerate(self._table.buckets()):
            found.setdefault(bucket, []).append(number)
        return dict(sorted(found.items()))

    def __len__(self) -> int:
        return len(self._table)

    def read(self, number: int) -> TrainingSample:
        """Decode a sample.

        Raises:
            DatasetError: its bytes are not those of the index, or cannot be decoded.
        """
        row = self._table.row(number)
        try:
            info = json.loads(self._bytes(row, INFO_SUFFIX))
            masks = [self._decoder.mask(self._bytes(row, mask_suffix(k)), mask_suffix(k)) for k in range(row.num_masks)]
            return TrainingSample(
                key=row.key,
                video=self._decoder.video(self._bytes(row, VIDEO_SUFFIX), VIDEO_SUFFIX),
                survived=np.stack(masks),
                caption=row.caption,
                info=info,
            )
        except (MediaError, ValueError, KeyError) as error:
            raise DatasetError(f"the sample {row.key} in {self.folder}", str(error), AGAIN) from error

    def read_latents(self, number: int, cache_key: str) -> Mapping[str, np.ndarray] | None:
        """The cached tensors of a sample; None where the cache of this key does not hold it.

        Raises:
            DatasetError: cached bytes are damaged.
            MissingDependencyError: safetensors is not installed.
        """
        if cache_key not in self._latents:
            self._latents[cache_key] = LatentCache(self.folder, cache_key)
        row = self._table.row(number)
        return self._latents[cache_key].read(row.shard, row.key)

    def verify(self) -> int:
        """Read every byte that a sample needs and compare it with the index; returns how many samples are right.

        Raises:
            DatasetError: the first that is not.
        """
        for row in self.rows:
            for member in row.members:
                self._bytes(row, member.suffix)
        return len(self)

    def close(self) -> None:
        """End the decoder; reading again starts another."""
        self._decoder.close()

    def _bytes(self, row: SampleRow, suffix: str) -> bytes:
        return read_member(shard_path(self.folder, row.shard), row.member(suffix))


class _Rows(Sequence[SampleRow]):
    """Rows of a table as they are asked for: a million of them at once would take gigabytes."""

    def __init__(self, table: IndexTable) -> None:
        self._table = table

    def __len__(self) -> int:
        return len(self._table)

    @overload
    def __getitem__(self, index: int) -> SampleRow: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[SampleRow]: ...

    def __getitem__(self, index: int | slice) -> SampleRow | Sequence[SampleRow]:
        if isinstance(index, slice):
            return [self._table.row(i) for i in range(*index.indices(len(self)))]
        number = range(len(self))[index]  # negative numbers, and IndexError
        return self._table.row(number)


def _read_info(folder: Path) -> dict[str, Any]:
    path = folder / DATASET
    try:
        info = json.loads(path.read_text("utf-8"))
        if info["schema_version"] != SCHEMA_VERSION:
            raise DatasetError(f"a dataset of schema {SCHEMA_VERSION} at {folder}", f"{info['schema_version']}")
        _ = info["num_samples"], info["fingerprint"], info["index_sha256"], [shard["size"] for shard in info["shards"]]
        return info
    except FileNotFoundError:
        found = "one that is not finished" if (folder / "plan.jsonl").exists() else f"no {DATASET} there"
        raise DatasetError(f"a finished dataset at {folder}", found, AGAIN) from None
    except OSError as error:
        raise DatasetError(f"a readable {path}", error.strerror or str(error)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"a dataset's {path}", f"something else: {error}", AGAIN) from error


def _check_files(folder: Path, info: Mapping[str, Any]) -> None:
    """The index byte for byte, shards by their sizes."""
    try:
        data = (folder / INDEX).read_bytes()
        if hashlib.sha256(data).hexdigest() != info["index_sha256"]:
            raise DatasetError(f"{folder / INDEX} as it was written", "other bytes", AGAIN)
        for number, shard in enumerate(info["shards"]):
            path = shard_path(folder, number)
            if path.stat().st_size != shard["size"]:
                raise DatasetError(f"{shard['size']} bytes in {path}", f"{path.stat().st_size}", AGAIN)
    except OSError as error:
        raise DatasetError(
            f"all files of the dataset {folder}", f"{error.filename}: {error.strerror}", AGAIN
        ) from error
