"""Weights with a name from the hub to their folder: what it is and weighs is said first, no network is said soon.

What `ex4d weights pull` and ``--download`` have in common. Imports huggingface_hub only when something is fetched.
"""

import socket
import threading
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ex4d.errors import WeightsError
from ex4d.weights.manifest import read_manifest
from ex4d.weights.registry import Entry

if TYPE_CHECKING:
    from ex4d.weights.remote import Remote

PATIENCE_S = 2.5
"""How long the hub (or the proxy before it) may take to be found and to accept a connection."""
_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}

Listener = Callable[[int], None]
"""Told the bytes that are here by now."""


def fetch(
    entry: Entry,
    *,
    note: Callable[[str], object],
    progress: Callable[[int], AbstractContextManager[Listener]],
    agree: Callable[[], bool] = lambda: True,
    folder: Path | None = None,
    revision: str | None = None,
) -> bool:
    """Look up, say, and pull; goes on where an earlier pull was cut off. Nothing is said of what is here already.

    Args:
        entry: of the registry.
        note: told name, repository, exact size, declared licence and folder, one line each, before anything is fetched.
        progress: given the bytes of all files, a context that yields who is told how many are here.
        agree: asked after that; False: nothing is fetched.
        folder: where to; default: where the name is looked for.
        revision: branch, tag or commit; default: the newest.

    Returns:
        False if `agree` said no.

    Raises:
        MissingDependencyError: huggingface_hub is not installed.
        WeightsError: the hub cannot be reached, lacks it, or sends something else than it lists.
        OutputError: the disk is too small, or the folder is in the way or cannot be written.
    """
    from ex4d.weights.hub import look_up, pull  # first: it says which package is missing

    check_reachable(entry)
    remote = look_up(entry, revision=revision)
    folder = folder or entry.folder()
    if _is_here(remote, folder):
        return True
    for line in offer(remote, folder):
        note(line)
    if not agree():
        return False
    with progress(remote.num_bytes) as listener:
        pull(remote, folder, on_progress=listener)
    return True


def offer(remote: "Remote", folder: Path) -> tuple[str, ...]:
    """What would be fetched, in lines for people."""
    entry = remote.entry
    licence = f"licence {entry.licence if remote.licence == 'other' else remote.licence}"
    if not remote.licence:
        licence = f"no licence declared there ({entry.licence} by our list)"
    return (
        f"{entry.name}: {entry.purpose}",
        f"  {len(remote.files)} files, {remote.num_bytes / 1e9:.2f} GB, {licence}",
        f"  {remote.num_bytes} bytes from {entry.repo} at {remote.revision[:12]} to {folder}",
    )


def _is_here(remote: "Remote", folder: Path) -> bool:
    """Whether this revision was pulled; of the files' content only the length is looked at: `verify` does the rest."""
    manifest = read_manifest(folder)
    if manifest is None or manifest.revision != remote.revision:
        return False
    paths = [(folder / file.path, file.size) for file in remote.files]
    return all(path.is_file() and path.stat().st_size == size for path, size in paths)


def check_reachable(entry: Entry, patience_s: float = PATIENCE_S) -> None:
    """Find the hub and connect to it, or say within `patience_s` that nobody is there.

    The client's own timeouts are long, as slow answers need, and do not hold for the search of a name at all.

    Raises:
        WeightsError: no address, or no connection in time.
    """
    from ex4d.weights.hub import constants

    if constants.HF_HUB_OFFLINE:
        return  # the client says so itself
    host, port = _first_stop(constants.ENDPOINT)
    problems: list[str] = []

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=patience_s).close()
        except OSError as error:
            problems.append(error.strerror or str(error))

    # searching a name cannot be cut short: the thread is left behind
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(patience_s)
    if thread.is_alive():
        problems.append(f"no answer in {patience_s:g} s")
    if problems:
        raise WeightsError(
            f"to reach {host}:{port} for {entry.name!r}",
            problems[0],
            f"connect this machine, then `ex4d weights pull {entry.name}` (HF_ENDPOINT names a mirror); or run that on "
            f"another machine and copy the folder to {entry.folder()}",
        )


def _first_stop(endpoint: str) -> tuple[str, int]:
    """(host, port) that a request to `endpoint` connects to first: its own, or a proxy's by the usual variables."""
    url = urlsplit(endpoint)
    host = url.hostname or endpoint
    proxies = urllib.request.getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if proxy and not urllib.request.proxy_bypass(host):
        url = urlsplit(proxy if "//" in proxy else f"//{proxy}", scheme="http")
    return url.hostname or host, url.port or _PORTS.get(url.scheme, 443)
