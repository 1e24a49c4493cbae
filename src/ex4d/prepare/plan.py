"""The plan: which clips make which shard. Written before any work; a rerun must have the same one."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from ex4d.dataset.layout import PLAN, SCHEMA_VERSION
from ex4d.depth.registry import ESTIMATORS, find_estimator
from ex4d.depth.source import pick_estimator
from ex4d.errors import ConfigError, DatasetError, InputError
from ex4d.io.atomic import write_bytes_atomic
from ex4d.pipeline.run import versions
from ex4d.pipeline.workspace import differences
from ex4d.prepare.config import FILES, PrepareConfig
from ex4d.prepare.input_folder import FolderItems, TarItems
from ex4d.prepare.input_tables import TableItems
from ex4d.prepare.items import Item, ItemSource


@dataclass(frozen=True)
class Plan:
    """What is to be made.

    Attributes:
        header: settings and versions, JSON types.
        items: sorted by name.
        items_per_shard: consecutive items that make a shard.
    """

    header: Mapping[str, Any]
    items: Sequence[Item]
    items_per_shard: int

    @property
    def num_shards(self) -> int:
        return -(-len(self.items) // self.items_per_shard)

    def shard(self, number: int) -> Sequence[Item]:
        """The items of a shard."""
        return self.items[number * self.items_per_shard : (number + 1) * self.items_per_shard]

    @cached_property
    def text(self) -> bytes:
        """The plan as it is stored."""
        lines = [dict(self.header), *(asdict(item) for item in self.items)]
        return "".join(json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n" for line in lines).encode()

    @cached_property
    def hash(self) -> str:
        """Hex digest of everything above: what shards are of one dataset by."""
        return hashlib.sha256(self.text).hexdigest()


def open_source(path: Path, root: Path | None = None) -> ItemSource:
    """The adapter for an input.

    Args:
        path: a folder, a WebDataset ``.tar``, a ``.jsonl`` manifest, or a ``.csv`` of OpenVid-1M or Koala-36M.
        root: where the clips of a table are; None: beside it.

    Raises:
        InputError: nothing there, or none of these.
    """
    if path.is_dir():
        return FolderItems(root=path.resolve())
    if not path.is_file():
        raise InputError("a folder of videos or a manifest", f"nothing at {path}", "check the name")
    suffix = path.suffix.lower()
    if suffix == ".tar":
        return TarItems(tar=path.resolve())
    if suffix in (".jsonl", ".csv"):
        return TableItems(table=path.resolve(), root=(root or path.parent).resolve())
    raise InputError("a folder of videos, a .jsonl, .csv or .tar", f"{path.name}", "list your clips in a .jsonl")


def make_plan(source: ItemSource, config: PrepareConfig) -> Plan:
    """List, sort and check the items.

    Raises:
        InputError: no clip at all, none that is there, or two of one name.
        WeightsError, ConfigError: the depth estimator is not ready, or unknown; a score that no clip has.
    """
    items = sorted(source.iter_items(), key=lambda item: item.name)
    _check_items(source, items)
    _check_scores(items, config.gates.score_floors())
    header = {
        "schema_version": SCHEMA_VERSION,
        "config": json.loads(json.dumps(asdict(config))),
        "depth": depth_version(config.sample.depth),
        "versions": versions(),
        "num_items": len(items),
    }
    return Plan(header, items, config.items_per_shard)


def _check_items(source: ItemSource, items: Sequence[Item]) -> None:
    if not items:
        if isinstance(source, TableItems) and not source.notices():
            raise InputError(f"a table with clips at {source.table}", "no rows", "add a line for each clip")
        missing = "; ".join(source.notices()) or f"none below {source.root}"
        raise InputError("at least one clip", missing, "check the folder; see `ex4d prepare --help` for what is read")
    lost = missing_items(items)
    if len(lost) == len(items):
        got = f"none of {len(items)}, e.g. no {lost[0].path}"
        raise InputError(f"clips below {source.root}", got, "name the folder that they are in with --root")
    for first, second in pairwise(items):
        if first.name == second.name:
            raise InputError("different names (or ids) of clips", f"two of {first.name!r}", "give them an id each")


def missing_items(items: Sequence[Item]) -> list[Item]:
    """Those whose file is not there."""
    return [item for item in items if item.size < 0]


def _check_scores(items: Sequence[Item], floors: Mapping[str, float]) -> None:
    """A floor for a score that no clip has would refuse every clip."""
    known = {name for item in items for name in item.scores} if floors else set[str]()
    for name in floors:
        if name not in known:
            there = f"choose of {', '.join(sorted(known))}" if known else "drop it: the input gives no scores"
            raise ConfigError("--min-score NAME=X with a NAME that clips have", f"{name!r}, which none has", there)


def depth_version(depth: str) -> dict[str, str]:
    """Name and version of what estimates depth: ``auto`` must mean the same on every machine.

    Raises:
        WeightsError: it is not ready.
        ConfigError: no name, or a path: depth of single clips goes by `FILES`.
    """
    if depth == FILES:
        return {"name": FILES, "version": ""}
    names = [estimator.name for estimator in ESTIMATORS]
    estimator = pick_estimator(depth) if depth in ("auto", *names) else None
    if estimator is None:
        raise ConfigError(f"--depth auto, {FILES}, or one of {', '.join(names)}", repr(depth), "see `ex4d doctor`")
    return {"name": estimator.name, "version": find_estimator(estimator.name).version}


def claim(folder: Path, plan: Plan) -> None:
    """Write the plan, or check that the one that is there is the same.

    Raises:
        DatasetError: the folder holds another plan.
        OutputError: it cannot be written.
    """
    path = folder / PLAN
    try:
        found = path.read_bytes()
    except FileNotFoundError:
        write_bytes_atomic(path, plan.text)
        return
    except OSError as error:
        raise DatasetError(f"a readable {path}", error.strerror or str(error)) from error
    if found != plan.text:
        raise DatasetError(
            f"the dataset of these settings and clips in {folder}",
            f"one with {_difference(found, plan)}",
            "repeat the command that began it, or choose another -o",
        )


def _difference(found: bytes, plan: Plan) -> str:
    """What is different in a stored plan, in a few words."""
    try:
        header = json.loads(found.split(b"\n", 1)[0])
    except ValueError:
        return "a damaged plan.jsonl"
    names = differences(header, dict(plan.header))
    return f"another {', '.join(names[:5])}" if names else "other clips"
