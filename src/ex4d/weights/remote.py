"""What a pull is to fetch, and how much of it lies in a folder already. Knows no network."""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from ex4d.errors import OutputError
from ex4d.weights.files import sha256_file
from ex4d.weights.folders import MANIFEST, output_errors
from ex4d.weights.manifest import Manifest
from ex4d.weights.registry import Entry

PARTIAL = ".partial"
"""Folder of unfinished files inside the folder that is being pulled."""
_SPARE_BYTES = 1 << 28
"""Left free on the disk: 256 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """A file of a repository: path there, bytes, and hex SHA-256 (large files) or git blob id (small ones)."""

    path: str
    size: int
    sha256: str | None
    blob_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """What a pull would fetch.

    Attributes:
        entry: of the registry.
        revision: commit, 40 hex digits.
        licence: as the repository declares it; None if it does not.
        files: the wanted ones.
    """

    entry: Entry
    revision: str
    licence: str | None
    files: tuple[RemoteFile, ...]

    @property
    def num_bytes(self) -> int:
        """Of all files together."""
        return sum(file.size for file in self.files)


def part_path(folder: Path, file: RemoteFile) -> Path:
    """Named by path, and by content so that what is left of another revision is never continued."""
    return folder / PARTIAL / f"{file.path.replace('/', '--')}.{(file.sha256 or file.blob_id or '')[:16]}.part"


def is_intact(path: Path, file: RemoteFile) -> bool:
    """Whether a local file has the size and the hash that the hub lists."""
    if path.stat().st_size != file.size:
        return False
    if file.sha256 is not None:
        return sha256_file(path) == file.sha256
    content = path.read_bytes()  # what Git itself stores is small
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == file.blob_id


def check_folder(folder: Path) -> None:
    """Refuse to pull over something else.

    Raises:
        OutputError: a file, or a folder that holds neither weights nor an unfinished pull.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputError(f"a folder at {folder}", "a file of that name", "choose another folder")
    if any(folder.iterdir()) and not ((folder / MANIFEST).exists() or (folder / PARTIAL).exists()):
        raise OutputError(f"a new or empty folder {folder}", "one that holds something else", "choose another folder")


def remove_outdated(folder: Path, earlier: Manifest, remote: Remote) -> None:
    """From here on the folder is no finished pull; files that the new revision lacks would only confuse."""
    wanted = {file.path for file in remote.files}
    with output_errors(folder):
        (folder / MANIFEST).unlink()
        for name in earlier.files.keys() - wanted:
            (folder / name).unlink(missing_ok=True)


def check_space(remote: Remote, folder: Path) -> None:
    """Raise `OutputError` unless what is still to be fetched fits on the disk."""
    here = 0
    for file in remote.files:
        sizes = [path.stat().st_size for path in (folder / file.path, part_path(folder, file)) if path.is_file()]
        here += min(max(sizes, default=0), file.size)
    needed = remote.num_bytes - here + _SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"{needed / 1e9:.1f} GB free for {folder}",
            f"{free / 1e9:.1f} GB",
            "free some space, or set EX4D_WEIGHTS or -o to a folder on a larger disk",
        )
