"""Folders of videos (``NAME.txt`` beside ``NAME.mp4`` is its caption) and WebDataset tars."""

import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ex4d.errors import InputError
from ex4d.prepare.input_tables import OPENVID_SCORES
from ex4d.prepare.items import VIDEO_SUFFIXES, Item, parse_scores

_MAX_TEXT_BYTES = 1 << 20
_CAPTION_KEYS = ("caption", "text", "prompt")


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderItems:
    """All videos in a folder and below it, and all that lie in its tars; hidden files and folders are left out.

    Attributes:
        root: the folder.
    """

    root: Path

    def iter_items(self) -> Iterator[Item]:
        """See `ItemSource.iter_items`."""
        for folder, names, files in os.walk(self.root, onerror=_refuse):
            names[:] = sorted(name for name in names if not name.startswith("."))
            for name in sorted(files):
                path = Path(folder) / name
                suffix = path.suffix.lower()
                if name.startswith("."):
                    continue
                if suffix == ".tar":
                    yield from iter_tar(self.root, path)
                elif suffix in VIDEO_SUFFIXES:
                    relative = path.relative_to(self.root).as_posix()
                    yield Item(name=relative, path=relative, size=path.stat().st_size, caption=read_caption(path))

    def notices(self) -> tuple[str, ...]:
        """None."""
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TarItems:
    """All videos in one WebDataset tar.

    Attributes:
        tar: the file.
    """

    tar: Path

    @property
    def root(self) -> Path:
        return self.tar.parent

    def iter_items(self) -> Iterator[Item]:
        """See `ItemSource.iter_items`."""
        return iter_tar(self.root, self.tar)

    def notices(self) -> tuple[str, ...]:
        """None."""
        return ()


def _refuse(error: OSError) -> None:
    raise InputError(f"a readable folder at {error.filename}", error.strerror or str(error), "check the permissions")


def read_caption(video: Path) -> str:
    """What ``NAME.txt`` says; empty where there is none.

    Raises:
        InputError: it is no UTF-8 text of at most 1 MiB.
    """
    path = video.with_suffix(".txt")
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_TEXT_BYTES + 1)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise InputError(f"a readable caption at {path}", error.strerror or str(error)) from error
    return _text(data, str(path))


def iter_tar(root: Path, tar: Path) -> Iterator[Item]:
    """Items of a WebDataset tar: ``KEY.mp4`` with ``KEY.json`` and ``KEY.txt``, next to each other.

    Raises:
        InputError: it is no tar, cut off, or compressed (members could not be found again by their place).
    """
    relative = tar.relative_to(root).as_posix()
    try:
        with tarfile.open(tar, "r:") as archive:
            key, group = "", dict[str, tuple[tarfile.TarInfo, bytes]]()
            for info in archive:
                base, _, suffix = Path(info.name).name.partition(".")
                name = f"{Path(info.name).parent.as_posix()}/{base}".removeprefix("./")
                if name != key:
                    yield from _group_items(relative, key, group)
                    key, group = name, {}
                if info.isreg():
                    group[suffix.lower()] = info, _small(archive, info, suffix)
            yield from _group_items(relative, key, group)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InputError(f"an uncompressed tar at {tar}", str(error), "fetch it again, or unpack it") from error


def _small(archive: tarfile.TarFile, info: tarfile.TarInfo, suffix: str) -> bytes:
    """The content of a text beside a video."""
    if suffix.lower() not in ("json", "txt") or info.size > _MAX_TEXT_BYTES:
        return b""
    stream = archive.extractfile(info)
    return stream.read() if stream is not None else b""


def _group_items(tar: str, key: str, group: dict[str, tuple[tarfile.TarInfo, bytes]]) -> Iterator[Item]:
    """The items of one sample of a tar: one for each file that is a video."""
    videos = [suffix for suffix in group if f".{suffix}" in VIDEO_SUFFIXES]
    if not videos:
        return
    info: dict[str, Any] = {}
    if group.get("json", (None, b""))[1]:
        try:
            info = json.loads(group["json"][1])
        except ValueError as error:
            raise InputError(f"JSON in {key}.json of {tar}", str(error)) from error
    caption = _text(group["txt"][1], f"{key}.txt of {tar}") if "txt" in group else ""
    if not caption and isinstance(info, dict):
        caption = next((str(info[name]) for name in _CAPTION_KEYS if isinstance(info.get(name), str)), "")
    scores = parse_scores(info, OPENVID_SCORES) if isinstance(info, dict) else {}
    for suffix in videos:
        member = group[suffix][0]
        yield Item(
            name=f"{tar}/{key}.{suffix}",
            path=tar,
            size=member.size,
            offset=member.offset_data,
            caption=caption.strip(),
            scores=scores,
        )


def _text(data: bytes, where: str) -> str:
    try:
        if len(data) > _MAX_TEXT_BYTES:
            raise ValueError("more than 1 MiB")
        return data.decode("utf-8-sig").strip()
    except ValueError as error:
        raise InputError(f"a caption in UTF-8 in {where}", str(error)) from error
