"""Weights from the hub: what a repository holds, and a download that goes on where it was cut off.

The only file that touches huggingface_hub; ``HF_ENDPOINT``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE`` mean what they mean
there. Files come over plain HTTP in four streams, not through its own cache: its downloads start over when killed.
"""

import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import BinaryIO

from ex4d.errors import MissingDependencyError, OutputError, WeightsError
from ex4d.weights.files import sha256_file
from ex4d.weights.folders import output_errors
from ex4d.weights.manifest import FileRecord, Manifest, read_manifest, write_manifest
from ex4d.weights.registry import Entry
from ex4d.weights.remote import (
    PARTIAL,
    Remote,
    RemoteFile,
    check_folder,
    check_space,
    is_intact,
    part_path,
    remove_outdated,
)

try:
    from huggingface_hub import HfApi, constants, hf_hub_url
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
    from huggingface_hub.utils import (
        WeakFileLock,
        build_hf_headers,
        hf_raise_for_status,
        http_stream_backoff,
        httpx,
    )
except ImportError as missing:
    raise MissingDependencyError("huggingface_hub", "gen", "downloading weights") from missing

_STREAMS = 4
_CHUNK_BYTES = 1 << 20
_MAX_FAILURES = 5
"""Connections in a row that brought nothing."""


def look_up(entry: Entry, *, revision: str | None = None, endpoint: str | None = None) -> Remote:
    """Ask the hub what there is to fetch; downloads nothing.

    Args:
        entry: of the registry.
        revision: branch, tag or commit; default: the newest.
        endpoint: default: huggingface_hub's.

    Raises:
        WeightsError: no connection, no such repository or revision, or it lacks the wanted files.
    """
    with _hub_errors(entry):
        info = HfApi(endpoint=endpoint).model_info(entry.repo, revision=revision, files_metadata=True, timeout=30.0)
    files = tuple(
        RemoteFile(
            path=sibling.rfilename,
            size=int(sibling.size or 0),
            sha256=sibling.lfs.sha256 if sibling.lfs else None,
            blob_id=sibling.blob_id,
        )
        for sibling in info.siblings or ()
        if entry.wants(sibling.rfilename)
    )
    if not files or info.sha is None or not all(file.sha256 or file.blob_id for file in files):
        raise WeightsError(
            f"the files of {entry.name!r} in {entry.repo}", "none, or none with a hash", "try another --revision"
        )
    licence = (info.card_data or {}).get("license")
    return Remote(entry=entry, revision=info.sha, licence=licence if isinstance(licence, str) else None, files=files)


def pull(
    remote: Remote,
    folder: Path,
    *,
    on_progress: Callable[[int], None] | None = None,
    endpoint: str | None = None,
) -> Manifest:
    """Fetch what `look_up` found; ``weights.json`` appears last. Goes on where an earlier pull was cut off.

    Args:
        remote: what to fetch.
        folder: where to; made if needed. Files of another revision in it are replaced.
        on_progress: told the bytes that are here by now, of `Remote.num_bytes`; called from several threads, but
            by one at a time.
        endpoint: default: huggingface_hub's.

    Raises:
        WeightsError: the connection broke for good, or a file is not what the hub says it is.
        OutputError: the disk is too small, the folder holds something else or cannot be written.
    """
    check_folder(folder)
    with output_errors(folder):
        (folder / PARTIAL).mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        earlier = read_manifest(folder)
        if earlier is not None and earlier.revision != remote.revision:
            remove_outdated(folder, earlier, remote)
        check_space(remote, folder)
        records = _fetch_all(remote, folder, on_progress or (lambda _: None), endpoint)
        manifest = Manifest(
            files=records,
            name=remote.entry.name,
            repo=remote.entry.repo,
            revision=remote.revision,
            licence=remote.licence or remote.entry.licence,
        )
        write_manifest(folder, manifest)
    shutil.rmtree(folder / PARTIAL, ignore_errors=True)
    return manifest


@contextlib.contextmanager
def _locked(folder: Path) -> Generator[None, None, None]:
    """Keep other pulls out of this folder; a killed one's lock is gone with it."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(WeakFileLock(folder / PARTIAL / "lock", timeout=1.0))
        except TimeoutError as error:
            raise OutputError(f"{folder} for this pull alone", "another pull under way", "wait for it") from error
        yield


def _fetch_all(
    remote: Remote, folder: Path, on_progress: Callable[[int], None], endpoint: str | None
) -> dict[str, FileRecord]:
    """Several files at a time; the first that fails, or Ctrl-C, ends the others with their current chunk."""
    ticker = _Ticker(on_progress)
    pool = ThreadPoolExecutor(_STREAMS)
    jobs = {pool.submit(_fetch, remote, file, folder, ticker, endpoint): file.path for file in remote.files}
    try:
        return {jobs[job]: job.result() for job in as_completed(jobs)}
    finally:
        ticker.stopped.set()
        pool.shutdown(cancel_futures=True)


def _fetch(remote: Remote, file: RemoteFile, folder: Path, ticker: "_Ticker", endpoint: str | None) -> FileRecord:
    final, part = folder / file.path, part_path(folder, file)
    if final.is_file() and is_intact(final, file):
        ticker.update(file.size)
        return FileRecord(size=file.size, sha256=sha256_file(final))
    url = hf_hub_url(remote.entry.repo, file.path, revision=remote.revision, endpoint=endpoint)
    with _hub_errors(remote.entry, final), part.open("ab") as target:
        _append_rest(url, target, file.size, ticker)
        target.flush()
        os.fsync(target.fileno())
    with output_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        part.replace(final)
    if not is_intact(final, file):
        final.unlink()
        raise WeightsError(
            f"{file.path} as {remote.entry.repo} lists it",
            "another content: its hash differs, it was damaged on the way",
            "pull again: this file is fetched anew, the others are kept",
        )
    return FileRecord(size=file.size, sha256=sha256_file(final))


def _append_rest(url: str, target: BinaryIO, size: int, ticker: "_Ticker") -> None:
    """Append what a file lacks; a connection that breaks is taken up again while some bytes came over it."""
    ticker.update(target.tell())
    failures = 0
    while target.tell() < size:
        before = target.tell()
        error: Exception = OSError("the connection was closed early")
        headers = {**build_hf_headers(), "Accept-Encoding": "identity", "Range": f"bytes={before}-"}
        timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
        try:
            with http_stream_backoff("GET", url, headers=headers, timeout=timeout, retry_on_exceptions=()) as response:
                hf_raise_for_status(response)
                if before and response.status_code != httpx.codes.PARTIAL_CONTENT:  # it starts over
                    ticker.update(-before)
                    target.seek(0)
                    target.truncate()
                for chunk in response.iter_bytes(_CHUNK_BYTES):
                    target.write(chunk)
                    ticker.update(len(chunk))
        except httpx.TransportError as broken:
            error = broken
        failures = failures + 1 if target.tell() <= before else 0
        if failures == _MAX_FAILURES:
            raise error
        if target.tell() < size:
            ticker.pause()


class _Ticker:
    """Adds up the bytes of all streams for one listener, and tells the streams when nobody wants them any more."""

    def __init__(self, on_progress: Callable[[int], None]) -> None:
        self._on_progress, self._lock = on_progress, threading.Lock()
        self._done = 0
        self.stopped = threading.Event()

    def update(self, num_bytes: int) -> None:
        """So many bytes more (less than 0: they are fetched anew).

        Raises:
            CancelledError: the pull is over.
        """
        if self.stopped.is_set():
            raise CancelledError
        with self._lock:
            self._done += num_bytes
            self._on_progress(self._done)

    def pause(self) -> None:
        """A second before another try; CancelledError as in `update`."""
        if self.stopped.wait(1.0):
            raise CancelledError


@contextlib.contextmanager
def _hub_errors(entry: Entry, target: Path | None = None) -> Generator[None, None, None]:
    """What goes wrong on the way, in words; `target` is the file that is being written."""
    try:
        yield
    except RevisionNotFoundError as error:
        raise WeightsError(f"that revision of {entry.repo}", "none of that name", "check --revision") from error
    except RepositoryNotFoundError as error:
        gated = (
            "it asks for a licence to be accepted" if isinstance(error, GatedRepoError) else "none, or a private one"
        )
        fix = "log in (`hf auth login`, or HF_TOKEN), and look at the repository's page"
        raise WeightsError(f"the repository {entry.repo} on the hub", gated, fix) from error
    except (httpx.HTTPError, OSError) as error:
        if target is not None and not isinstance(error, httpx.HTTPError) and error.errno is not None:
            with output_errors(target):
                raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"to fetch {entry.name!r} from {entry.repo}",
            f"{reason}",
            "check the connection (HF_ENDPOINT names a mirror) and run the command again: it goes on where it stopped",
        ) from error
