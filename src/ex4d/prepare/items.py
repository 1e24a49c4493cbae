"""What is asked for: one clip, or a part of one, in a file or inside an archive."""

import hashlib
import math
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ex4d.errors import InputError
from ex4d.io.atomic import output_error

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".flv", ".wmv", ".gif")
DEPTH_SUFFIX = ".depth.npz"
"""What stands in place of a clip's suffix in the name of its depth."""
_SLUG_CHARS = 40
_HASH_CHARS = 12
_COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A clip of the input.

    Attributes:
        name: unique; the order of items is the order of names.
        path: of the file that holds it, relative to the root of the input, with forward slashes.
        size: bytes of the clip.
        member: its name inside the zip at `path`; empty: it is the file itself, or lies at `offset`.
        offset: of its first byte inside the tar at `path`; −1: it is not in one.
        start_s: where it begins in the file, seconds.
        end_s: where it ends, exclusive; None: with the file.
        caption: may be empty.
        scores: numbers that the input gives (aesthetic, motion …).
    """

    name: str
    path: str
    size: int
    member: str = ""
    offset: int = -1
    start_s: float = 0.0
    end_s: float | None = None
    caption: str = ""
    scores: Mapping[str, float] = field(default_factory=lambda: dict[str, float]())

    def key(self, segment: int) -> str:
        """Of a sample: readable, without dots and slashes, and as unique as the name."""
        slug = re.sub(r"[^A-Za-z0-9]+", "-", Path(self.name).with_suffix("").as_posix()).strip("-")[-_SLUG_CHARS:]
        digest = hashlib.sha256(self.name.encode()).hexdigest()[:_HASH_CHARS]
        return f"{slug or 'clip'}-{digest}_{segment:03d}"


class ItemSource(Protocol):
    """Where items come from: one kind of input."""

    @property
    def root(self) -> Path:
        """What paths of items are relative to."""
        ...

    def iter_items(self) -> Iterator[Item]:
        """All items, in any order.

        Raises:
            InputError: what lists them cannot be read; the line is named.
        """
        ...

    def notices(self) -> tuple[str, ...]:
        """What was left out; complete when all items were listed."""
        ...


def check_row(name: str, start_s: float, end_s: float | None, where: str) -> None:
    """Raise `InputError` for a name or times that cannot be."""
    if not name:
        raise InputError(f"a name in {where}", "none")
    if not (0 <= start_s < math.inf and (end_s is None or start_s < end_s < math.inf)):
        raise InputError(f"times 0 <= start < end in {where}", f"{start_s} to {end_s}")


def check_inside(root: Path, path: str, where: str) -> None:
    """Raise `InputError` for a path that leads out of a root by its own words; links inside of it may lead anywhere."""
    full = Path(os.path.normpath(root / path))
    if not full.is_relative_to(root) and not full.resolve().is_relative_to(root):
        raise InputError(
            f"a path below {root} in {where}", repr(path), "name a folder that holds all clips with --root"
        )


def parse_scores(row: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, float]:
    """Numbers of a row under shorter names; what is no number is left out.

    Args:
        row: of a table.
        names: column → name.
    """
    scores: dict[str, float] = {}
    for column, name in names.items():
        try:
            value = float(row.get(column) or "nan")
        except (TypeError, ValueError):
            continue
        if math.isfinite(value):
            scores[name] = value
    return scores


@contextmanager
def open_item(root: Path, item: Item, scratch: Path) -> Iterator[Path]:
    """A file that holds the clip: its own, or a copy out of the archive, which is removed afterwards.

    Raises:
        InputError: the archive or what it should hold is not there, or is damaged.
        OutputError: no room for the copy.
    """
    source = root / item.path
    if not item.member and item.offset < 0:
        yield source
        return
    copy = scratch / f"clip{Path(item.member or item.name).suffix or '.mp4'}"
    try:
        _extract(source, item, copy)
        yield copy
    finally:
        copy.unlink(missing_ok=True)


def _extract(source: Path, item: Item, copy: Path) -> None:
    try:
        if item.member:
            with zipfile.ZipFile(source) as archive, archive.open(item.member) as stream:
                _copy(stream, copy, item.size)
            return
        with source.open("rb") as stream:
            stream.seek(item.offset)
            _copy(stream, copy, item.size)
    except (OSError, KeyError, zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
        raise InputError(f"the clip {item.name} in {source.name}", f"{error}", "fetch the archive again") from error


def _copy(stream: Any, copy: Path, size: int) -> None:
    """At most `size` bytes: a zip cannot unpack to more than it says."""
    try:
        with copy.open("wb") as target:
            left = size
            while left and (block := stream.read(min(left, _COPY_BYTES))):
                try:
                    target.write(block)
                except OSError as error:
                    raise output_error(copy, error) from error
                left -= len(block)
    except FileNotFoundError as error:
        raise output_error(copy, error) from error
    if left:
        raise EOFError(f"{size - left} of {size} bytes")
