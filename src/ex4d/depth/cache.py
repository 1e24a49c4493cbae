"""Estimated depth on disk, found again by the content of the clip: one file an entry, float32 without loss.

An entry is a magic line, a JSON line (shape, kind, K, poses), the frames as little-endian float32 (each followed by
its sky bits where the estimator knows the sky), and a blake2b digest of all that. It appears whole or not at all.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ex4d.core.arrays import Float64
from ex4d.core.camera import CameraPath
from ex4d.core.clip import Clip, iter_chunks
from ex4d.core.depth import DepthScale
from ex4d.core.video import Video
from ex4d.depth.estimator import DepthEstimator
from ex4d.errors import DepthError, OutputError
from ex4d.io.atomic import atomic_path
from ex4d.io.depth.raw import DepthKind, RawDepth, RawDepthSource, check_declared_size
from ex4d.weights.folders import cache_root

_MAGIC = b"EX4D-DEPTH-1\n"
_DIGEST_BYTES = 32
_MAX_HEADER_BYTES = 64 << 20
MAX_CACHE_BYTES = 20 << 30
"""The oldest entries go when the cache grows beyond this."""


def cache_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Where cached depth lies: ``depth`` in `cache_root`."""
    return cache_root(environ) / "depth"


def hash_clip(source: Clip[Video]) -> str:
    """Hex digest of the size, times and pixels of every frame: one pass over the clip."""
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    digest.update(f"{source.num_frames} {source.height} {source.width}".encode())
    for _, chunk in iter_chunks(source):
        digest.update(chunk.timestamps_s.tobytes())
        digest.update(np.ascontiguousarray(chunk.frames).data)
    return digest.hexdigest()


def cached_estimate(
    estimator: DepthEstimator,
    source: Clip[Video],
    *,
    enabled: bool = True,
    content_key: str | None = None,
    folder: Path | None = None,
) -> tuple[RawDepthSource, tuple[str, ...]]:
    """The estimator's depth of a clip, from the cache where it is there.

    Instant estimators and ``enabled=False`` (``--no-cache``) neither read nor write it. A damaged entry is
    computed again, and a cache that cannot be written is done without; both are said in the notices.

    Args:
        estimator: what computes it; its name and version are part of the key.
        source: the clip.
        enabled: whether to use the cache.
        content_key: hash of the clip's content where the caller has one; default: `hash_clip`.
        folder: default `cache_folder`.

    Returns:
        The depth and notices.
    """
    if estimator.is_instant or not enabled:
        return estimator.estimate(source), ()
    content = content_key or hash_clip(source)
    key = hashlib.blake2b(f"{content}|{estimator.name}|{estimator.version}".encode(), digest_size=20).hexdigest()
    root = cache_folder() if folder is None else folder
    entry = root / f"{key}.ex4ddepth"
    notices: list[str] = []
    if entry.is_file():
        try:
            cached = open_entry(entry, source.timestamps_s)
            os.utime(entry)  # the oldest *unused* entries are dropped first
            return cached, (f"depth taken from the cache ({entry})",)
        except (DepthError, OSError) as error:
            notices.append(f"the cached depth was damaged and is computed again: {error}")
    estimate = estimator.estimate(source)
    try:
        root.mkdir(parents=True, exist_ok=True)
        write_entry(entry, estimate)
        prune(root, MAX_CACHE_BYTES, keep=entry)
        return open_entry(entry, source.timestamps_s), tuple(notices)
    except (OutputError, OSError) as error:
        return estimate, (*notices, f"depth is not cached: {error}")


def write_entry(path: Path, depth: RawDepthSource) -> None:
    """Write an entry chunk by chunk, atomically.

    Raises:
        OutputError: the disk is full or the folder not writable.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        has_sky = depth.read(0, 1).sky is not None
        header = json.dumps(_describe(depth, has_sky)).encode() + b"\n"
        for block in (_MAGIC, header):
            digest.update(block)
            file.write(block)
        for _, chunk in iter_chunks(depth):
            for slot in range(len(chunk)):
                blocks = [chunk.values[slot].astype("<f4").tobytes()]
                if chunk.sky is not None:
                    blocks.append(np.packbits(chunk.sky[slot]).tobytes())
                for block in blocks:
                    digest.update(block)
                    file.write(block)
        file.write(digest.digest())


def _describe(depth: RawDepthSource, has_sky: bool) -> dict[str, Any]:
    path = depth.path
    return {
        "shape": [depth.num_frames, depth.height, depth.width],
        "kind": depth.kind,
        "scale": depth.scale,
        "has_sky": has_sky,
        "description": depth.description,
        "notices": list(depth.notices),
        "K": None if depth.K is None else depth.K.tolist(),
        "path": None
        if path is None
        else {
            "K": path.K.tolist(),
            "world_to_camera": path.world_to_camera.tolist(),
            "source_index": path.source_index.tolist(),
            "size": [path.height, path.width],
        },
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedDepth:
    """An entry of the cache, read frame by frame; satisfies `RawDepthSource`. Opened by `open_entry`."""

    file: Path
    offset: int
    num_frames: int
    height: int
    width: int
    kind: DepthKind
    scale: DepthScale
    has_sky: bool
    timestamps_s: Float64
    K: Float64 | None
    path: CameraPath | None
    description: str
    notices: tuple[str, ...]

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame with its sky bits."""
        num_pixels = self.height * self.width
        return 4 * num_pixels + (-(-num_pixels // 8) if self.has_sky else 0)

    def read(self, start: int, stop: int) -> RawDepth:
        """Frames ``start:stop``.

        Raises:
            DepthError: the entry vanished or shrank since it was opened.
        """
        num, num_pixels = stop - start, self.height * self.width
        try:
            with self.file.open("rb") as file:
                file.seek(self.offset + start * self.frame_bytes)
                data = file.read(num * self.frame_bytes)
        except OSError as error:
            raise DepthError(
                f"cached depth at {self.file}", str(error), "run again, with --no-cache if it persists"
            ) from error
        if len(data) != num * self.frame_bytes:
            raise DepthError(f"{num} frames in {self.file}", "a shorter file", "run again")
        rows = np.frombuffer(data, np.uint8).reshape(num, self.frame_bytes)
        values = np.ascontiguousarray(rows[:, : 4 * num_pixels]).view("<f4").reshape(num, self.height, self.width)
        sky = None
        if self.has_sky:
            bits = np.unpackbits(rows[:, 4 * num_pixels :], axis=1, count=num_pixels)
            sky = bits.reshape(values.shape).astype(np.bool_)
        return RawDepth(values=values.astype(np.float32), timestamps_s=self.timestamps_s[start:stop], sky=sky)


def open_entry(path: Path, timestamps_s: Float64) -> CachedDepth:
    """Open an entry after checking its digest (one pass over the file).

    Args:
        path: the entry.
        timestamps_s: float64 [T] of the clip it belongs to.

    Raises:
        DepthError: not an entry, damaged, or of another number of frames.
        OSError: unreadable.
    """
    with path.open("rb") as file:
        magic, line = file.read(len(_MAGIC)), file.readline(_MAX_HEADER_BYTES)
        offset = file.tell()
    if magic != _MAGIC:
        raise DepthError("an ex4d depth cache entry", "another kind of file")
    try:
        head: dict[str, Any] = json.loads(line)
        num, height, width = (int(size) for size in head["shape"])
        check_declared_size(path.name, num_frames=num, height=height, width=width)
        entry = CachedDepth(
            file=path,
            offset=offset,
            num_frames=num,
            height=height,
            width=width,
            kind=head["kind"],
            scale=head["scale"],
            has_sky=bool(head["has_sky"]),
            timestamps_s=timestamps_s,
            K=None if head["K"] is None else np.array(head["K"], np.float64),
            path=_load_path(head["path"]),
            description=str(head["description"]),
            notices=tuple(head["notices"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DepthError("a readable header", str(error)) from error
    if num != len(timestamps_s):
        raise DepthError(f"{len(timestamps_s)} frames", f"{num}")
    _check_digest(path, offset + num * entry.frame_bytes)
    return entry


def _load_path(content: dict[str, Any] | None) -> CameraPath | None:
    if content is None:
        return None
    return CameraPath(
        K=np.array(content["K"], np.float64),
        world_to_camera=np.array(content["world_to_camera"], np.float64),
        source_index=np.array(content["source_index"], np.int64),
        height=int(content["size"][0]),
        width=int(content["size"][1]),
    )


def _check_digest(path: Path, num_bytes: int) -> None:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    left = num_bytes
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
        stored = file.read()
    if left > 0 or stored != digest.digest():
        raise DepthError("the digest that was written with it", "other content (damaged or cut off)")


def prune(folder: Path, max_bytes: int, *, keep: Path) -> None:
    """Delete the entries unused for longest until the folder holds at most `max_bytes`; `keep` stays."""
    entries = [(p.stat().st_mtime, p.stat().st_size, p) for p in folder.glob("*.ex4ddepth")]
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total <= max_bytes:
            return
        if path != keep:
            path.unlink(missing_ok=True)
            total -= size
