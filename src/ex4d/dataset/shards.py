"""Shards: deterministic USTAR archives, and the record that commits one.

A tar is written under a temporary name, flushed and renamed; its record follows in the same way. A shard without a
record does not exist: it is made again and replaced by the same bytes.
"""

import contextlib
import hashlib
import json
import tarfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from ex4d.dataset.layout import SCHEMA_VERSION, Member, SampleRow, is_key, row_from_json
from ex4d.errors import DatasetError
from ex4d.io.atomic import discard, output_error, publish, temporary_beside, write_bytes_atomic

_BLOCK = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRecord:
    """What is known of a finished shard.

    Attributes:
        plan: hash of the plan it belongs to (for latents: their key).
        size: bytes of its tar.
        sha256: hex digest of its tar.
        samples: in the order of the plan.
        errors: clips and segments that are not in it: ``item``, ``reason``, ``text`` and more.
        num_items: clips that it was made of.
    """

    plan: str
    size: int
    sha256: str
    samples: tuple[SampleRow, ...] = ()
    errors: tuple[Mapping[str, Any], ...] = ()
    num_items: int = field(default=0)


class ShardWriter:
    """A tar without clock, user or order of a file system in it. Use as a context manager.

    Args:
        path: where it shall appear when the block ends without an error; its folder must exist.

    Raises:
        OutputError: the disk is full, or the folder cannot be written; nothing is left then.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._temporary = path, temporary_beside(path)
        self._digest = hashlib.sha256()
        self._size = 0

    def __enter__(self) -> "ShardWriter":
        try:
            self._file = self._temporary.open("xb")
        except OSError as error:
            raise output_error(self._path, error) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if kind is None:
                self._write(bytes(2 * _BLOCK))
                self._close()
                publish(self._temporary, self._path)
        finally:
            with contextlib.suppress(OSError):  # of a file that is thrown away: the first error is being raised
                self._file.close()
            discard(self._temporary)

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._size

    @property
    def sha256(self) -> str:
        """Hex digest of what was written so far; of the whole tar after the block."""
        return self._digest.hexdigest()

    def add(self, key: str, suffix: str, data: bytes) -> Member:
        """Append a file ``KEY.SUFFIX``."""
        if not is_key(key):
            raise ValueError(f"ShardWriter.add: {key!r} is no key")
        info = tarfile.TarInfo(f"{key}.{suffix}")
        info.size = len(data)  # mode 0644, mtime 0, user and group 0 and nameless: TarInfo's defaults
        self._write(info.tobuf(tarfile.USTAR_FORMAT))
        member = Member(suffix=suffix, offset=self._size, size=len(data), sha256=hashlib.sha256(data).hexdigest())
        self._write(data)
        self._write(bytes(-len(data) % _BLOCK))
        return member

    def _write(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise output_error(self._path, error) from error
        self._digest.update(data)
        self._size += len(data)

    def _close(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            raise output_error(self._path, error) from error


def record_path(tar: Path) -> Path:
    """The record of a tar lies beside it."""
    return tar.with_suffix(".json")


def write_record(tar: Path, record: ShardRecord) -> None:
    """Commit a shard whose tar is in place (`OutputError` as in `io.atomic`)."""
    data = {"schema_version": SCHEMA_VERSION, **asdict(record)}
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    write_bytes_atomic(record_path(tar), text.encode() + b"\n")


def read_record(tar: Path) -> ShardRecord | None:
    """The record of a finished shard; None where there is none, or no tar of the size it says.

    Raises:
        DatasetError: a record that cannot be read: our own are whole or absent.
    """
    path = record_path(tar)
    try:
        data = json.loads(path.read_text("utf-8"))
        if data["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema_version {data['schema_version']}")
        record = ShardRecord(
            plan=data["plan"],
            size=int(data["size"]),
            sha256=data["sha256"],
            samples=tuple(row_from_json(row) for row in data["samples"]),
            errors=tuple(data["errors"]),
            num_items=int(data["num_items"]),
        )
        return record if tar.stat().st_size == record.size else None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DatasetError(f"a readable record at {path}", error.strerror or str(error)) from error
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f"the record of a shard of this version at {path}", str(error), f"delete {path.name}: it is made again"
        ) from error
