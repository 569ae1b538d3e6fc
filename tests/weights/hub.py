"""A hub on loopback: as much of the Hugging Face hub's protocol as its client needs, and a plain file server.

Faults can be switched on: a connection that is cut, content that is changed, an error page.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import re
import threading
from collections.abc import Iterator
from typing import ClassVar

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.ThreadingHTTPServer):
    """Serves `files`: path -> content. A hub file's path is OWNER/NAME/FILE."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.etags: dict[str, str] = {}  # of files that state another hash than their SHA-256
        self.requests: list[tuple[str, str, str | None]] = []
        self.cut_after: int | None = None  # bytes after which the next download's connection breaks off
        self.flip_bit = False  # whether content is sent with one bit changed
        self.error_page = False  # whether downloads answer with a web page and status 200

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def downloads(self) -> list[str | None]:
        """The Range header of each download so far."""
        return [
            requested
            for method, path, requested in self.requests
            if method == "GET" and not path.startswith("/api/") and not path.endswith(".sha256")
        ]


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"
    resolve: ClassVar = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        hub = self.server
        hub.requests.append((self.command, self.path, self.headers.get("Range")))
        match = self.resolve.fullmatch(self.path)
        content = hub.files.get(f"{match[1]}/{match[3]}" if match else self.path.lstrip("/"))
        if content is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        name = f"{match[1]}/{match[3]}" if match else self.path
        digest = hub.etags.get(name, hashlib.sha256(content).hexdigest())
        if hub.error_page and body:
            content = b"<!DOCTYPE html><html>please log in</html>"
        elif hub.flip_bit:
            content = content[:-1] + bytes([content[-1] ^ 1])
        start = 0
        if requested := self.headers.get("Range"):
            start = int(requested.split("=")[1].split("-")[0])
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
        self.send_response(206 if requested else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if requested:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Accept-Ranges", "bytes")
        if match:
            self.send_header("ETag", f'"{digest}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("X-Linked-Etag", f'"{digest}"')
            self.send_header("X-Linked-Size", str(len(content)))
        self.end_headers()
        if body:
            self._send(content[start:])

    def _send(self, content: bytes) -> None:
        cut, self.server.cut_after = self.server.cut_after, None
        with contextlib.suppress(ConnectionError):
            self.wfile.write(content if cut is None else content[:cut])
        if cut is not None:
            self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


@contextlib.contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
