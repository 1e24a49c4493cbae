"""When every shard is there: duplicates, the index, and ``dataset.json``, which says that all is done."""

import contextlib
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ex4d.dataset.index import read_index, write_index
from ex4d.dataset.layout import (
    DATASET,
    ERRORS,
    INDEX,
    PLAN,
    SCHEMA_VERSION,
    SHARDS,
    TIMINGS,
    WORK,
    SampleRow,
    shard_path,
)
from ex4d.dataset.reader import Dataset
from ex4d.dataset.shards import ShardRecord, read_record
from ex4d.errors import DatasetError
from ex4d.io.atomic import remove_temporaries, write_bytes_atomic, write_json_atomic
from ex4d.prepare.clock import Seconds, add_seconds
from ex4d.prepare.duplicates import find_duplicates
from ex4d.prepare.plan import Plan
from ex4d.prepare.shard_work import SECONDS

_SHOWN = 5


def missing_shards(folder: Path, plan: Plan) -> list[int]:
    """Numbers of the shards that have to be made."""
    missing: list[int] = []
    for number in range(plan.num_shards):
        record = read_record(shard_path(folder, number))
        if record is None or record.plan != plan.hash:
            missing.append(number)
    return missing


def finish(folder: Path, plan: Plan, max_distance: int, notices: Sequence[str]) -> dict[str, Any]:
    """Write index, errors, timings and ``dataset.json``; equal shards give equal files. Returns dataset.json.

    Args:
        folder: the dataset; all shards of the plan are there.
        plan: what it was made from.
        max_distance: see `find_duplicates`.
        notices: what the input left out.

    Raises:
        DatasetError: no sample at all; the message gives the reasons, and nothing is left of the dataset.
        OutputError: no room.
    """
    records = [_record(folder, number, plan) for number in range(plan.num_shards)]
    rows = [row for record in records for row in record.samples]
    errors = [dict(error) for record in records for error in record.errors]
    same = find_duplicates(rows, max_distance)
    errors += [_duplicate(rows[number], rows[other]) for number, other in same.items()]
    kept = [row for number, row in enumerate(rows) if number not in same]
    if not kept:
        withdraw(folder)
        raise _empty(errors)
    text = "".join(json.dumps(error, ensure_ascii=False) + "\n" for error in errors)
    write_bytes_atomic(folder / ERRORS, text.encode())
    write_index(folder / INDEX, kept)
    _write_timings(folder)
    info = _describe(folder, plan, records, kept, errors, notices)
    write_json_atomic(folder / DATASET, info)
    remove_temporaries(folder / SHARDS)
    return info


def finished(folder: Path, plan: Plan) -> dict[str, Any] | None:
    """dataset.json of a dataset that was finished before and is whole; None: `finish` has to write it (again)."""
    try:
        info = dict(Dataset.open(folder).info)
        errors = _sha256(folder / ERRORS)
    except (DatasetError, OSError):
        return None
    return info if (info.get("plan"), info.get("errors_sha256")) == (plan.hash, errors) else None


def withdraw(folder: Path) -> None:
    """Remove all that was written to a dataset without a sample: it would only refuse a corrected command."""
    for name in (SHARDS, WORK):
        shutil.rmtree(folder / name, ignore_errors=True)
    with contextlib.suppress(OSError):  # the error that is being raised says more
        for name in (PLAN, INDEX, ERRORS, TIMINGS, DATASET):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


def _record(folder: Path, number: int, plan: Plan) -> ShardRecord:
    record = read_record(shard_path(folder, number))
    if record is None or record.plan != plan.hash:
        raise DatasetError(f"all shards in {folder}", f"no shard {number} any more", "run the same command again")
    return record


def _duplicate(row: SampleRow, other: SampleRow) -> dict[str, Any]:
    return {"item": row.key, "segment": None, "reason": "duplicate", "text": f"looks like {other.key}"}


def _empty(errors: Sequence[Mapping[str, Any]]) -> DatasetError:
    """Says what was wrong with the first clips; of their own messages without the advice."""
    counts = Counter(error["reason"] for error in errors).most_common()
    texts = (f"{error['item']}: {error['reason']}: {error['text']}" for error in errors[:_SHOWN])
    first = "; ".join(text.partition("; to fix: ")[0] for text in texts)
    got = f"none ({', '.join(f'{count} {reason}' for reason, count in counts)}), e.g. {first}"
    return DatasetError("at least one sample", got, "choose other clips, loosen the gates or choose smaller buckets")


def _describe(
    folder: Path,
    plan: Plan,
    records: Sequence[ShardRecord],
    rows: Sequence[SampleRow],
    errors: Sequence[Mapping[str, Any]],
    notices: Sequence[str],
) -> dict[str, Any]:
    buckets = Counter("x".join(map(str, row.bucket)) for row in rows)
    return {
        **plan.header,
        "schema_version": SCHEMA_VERSION,
        "plan": plan.hash,
        "num_samples": len(rows),
        "num_left": dict(sorted(Counter(error["reason"] for error in errors).items())),
        "buckets": dict(sorted(buckets.items())),
        "notices": list(notices),
        "fingerprint": read_index(folder / INDEX).fingerprint(),
        "index_sha256": _sha256(folder / INDEX),
        "errors_sha256": _sha256(folder / ERRORS),
        "shards": [
            {"sha256": record.sha256, "size": record.size, "num_samples": len(record.samples)} for record in records
        ],
    }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write_timings(folder: Path) -> None:
    """Add up what shards cost; a rerun that made none keeps what is known."""
    total: Seconds = {}
    num_items = 0
    for path in sorted((folder / WORK / SECONDS).glob("*.json")):
        cost = json.loads(path.read_text("utf-8"))
        num_items += cost["items"]
        add_seconds(total, cost["seconds"])
    if num_items or not (folder / TIMINGS).exists():
        write_json_atomic(folder / TIMINGS, {"clips": num_items, "seconds": total})
