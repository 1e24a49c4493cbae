"""A hub of one repository on 127.0.0.1: model info with blobs, files with Range, faults on request."""

import hashlib
import json
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + 34 * "0"
_LARGE = (".safetensors", ".ckpt", ".bin")


@dataclass
class FakeHub:
    """What the server holds and what it saw.

    Attributes:
        repo: its one repository.
        files: path → content.
        licence: of the model card; None: no card.
        revision: commit of every answer.
        cut_once: path → bytes after which the first answer breaks off.
        hold: path → bytes after which every answer waits until `released`.
        ignores_range: every answer is the whole file.
        tampered: path → what is sent instead of the content that was listed.
        seen: (path, first byte asked for) of every file request.
        tokens: Authorization headers by the host that they were sent to.
    """

    repo: str
    files: Mapping[str, bytes]
    licence: str | None = "apache-2.0"
    revision: str = COMMIT
    cut_once: dict[str, int] = field(default_factory=dict)
    hold: dict[str, int] = field(default_factory=dict)
    ignores_range: bool = False
    tampered: dict[str, bytes] = field(default_factory=dict)
    seen: list[tuple[str, int]] = field(default_factory=list)
    tokens: dict[str, set[str | None]] = field(default_factory=dict)
    held: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    endpoint: str = ""

    def info(self) -> dict[str, Any]:
        """Answer of ``/api/models/…?blobs=true``."""
        siblings = [
            {
                "rfilename": path,
                "size": len(content),
                "blobId": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
            }
            | (
                {"lfs": {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}}
                if path.endswith(_LARGE)
                else {}
            )
            for path, content in self.files.items()
        ]
        card = {"cardData": {"license": self.licence}} if self.licence else {}
        return {"_id": "1", "id": self.repo, "modelId": self.repo, "sha": self.revision, "siblings": siblings} | card


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        host = self.headers["Host"].partition(":")[0]
        hub.tokens.setdefault(host, set()).add(self.headers["Authorization"])
        resolve = f"/{hub.repo}/resolve/{hub.revision}/"
        if path in (f"/api/models/{hub.repo}", f"/api/models/{hub.repo}/revision/main"):
            self._send(200, json.dumps(hub.info()).encode())
        elif path.startswith(f"/api/models/{hub.repo}/"):
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif path.startswith(resolve) and (name := path.removeprefix(resolve)) in hub.files:
            if name.endswith(_LARGE):  # as the hub does: large files lie on another host
                self._send(302, b"", {"Location": f"http://localhost:{self.server.server_port}/cdn/{name}"})  # pyright: ignore[reportAttributeAccessIssue]
            else:
                self._file(name)
        elif path.startswith("/cdn/"):
            self._file(path.removeprefix("/cdn/"))
        else:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})

    def _file(self, name: str) -> None:
        hub = self.hub
        content = hub.tampered.get(name, hub.files[name])
        start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").split("-")[0])
        hub.seen.append((name, start))
        start = 0 if hub.ignores_range else start
        limit = hub.cut_once.pop(name, None)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if limit is not None:
            self.wfile.write(content[start:limit])
            self.close_connection = True
        elif name in hub.hold and not hub.released.is_set():
            self.wfile.write(content[start : hub.hold[name]])
            hub.held.set()
            hub.released.wait(60)
        else:
            self.wfile.write(content[start:])

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Silent."""


@contextmanager
def serving(hub: FakeHub) -> Generator[FakeHub, None, None]:
    """Serve a hub until the block ends; `hub.endpoint` is its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
