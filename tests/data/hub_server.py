"""A Hugging Face hub on the loopback, which can be told to misbehave."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CHUNK_BYTES = 1 << 13
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """Files by (repository, path); `faults` are taken one an answer for a file of that path.

    A fault: an int is a status code; ("cut", n) ends after n bytes; ("slow", s) waits before the
    answer; ("wrong",) sends other bytes of the same length; ("ignore range",) sends all of it.
    """

    def __init__(self) -> None:
        self.files: dict[tuple[str, str], bytes] = {}
        self.faults: dict[str, list] = {}
        self.list_faults: list = []
        self.requests: list[tuple[str, str | None, str | None]] = []  # path, range, authorization
        self.address = ""
        self.bytes_a_second: float | None = None  # of an answer; None: as fast as it goes

    def add(self, repo: str, path: str, content: bytes, *faults) -> None:
        self.files[repo, path] = content
        self.faults[path] = list(faults)

    def ranges(self, path: str) -> list[str | None]:
        """The Range headers of the requests for a file."""
        return [asked for where, asked, _ in self.requests if where.endswith(path)]


def _list(hub: FakeHub, repo: str) -> dict:
    siblings = [
        {
            "rfilename": path,
            "size": len(content),
            "lfs": {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)},
        }
        for (name, path), content in hub.files.items()
        if name == repo
    ]
    return {"id": repo, "sha": COMMIT, "siblings": siblings}


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args) -> None:
            pass

        def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if hub.bytes_a_second is None:
                self.wfile.write(body)
                return
            with suppress(ConnectionError):  # the reader may be killed
                for first in range(0, len(body), CHUNK_BYTES):
                    self.wfile.write(body[first : first + CHUNK_BYTES])
                    time.sleep(CHUNK_BYTES / hub.bytes_a_second)

        def do_GET(self) -> None:
            where = self.path.split("?")[0]
            hub.requests.append((where, self.headers["range"], self.headers["authorization"]))
            if where.startswith("/api/datasets/"):
                repo = where.removeprefix("/api/datasets/")
                if hub.list_faults and not self.misbehave(hub.list_faults.pop(0), b""):
                    return
                found = _list(hub, repo)
                self.answer(200 if found["siblings"] else 404, json.dumps(found).encode())
                return
            parts = where.split("/")
            key = ("/".join(parts[2:4]), "/".join(parts[6:]))
            if key not in hub.files or parts[5] != COMMIT:
                self.answer(404, b"")
                return
            content, faults = hub.files[key], hub.faults[key[1]]
            if faults and not self.misbehave(faults.pop(0), content):
                return
            self.send_file(content)

        def send_file(self, content: bytes) -> None:
            first = int((self.headers["range"] or "bytes=0-")[6:].rstrip("-"))
            if first >= len(content) > 0:
                self.answer(416, b"")
            elif first:
                total = f"bytes {first}-{len(content) - 1}/{len(content)}"
                self.answer(206, content[first:], {"Content-Range": total})
            else:
                self.answer(200, content)

        def misbehave(self, fault, content: bytes) -> bool:
            """Whether a right answer is to follow."""
            if isinstance(fault, int):
                self.answer(fault, b"")
            elif fault[0] == "slow":
                time.sleep(fault[1])
                return True
            elif fault[0] == "wrong":
                self.answer(200, bytes(255 - byte for byte in content))
            elif fault[0] == "text":
                self.answer(200, fault[1])
            elif fault[0] == "ignore range":
                self.answer(200, content)
            else:
                first = int((self.headers["range"] or "bytes=0-")[6:].rstrip("-"))
                self.send_response(206 if first else 200)
                self.send_header("Content-Length", str(len(content) - first))
                self.end_headers()
                self.wfile.write(content[first : first + fault[1]])
                self.wfile.flush()
                self.connection.close()
                self.close_connection = True
            return False

        def do_HEAD(self) -> None:
            self.answer(405, b"")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
