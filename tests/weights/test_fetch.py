"""Fetching by name from a hub on 127.0.0.1: what it is is said first, and that there is no network is said soon."""

import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from huggingface_hub import constants

from ex4d.errors import WeightsError
from ex4d.weights import fetch as fetch_module
from ex4d.weights.fetch import Listener, check_reachable, fetch
from ex4d.weights.folders import MANIFEST
from ex4d.weights.registry import ENTRIES
from hub_server import COMMIT, FakeHub, serving

ENTRY = ENTRIES["vda-small"]
CONTENT = bytes(range(256)) * 4000


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the weights of each test go."""
    monkeypatch.setenv("EX4D_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("EX4D_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    for name in ("HF_TOKEN", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "weights" / ENTRY.name


def point_to(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does before the client is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Generator[FakeHub, None, None]:
    with serving(FakeHub(repo=ENTRY.repo, files={ENTRY.ready: CONTENT, "README.md": b"text"})) as served:
        point_to(served.endpoint, monkeypatch)
        yield served


class Watcher:
    """Notes and progress in the order in which they came."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.totals: list[int] = []
        self.done: list[int] = []

    @contextmanager
    def progress(self, total: int) -> Generator[Listener, None, None]:
        assert self.notes, "said before it begins"
        self.totals.append(total)
        yield self.done.append


def test_said_first_then_fetched(hub: FakeHub, folder: Path) -> None:
    watcher = Watcher()
    assert fetch(ENTRY, note=watcher.notes.append, progress=watcher.progress)
    text = "\n".join(watcher.notes)
    for part in (ENTRY.name, ENTRY.repo, f"{len(CONTENT)} bytes", "licence apache-2.0", COMMIT[:12], str(folder)):
        assert part in text
    assert (watcher.totals, watcher.done[-1]) == ([len(CONTENT)], len(CONTENT))
    assert sorted(path.name for path in folder.iterdir()) == sorted([ENTRY.ready, MANIFEST])
    assert (folder / ENTRY.ready).read_bytes() == CONTENT


def test_nothing_is_fetched_against_a_wish(hub: FakeHub, folder: Path) -> None:
    watcher = Watcher()
    assert not fetch(ENTRY, note=watcher.notes.append, progress=watcher.progress, agree=lambda: False)
    assert len(watcher.notes) == 3
    assert hub.seen == []
    assert not folder.exists()


def test_what_is_here_is_not_spoken_of_and_what_was_cut_off_is_fetched_again(hub: FakeHub, folder: Path) -> None:
    first = Watcher()
    fetch(ENTRY, note=first.notes.append, progress=first.progress)
    hub.seen.clear()
    watcher = Watcher()
    assert fetch(ENTRY, note=watcher.notes.append, progress=watcher.progress)
    assert (watcher.notes, hub.seen) == ([], [])
    (folder / ENTRY.ready).write_bytes(CONTENT[:-9])
    assert fetch(ENTRY, note=watcher.notes.append, progress=watcher.progress)
    assert len(watcher.notes) == 3
    assert (folder / ENTRY.ready).read_bytes() == CONTENT


def test_a_hub_that_is_not_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    point_to(f"http://127.0.0.1:{port}", monkeypatch)
    watcher = Watcher()
    with pytest.raises(WeightsError, match=f"127.0.0.1:{port}.*ex4d weights pull vda-small") as caught:
        fetch(ENTRY, note=watcher.notes.append, progress=watcher.progress)
    assert str(folder) in caught.value.fix
    assert watcher.notes == []


def test_a_network_that_swallows_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener whose queue is full answers no more: to the caller it is a firewall that drops packets."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        point_to(f"http://127.0.0.1:{address[1]}", monkeypatch)
        try:
            with pytest.raises(WeightsError, match=r"no answer in 0\.2 s|timed out"):
                check_reachable(ENTRY, patience_s=0.2)
        finally:
            for one in waiting:
                one.close()


def test_a_name_that_nobody_answers_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search of a name has no timeout of its own: a resolver that is away would hold us for half a minute."""
    answered = threading.Event()

    def search(*_: object, **__: object) -> None:
        answered.wait(20)
        raise socket.gaierror("gone")

    monkeypatch.setattr(socket, "getaddrinfo", search)
    point_to("https://hub.example", monkeypatch)
    with pytest.raises(WeightsError, match=r"hub\.example:443.*no answer in 0\.1 s"):
        check_reachable(ENTRY, patience_s=0.1)
    answered.set()


@pytest.mark.parametrize("proxy", ["http://{}", "{}", "socks5://{}"])
def test_behind_a_proxy_only_the_proxy_is_asked_for(proxy: str, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    server = hub.endpoint.removeprefix("http://")
    monkeypatch.setenv("HTTPS_PROXY", proxy.format(server))
    point_to("https://hub.example", monkeypatch)
    check_reachable(ENTRY)
    monkeypatch.setenv("NO_PROXY", "hub.example")
    with pytest.raises(WeightsError, match=r"hub\.example:443"):
        check_reachable(ENTRY, patience_s=1.0)


def test_offline_by_choice(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """HF_HUB_OFFLINE=1: the client itself refuses, without a connection."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(fetch_module.socket, "create_connection", None)
    watcher = Watcher()
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE"):
        fetch(ENTRY, note=watcher.notes.append, progress=watcher.progress)
    assert hub.tokens == {}
