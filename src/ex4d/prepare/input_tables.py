"""Tables of clips: JSONL manifests, and the CSVs of OpenVid-1M and Koala-36M beside clips that are on disk already.

Nothing is ever fetched. Column names are those of the published files: OpenVid-1M.csv (video, caption, aesthetic
score, motion score, temporal consistency score, camera motion, frame, fps, seconds) and Koala_36M_*.csv (videoID, url,
timestamp, caption, clarity_score, aesthetic_score, motion_score, video_training_suitability_score).
"""

import csv
import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ex4d.errors import InputError
from ex4d.prepare.items import VIDEO_SUFFIXES, Item, check_inside, check_row, parse_scores

OPENVID_COLUMNS = ("video", "caption")
OPENVID_SCORES = {
    "aesthetic score": "aesthetic",
    "motion score": "motion_given",
    "temporal consistency score": "temporal_consistency",
}
KOALA_COLUMNS = ("videoID", "timestamp", "caption")
KOALA_SCORES = {
    "clarity_score": "clarity",
    "aesthetic_score": "aesthetic",
    "motion_score": "motion_given",
    "video_training_suitability_score": "suitability",
}
_MANIFEST_KEYS = ("path", "id", "caption", "start_s", "end_s", "scores")
_MANIFEST_LINE = '{"path": "clip.mp4", "caption": "a dog"}'
_CLOCK = re.compile(r"(\d+):(\d{1,2}):(\d{1,2}(?:\.\d+)?)")
_YOUTUBE = re.compile(r"(?:v=|youtu\.be/|shorts/)([A-Za-z0-9_-]{11})")
_MAX_CELL = 1 << 22


@dataclass(slots=True, kw_only=True)
class TableItems:
    """Rows of a table that name clips below a root.

    Attributes:
        table: the file: ``.jsonl`` or ``.csv``.
        root: where the clips are.
    """

    table: Path
    root: Path
    _missing: int = 0
    _example: str = ""

    def iter_items(self) -> Iterator[Item]:
        """See `ItemSource.iter_items`; rows without a clip below the root are left out and counted."""
        self._missing = 0
        try:
            with self.table.open("r", encoding="utf-8-sig", newline="") as file:
                if self.table.suffix.lower() == ".jsonl":
                    yield from self._manifest(file)
                else:
                    yield from self._csv(file)
        except OSError as error:
            raise InputError(f"a readable table at {self.table}", error.strerror or str(error)) from error
        except UnicodeDecodeError as error:
            raise InputError(f"a table in UTF-8 at {self.table}", str(error), "save it as UTF-8") from error

    def notices(self) -> tuple[str, ...]:
        """How many rows were left out."""
        if not self._missing:
            return ()
        rows = f"{self._missing} rows of {self.table.name} name clips that are not below {self.root}"
        return (f"{rows}, e.g. {self._example}: left out",)

    def _manifest(self, file: Any) -> Iterator[Item]:
        for number, line in enumerate(file, 1):
            where = f"line {number} of {self.table.name}"
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(line.strip()[:80])
                unknown = sorted(set(row) - set(_MANIFEST_KEYS))
                if unknown or not isinstance(row.get("path"), str):
                    got = f"unknown {', '.join(unknown)}" if unknown else "no path"
                    expected = f"an object with {', '.join(_MANIFEST_KEYS)} in {where}"
                    raise InputError(expected, got, f"write e.g. {_MANIFEST_LINE}")
                item = self._manifest_item(row, where)
            except (ValueError, TypeError, AttributeError) as error:
                expected = f"a JSON object with a path in {where}"
                raise InputError(expected, str(error), f"write e.g. {_MANIFEST_LINE}") from error
            yield item

    def _manifest_item(self, row: Mapping[str, Any], where: str) -> Item:
        path = Path(row["path"])
        full = path if path.is_absolute() else self.root / path
        start_s = float(row.get("start_s") or 0.0)
        end_s = None if row.get("end_s") is None else float(row["end_s"])
        part = f"@{start_s:g}-{'' if end_s is None else f'{end_s:g}'}" if start_s or end_s is not None else ""
        name = str(row.get("id") or f"{path.as_posix()}{part}")
        check_row(name, start_s, end_s, where)
        check_inside(self.root, row["path"], where)
        try:
            size = full.stat().st_size if full.is_file() else -1
        except OSError:
            size = -1  # said of this clip when its turn comes, as of any that cannot be read
        scores = {str(key): float(value) for key, value in dict(row.get("scores") or {}).items()}
        caption = str(row.get("caption") or "")
        return Item(
            name=name, path=path.as_posix(), size=size, start_s=start_s, end_s=end_s, caption=caption, scores=scores
        )

    def _csv(self, file: Any) -> Iterator[Item]:
        csv.field_size_limit(_MAX_CELL)
        reader = csv.DictReader(file)
        try:
            columns = reader.fieldnames or ()
            koala = set(KOALA_COLUMNS) <= set(columns)
            if not koala and not set(OPENVID_COLUMNS) <= set(columns):
                names = (", ".join(columns) for columns in (OPENVID_COLUMNS, KOALA_COLUMNS))
                known = "the columns of OpenVid-1M ({} …) or Koala-36M ({} …)".format(*names)
                got = ", ".join(map(str, columns))[:200] or "an empty file"
                raise InputError(f"{known} in {self.table.name}", got, "convert it to a JSONL manifest")
            clips = find_clips(self.root)
            for row in reader:
                where = f"line {reader.line_num} of {self.table.name}"
                if not koala:
                    check_inside(self.root, row["video"] or "", where)
                item = _koala_item(row, clips, where) if koala else _openvid_item(row, clips, where)
                if item is not None:
                    yield item
                else:
                    self._missing += 1
                    self._example = self._example or str(row["videoID" if koala else "video"])[:80]
        except csv.Error as error:
            raise InputError(f"CSV in {self.table}", f"{error} in line {reader.line_num}", "fetch it again") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundClip:
    """A clip below the root.

    Attributes:
        path: of the file, or of the zip that holds it, relative to the root.
        size: bytes.
        member: its name in the zip; empty: a file of its own.
    """

    path: str
    size: int
    member: str = ""


@dataclass(frozen=True, slots=True)
class Clips:
    """Clips below a root by file name, and by its stem; of equal names the first in order of paths."""

    by_name: dict[str, FoundClip] = field(default_factory=lambda: dict[str, FoundClip]())
    by_stem: dict[str, FoundClip] = field(default_factory=lambda: dict[str, FoundClip]())

    def add(self, name: str, clip: FoundClip) -> None:
        """Remember a clip unless its name is known."""
        self.by_name.setdefault(name, clip)
        self.by_stem.setdefault(Path(name).stem, clip)


def find_clips(root: Path) -> Clips:
    """Every video below a root, in files and inside zips.

    Raises:
        InputError: no such folder, or a damaged zip.
    """
    if not root.is_dir():
        raise InputError("the folder that holds the clips", f"no folder at {root}", "name it with --root")
    clips = Clips()
    for folder, names, files in os.walk(root):
        names.sort()
        for name in sorted(files):
            path = Path(folder) / name
            relative = path.relative_to(root).as_posix()
            if path.suffix.lower() in VIDEO_SUFFIXES:
                clips.add(name, FoundClip(path=relative, size=path.stat().st_size))
            elif path.suffix.lower() == ".zip":
                _add_zip(clips, path, relative)
    return clips


def _add_zip(clips: Clips, path: Path, relative: str) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            for info in sorted(archive.infolist(), key=lambda info: info.filename):
                if Path(info.filename).suffix.lower() in VIDEO_SUFFIXES:
                    found = FoundClip(path=relative, size=info.file_size, member=info.filename)
                    clips.add(Path(info.filename).name, found)
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(
            f"a whole zip at {path}", str(error), "fetch it again; join parts first: cat X_part* > X.zip"
        ) from error


def _openvid_item(row: Mapping[str, Any], clips: Clips, where: str) -> Item | None:
    name = Path(row["video"] or "").name
    check_row(name, 0.0, None, where)
    found = clips.by_name.get(name)
    if found is None:
        return None
    return Item(
        name=name,
        path=found.path,
        size=found.size,
        member=found.member,
        caption=(row["caption"] or "").strip(),
        scores=parse_scores(row, OPENVID_SCORES),
    )


def _koala_item(row: Mapping[str, Any], clips: Clips, where: str) -> Item | None:
    """A clip named by videoID is the part already; a whole video named by its YouTube id is cut by the timestamp."""
    name = row["videoID"] or ""
    check_row(name, 0.0, None, where)
    start_s, end_s = 0.0, None
    found = clips.by_stem.get(name)
    if found is None:
        link = _YOUTUBE.search(row.get("url") or "")
        found = clips.by_stem.get(link.group(1)) if link else None
        if found is None:
            return None
        times = [3600 * int(h) + 60 * int(m) + float(s) for h, m, s in _CLOCK.findall(row["timestamp"] or "")]
        if len(times) != 2:
            raise InputError(f"two times H:M:S in {where}", repr(row["timestamp"])[:80])
        start_s, end_s = times
        check_row(name, start_s, end_s, where)
    return Item(
        name=name,
        path=found.path,
        size=found.size,
        member=found.member,
        start_s=start_s,
        end_s=end_s,
        caption=(row["caption"] or "").strip(),
        scores=parse_scores(row, KOALA_SCORES),
    )
