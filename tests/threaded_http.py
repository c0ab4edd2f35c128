"""HTTP servers in threads: for other processes, and for clients of any event loop."""

from __future__ import annotations

from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

POLL = 0.02
"""Seconds after which the server sees that it is to end."""


class QuietHandler(BaseHTTPRequestHandler):
    """Reads requests, writes answers, and logs nothing."""

    def body(self) -> bytes:
        """The request's body."""
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def reply(self, status: int, headers: Mapping[str, str] | list[tuple[str, str]], content: bytes) -> None:
        """Write a whole answer; its length is added, unless the headers say another."""
        self.send_response(status)
        pairs = headers if isinstance(headers, list) else list(headers.items())
        for name, value in pairs:
            self.send_header(name, value)
        if "content-length" not in {name.lower() for name, _ in pairs}:
            self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


class ThreadedHttp:
    """A server on a free port of 127.0.0.1; each request has a thread of its own."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self.port: int = self._http.server_address[1]
        self.host = f"127.0.0.1:{self.port}"
        self._thread = Thread(target=self._http.serve_forever, kwargs={"poll_interval": POLL})

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End it, and wait for that."""
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
