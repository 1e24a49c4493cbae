"""``index.parquet``: a row for every sample. Needs pyarrow (``ex4d[train]`` or ``ex4d[ray]``)."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ex4d.dataset.layout import Bucket, SampleRow, row_from_json
from ex4d.errors import DatasetError, MissingDependencyError
from ex4d.io.atomic import atomic_path

_BATCH_ROWS = 4096


def require_pyarrow() -> Any:
    """The module ``pyarrow``.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError("pyarrow", "train", "the index of a dataset") from error
    return pyarrow


def write_index(path: Path, rows: Sequence[SampleRow]) -> None:
    """Write the index, whole or not at all; equal rows give equal bytes on one version of pyarrow.

    Raises:
        OutputError: the disk is full, or the folder cannot be written.
        MissingDependencyError: pyarrow is not installed.
    """
    pa = require_pyarrow()
    member = pa.struct([("suffix", pa.string()), ("offset", pa.int64()), ("size", pa.int64()), ("sha256", pa.string())])
    schema = pa.schema(
        [
            ("key", pa.string()),
            ("shard", pa.int32()),
            ("num_frames", pa.int32()),
            ("height", pa.int32()),
            ("width", pa.int32()),
            ("caption", pa.string()),
            ("phash", pa.string()),
            ("scores", pa.map_(pa.string(), pa.float64())),
            ("members", pa.list_(member)),
        ]
    )
    columns: dict[str, list[Any]] = {
        "key": [row.key for row in rows],
        "shard": [row.shard for row in rows],
        "num_frames": [row.bucket[0] for row in rows],
        "height": [row.bucket[1] for row in rows],
        "width": [row.bucket[2] for row in rows],
        "caption": [row.caption for row in rows],
        "phash": [row.phash for row in rows],
        "scores": [list(row.scores.items()) for row in rows],
        "members": [
            [{"suffix": m.suffix, "offset": m.offset, "size": m.size, "sha256": m.sha256} for m in row.members]
            for row in rows
        ],
    }
    with atomic_path(path) as temporary:
        pa.parquet.write_table(pa.table(columns, schema=schema), temporary, compression="zstd")


class IndexTable:
    """An index in memory, as columns."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def __len__(self) -> int:
        return self._table.num_rows

    def row(self, number: int) -> SampleRow:
        """A sample, 0 <= number < len."""
        data = self._table.slice(number, 1).to_pylist()[0]
        return row_from_json({**data, "bucket": (data["num_frames"], data["height"], data["width"])})

    def buckets(self) -> Iterator[Bucket]:
        """The bucket of every sample, in order."""
        columns = (self._table.column(name).to_pylist() for name in ("num_frames", "height", "width"))
        return zip(*columns, strict=True)

    def fingerprint(self) -> str:
        """Hex digest of every sample's bytes and their order: equal datasets have equal ones."""
        digest = hashlib.sha256()
        for batch in self._table.select(["key", "members"]).to_batches(max_chunksize=_BATCH_ROWS):
            for row in batch.to_pylist():
                for member in row["members"]:
                    digest.update(f"{row['key']}.{member['suffix']} {member['sha256']}\n".encode())
        return digest.hexdigest()


def read_index(path: Path) -> IndexTable:
    """Read an index.

    Raises:
        DatasetError: missing, damaged, or no index.
        MissingDependencyError: pyarrow is not installed.
    """
    pa = require_pyarrow()
    try:
        table = IndexTable(pa.parquet.read_table(path))
        if len(table):
            table.row(0)
        return table
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f"the index of a dataset at {path}", str(error).split("\n")[0], "prepare it again"
        ) from error
