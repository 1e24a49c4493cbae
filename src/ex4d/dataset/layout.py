"""Names in a dataset's folder, and what one sample is in a shard.

::

    plan.jsonl                  what was asked for: settings, then every clip with its shard
    shards/shard-000000.tar     samples as WebDataset reads them: KEY.json, KEY.mp4, KEY.mask-0.mkv, KEY.mask-1.mkv …
    shards/shard-000000.json    its commit record: checksum, samples, clips that failed; written after the tar
    index.parquet               a row for every sample: where its bytes lie
    errors.jsonl                a line for every clip or segment that is not in it, with the reason
    timings.json                the only file that may differ between two equal runs
    dataset.json                settings, checksums, fingerprint; its presence says that all is there
    latents/KEY/                a cache that training reads instead of videos (`dataset.latents`)
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PLAN, INDEX, ERRORS, TIMINGS, DATASET = "plan.jsonl", "index.parquet", "errors.jsonl", "timings.json", "dataset.json"
SHARDS, LATENTS, WORK = "shards", "latents", ".ex4d-work"
SCHEMA_VERSION = 1

INFO_SUFFIX, VIDEO_SUFFIX = "json", "mp4"
_KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")
_MASK = re.compile(r"mask-(\d+)\.mkv")

Bucket = tuple[int, int, int]
"""(num_frames, height, width): frames 4k+1, sides in multiples of 16 px."""


def shard_name(shard: int) -> str:
    """``shard-000007``, without a suffix."""
    return f"shard-{shard:06d}"


def shard_path(folder: Path, shard: int) -> Path:
    """The tar of a shard; `folder` is that of the dataset."""
    return folder / SHARDS / f"{shard_name(shard)}.tar"


def mask_suffix(which: int) -> str:
    """What follows ``KEY.`` in the name of a mask's video."""
    return f"mask-{which}.mkv"


def is_key(text: str) -> bool:
    """Whether a text can be a sample's key: no dots, no slashes, short enough for USTAR."""
    return _KEY.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One file inside a shard.

    Attributes:
        suffix: what follows ``KEY.`` in its name.
        offset: of its first byte in the tar.
        size: bytes.
        sha256: hex digest of its content.
    """

    suffix: str
    offset: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRow:
    """A sample as the index knows it.

    Attributes:
        key: its name.
        shard: number of the shard it lies in.
        bucket: (num_frames, height, width).
        caption: may be empty.
        scores: measured or given numbers (motion, aesthetic …).
        phash: perceptual hash of its frames, hex.
        members: its files.
    """

    key: str
    shard: int
    bucket: Bucket
    caption: str
    scores: dict[str, float] = field(default_factory=lambda: dict[str, float]())
    phash: str = ""
    members: tuple[Member, ...] = ()

    @property
    def num_masks(self) -> int:
        """How many masks it has."""
        return sum(_MASK.fullmatch(member.suffix) is not None for member in self.members)

    def member(self, suffix: str) -> Member:
        """The file of this suffix; KeyError if there is none."""
        for member in self.members:
            if member.suffix == suffix:
                return member
        raise KeyError(f"{self.key}.{suffix}")


def row_from_json(data: dict[str, Any]) -> SampleRow:
    """The inverse of ``dataclasses.asdict``, after JSON or Parquet.

    Raises:
        KeyError, TypeError, ValueError: not such a row.
    """
    num_frames, height, width = (int(value) for value in data["bucket"])
    if not is_key(data["key"]):
        raise ValueError(f"the key {data['key']!r}")
    return SampleRow(
        key=data["key"],
        shard=int(data["shard"]),
        bucket=(num_frames, height, width),
        caption=data["caption"],
        scores={str(name): float(value) for name, value in dict(data["scores"]).items()},
        phash=data["phash"],
        members=tuple(Member(**member) for member in data["members"]),
    )
