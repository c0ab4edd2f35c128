"""A forward proxy on a real port: what it was asked for, and whether it wants a password."""

from __future__ import annotations

import base64
import http.client
import select
import socket
import ssl
from contextlib import closing, suppress
from threading import Thread
from urllib.parse import urlsplit

from tests.threaded_http import QuietHandler, ThreadedHttp

HOP = frozenset({"connection", "proxy-connection", "keep-alive", "transfer-encoding", "content-length"})


class ForwardProxy:
    """Forwards requests for http:// URLs, and tunnels for https:// ones."""

    def __init__(self, *, credentials: str | None = None) -> None:
        """
        Args:
            credentials: `user:password` that it wants.
        """
        self.asked: list[str] = []
        """What was asked for: `POST http://host/path`, `CONNECT host:port`."""
        self.authorizations: list[str] = []
        """The Authorization headers that it has seen."""
        self.status: int | None = None
        """Refuse everything with this status."""
        wanted = "Basic " + base64.b64encode(credentials.encode()).decode() if credentials else None
        proxy = self

        class Handler(QuietHandler):
            protocol_version = "HTTP/1.1"

            def _refused(self) -> bool:
                proxy.asked.append(f"{self.command} {self.path}")
                proxy.authorizations.append(self.headers.get("authorization", ""))
                status = proxy.status
                if wanted is not None and self.headers.get("proxy-authorization") != wanted:
                    status = 407
                if status is None:
                    return False
                self.send_response(status)
                self.send_header("proxy-authenticate", 'Basic realm="the office"')
                self.send_header("content-length", "0")
                self.send_header("connection", "close")
                self.end_headers()
                self.close_connection = True
                return True

            def do_CONNECT(self) -> None:
                if self._refused():
                    return
                host, _, port = self.path.rpartition(":")
                with socket.create_connection((host.strip("[]"), int(port))) as upstream:
                    self.send_response(200)
                    self.end_headers()
                    self._tunnel(upstream)
                self.close_connection = True

            def _tunnel(self, upstream: socket.socket) -> None:
                ends = {self.connection: upstream, upstream: self.connection}
                while True:
                    for readable in select.select(list(ends), [], [])[0]:
                        try:
                            data = readable.recv(65536)
                        except OSError:
                            return
                        if not data:
                            return
                        ends[readable].sendall(data)

            def _forward(self) -> None:
                if self._refused():
                    return
                parts = urlsplit(self.path)
                body = self.body()
                headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
                # Closed whatever happens: a client that has gone away ends this by an error, and the garbage collector
                # would then blame the open socket on another test.
                with closing(http.client.HTTPConnection(parts.hostname or "", parts.port)) as upstream:
                    upstream.request(self.command, parts.path, body, headers)
                    answer = upstream.getresponse()
                    content = answer.read()
                received = [(name, value) for name, value in answer.getheaders() if name.lower() not in HOP]
                with suppress(ConnectionError):
                    self.reply(answer.status, received, content)

            do_GET = do_POST = do_DELETE = _forward

        self._http = ThreadedHttp(Handler)
        self.port = self._http.port

    def __enter__(self) -> ForwardProxy:
        self._http.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.close()


HANDSHAKE = b"\x16"
"""How TLS begins."""
ALERT = b"\x15\x03\x01\x00\x02\x02\x46"
"""What a TLS server says to anything else: fatal, protocol version (RFC 8446, 6)."""


class TlsFront:
    """TLS in front of a server that speaks none."""

    def __init__(self, context: ssl.SSLContext, port: int) -> None:
        """
        Args:
            context: The server's.
            port: Of the server behind it, on 127.0.0.1.
        """
        self._context = context
        self._behind = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._thread = Thread(target=self._accept)

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(plain)
            Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        with suppress(OSError), plain:
            if plain.recv(1, socket.MSG_PEEK) != HANDSHAKE:
                plain.recv(65536)
                plain.sendall(ALERT)
                plain.shutdown(socket.SHUT_WR)
                plain.recv(65536)
                return
            secure = self._context.wrap_socket(plain, server_side=True)
            with secure, socket.create_connection(("127.0.0.1", self._behind)) as behind:
                self._sockets += [secure, behind]
                back = Thread(target=_pump, args=(behind, secure), daemon=True)
                back.start()
                _pump(secure, behind)
                back.join()

    def __enter__(self) -> TlsFront:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        # Wakes the thread that accepts; closing alone does not.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._thread.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
