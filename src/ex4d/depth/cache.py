"""Estimated depth on disk, found again by the content of the clip: one file an entry, float32 without loss.

An entry is a magic line, the frames as little-endian float32 (each followed by its sky bits where the estimator knows
the sky), JSON (shape, kind, K, cameras: known only when the last frame is done) with its length, and a blake2b digest
of all that. It appears whole or not at all.
"""

import hashlib
import json
import os
import shutil
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
from ex4d.depth.estimator import DepthEstimator, EstimateRequest
from ex4d.errors import DepthError
from ex4d.io.atomic import atomic_path
from ex4d.io.depth.raw import DepthKind, RawDepth, RawDepthSource, check_declared_size
from ex4d.weights.folders import cache_root

_MAGIC = b"EX4D-DEPTH-2\n"
_DIGEST_BYTES = 32
_LENGTH_BYTES = 8
_MAX_INFO_BYTES = 64 << 20
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
    request: EstimateRequest,
    *,
    scratch: Path,
    enabled: bool = True,
    content_key: str | None = None,
    folder: Path | None = None,
) -> tuple[RawDepthSource, tuple[str, ...]]:
    """The estimator's depth of a clip, from the cache where it is there; frames lie on disk, whatever the length.

    Instant estimators are read directly. With ``enabled=False`` (``--no-cache``) the cache is neither read nor
    written, and the frames lie in `scratch`. A damaged entry is computed again, and a cache that cannot be written is
    done without; both are said in the notices.

    Args:
        estimator: what computes it; its name and version are part of the key.
        source: the clip.
        request: what the estimator is told; part of the key.
        scratch: folder for frames that are not cached; the caller removes it when the run ends.
        enabled: whether to use the cache.
        content_key: hash of the clip's content where the caller has one; default: `hash_clip`.
        folder: default `cache_folder`.

    Returns:
        The depth and notices.

    Raises:
        OutputError: no room for the frames.
    """
    if estimator.is_instant:
        return estimator.estimate(source, request), ()
    root = cache_folder() if folder is None else folder
    notices: list[str] = []
    entry = scratch / "estimate.ex4ddepth"
    if enabled:
        key = "|".join([content_key or hash_clip(source), estimator.name, estimator.version, request.key()])
        kept = root / f"{hashlib.blake2b(key.encode(), digest_size=20).hexdigest()}.ex4ddepth"
        found = _find_entry(kept, source, notices)
        if found is not None:
            return found, (f"depth taken from the cache ({kept})",)
        obstacle = _obstacle(root, source)
        if obstacle is None:
            entry = kept
        else:
            notices.append(f"depth is not cached: {obstacle}")
    entry.parent.mkdir(parents=True, exist_ok=True)
    write_entry(entry, estimator.estimate(source, request))
    if entry.parent == root:
        prune(root, MAX_CACHE_BYTES, keep=entry)
    return open_entry(entry, source.timestamps_s), tuple(notices)


def _find_entry(entry: Path, source: Clip[Video], notices: list[str]) -> "CachedDepth | None":
    if not entry.is_file():
        return None
    try:
        cached = open_entry(entry, source.timestamps_s)
        os.utime(entry)  # the oldest *unused* entries are dropped first
        return cached
    except (DepthError, OSError) as error:
        notices.append(f"the cached depth was damaged and is computed again: {error}")
        return None


def _obstacle(root: Path, source: Clip[Video]) -> str | None:
    """Why the cache cannot take the depth of a clip; asked before the work, which would be lost afterwards."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(root).free
    except OSError as error:
        return error.strerror or str(error)
    need = 5 * source.num_frames * source.height * source.width
    if not os.access(root, os.W_OK):
        return f"{root} cannot be written"
    return None if need < free else f"{need >> 20} MiB are needed in {root}, and {free >> 20} are free"


def write_entry(path: Path, depth: RawDepthSource) -> None:
    """Write an entry chunk by chunk, atomically.

    Raises:
        OutputError: the disk is full or the folder not writable.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)

        def write(block: bytes) -> None:
            digest.update(block)
            file.write(block)

        write(_MAGIC)
        has_sky = False
        for _, chunk in iter_chunks(depth):
            for slot in range(len(chunk)):
                write(chunk.values[slot].astype("<f4").tobytes())
                if chunk.sky is not None:
                    has_sky = True
                    write(np.packbits(chunk.sky[slot]).tobytes())
        info = json.dumps(_describe(depth, has_sky)).encode()
        write(info)
        write(len(info).to_bytes(_LENGTH_BYTES, "little"))
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
        magic, size = file.read(len(_MAGIC)), file.seek(0, os.SEEK_END)
        if magic != _MAGIC:
            raise DepthError("an ex4d depth cache entry", "another kind of file")
        end = size - _DIGEST_BYTES - _LENGTH_BYTES
        file.seek(max(end, 0))
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if end < 0 or length > min(_MAX_INFO_BYTES, end - len(_MAGIC)):
            raise DepthError("an ex4d depth cache entry", "one that was cut off")
        file.seek(end - length)
        info = file.read(length)
    try:
        head: dict[str, Any] = json.loads(info)
        num, height, width = (int(size) for size in head["shape"])
        check_declared_size(path.name, num_frames=num, height=height, width=width)
        entry = CachedDepth(
            file=path,
            offset=len(_MAGIC),
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
        raise DepthError("a readable description", str(error)) from error
    if num != len(timestamps_s):
        raise DepthError(f"{len(timestamps_s)} frames", f"{num}")
    if len(_MAGIC) + num * entry.frame_bytes != end - length:
        raise DepthError(f"{num} frames of {entry.frame_bytes} bytes", f"{end - length - len(_MAGIC)} bytes")
    _check_digest(path, size - _DIGEST_BYTES)
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
