"""An MCP server and its authorization servers, each on a real port of its own, and everything that they were sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, urlsplit

from mcp.client.auth import OAuthClientProvider
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata
from pydantic import AnyUrl

from mcpconn.testing import Script, Send
from tests.auth.servers import Answer, AuthServer, as_json
from tests.threaded_http import QuietHandler, ThreadedHttp

RESOURCE = "/.well-known/oauth-protected-resource"
METADATA = "/.well-known/oauth-authorization-server"


@dataclass(frozen=True)
class Sent:
    """A request that arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """All of it that could hold a secret."""
        return f"{self.path} {sorted(self.headers.items())} {self.body.decode('utf-8', 'replace')}"


Handle = Callable[[Sent], Answer]


class Host:
    """Answers requests on a port of its own, with `handle`, or with what `instead` gives for them."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self.instead: Callable[[Sent], Answer | None] = lambda sent: None
        """Asked first."""
        self.sent: list[Sent] = []
        self._lock = Lock()
        host = self

        class Handler(QuietHandler):
            def _serve(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                sent = Sent(self.command, urlsplit(self.path).path, headers, self.body())
                with host._lock:
                    host.sent.append(sent)
                    status, out, content = host.instead(sent) or host.handle(sent)
                if status == 0:
                    # No answer: the connection is closed.
                    self.close_connection = True
                    return
                self.reply(status, out, content)

            do_GET = do_POST = do_DELETE = _serve

        self._http = ThreadedHttp(Handler)
        self.origin = f"http://{self._http.host}"
        self.start, self.close = self._http.start, self._http.close

    def count(self, path: str) -> int:
        """Requests for what begins with `path`."""
        return sum(sent.path.startswith(path) for sent in self.sent)

    def saw(self, *secrets: str) -> list[str]:
        """Those of the secrets that arrived here."""
        return [secret for secret in secrets if any(secret in sent.text for sent in self.sent)]


class Person:
    """Somebody at a browser, who logs in at once."""

    def __init__(self) -> None:
        self.urls: list[str] = []
        self._state: str | None = None

    @property
    def logins(self) -> int:
        return len(self.urls)

    async def redirect(self, url: str) -> None:
        self.urls.append(url)
        self._state = parse_qs(urlsplit(url).query)["state"][0]

    async def callback(self) -> AuthorizationCodeResult:
        return AuthorizationCodeResult(code="code:", state=self._state)


class World:
    """An MCP server that asks for tokens of an authorization server elsewhere."""

    def __init__(self, *, apart: bool = True) -> None:
        """
        Args:
            apart: The authorization server has an origin of its own; otherwise it is the MCP server's.
        """
        self.auth = AuthServer()
        self.script = Script(get_stream="405")
        self.person = Person()
        self.issuer = Host(self._issue)
        self.server = Host(self._serve) if apart else self.issuer
        if not apart:
            self.issuer.handle = self._both
        self.auth.origin = self.issuer.origin
        self.advertised: list[str] = [self.issuer.origin]
        self.answers: dict[str, Callable[[], Answer | None]] = {}
        """Other answers of the issuer, by the beginning of the path; None: as ever."""
        self.issuer.instead = self._instead

    @property
    def url(self) -> str:
        return f"{self.server.origin}/mcp"

    def provider(self, storage: Any, *, person: bool = True, **options: Any) -> OAuthClientProvider:
        """A provider for the MCP server."""
        metadata = OAuthClientMetadata(client_name="tests", redirect_uris=[AnyUrl("http://localhost:1/callback")])
        handlers: dict[str, Any] = {}
        if person:
            handlers = {"redirect_handler": self.person.redirect, "callback_handler": self.person.callback}
        return OAuthClientProvider(self.url, metadata, storage, **handlers, **options)

    @contextmanager
    def running(self) -> Iterator[World]:
        hosts = [self.issuer] if self.server is self.issuer else [self.issuer, self.server]
        for host in hosts:
            host.start()
        try:
            yield self
        finally:
            for host in hosts:
                host.close()

    def _instead(self, sent: Sent) -> Answer | None:
        for beginning, answer in self.answers.items():
            if sent.path.startswith(beginning):
                return answer()
        return None

    def _issue(self, sent: Sent) -> Answer:
        return self.auth.answer(sent.method, sent.path, sent.headers, sent.body) or (404, {}, b"")

    def _serve(self, sent: Sent) -> Answer:
        if sent.path.startswith(RESOURCE):
            return as_json(200, {"resource": self.url, "authorization_servers": self.advertised})
        if sent.path != "/mcp":
            return 404, {"content-type": "text/plain"}, b"nothing here"
        refused = self.auth.guard(sent.headers, f"{self.server.origin}{RESOURCE}/mcp")
        if refused is not None:
            return refused
        reply = self.script.decide(sent.method, dict(sent.headers), sent.body)
        content = b"".join(step.data for step in reply.steps if isinstance(step, Send))
        headers = {name: value for name, value in reply.headers if name != "content-length"}
        return reply.status or 500, headers, content

    def _both(self, sent: Sent) -> Answer:
        if sent.path == "/mcp":
            return self._serve(sent)
        return self._issue(sent)


def raw(status: int, content_type: str, body: str | bytes, **headers: str) -> Answer:
    """An answer as it is written."""
    data = body if isinstance(body, bytes) else body.encode()
    return status, {"content-type": content_type, **{k.replace("_", "-"): v for k, v in headers.items()}}, data


def error(status: int, code: str, description: str = "", **headers: str) -> Answer:
    """A refusal as RFC 6749 has it."""
    return raw(status, "application/json", json.dumps({"error": code, "error_description": description}), **headers)
