"""`mcpconn login`: a person logs in with a browser, and the tokens are stored for every program of this user."""

from __future__ import annotations

import html
import webbrowser
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import anyio
from anyio.abc import SocketAttribute, SocketStream
from mcp.client.auth import AuthorizationCodeResult

from mcpconn.auth import CredentialsRefused, CredentialsUnavailable, Login, OAuth
from mcpconn.auth.store import StoredTokens
from mcpconn.auth.stored import login_provider
from mcpconn.cli.connect import managed, once
from mcpconn.cli.failures import FAILED, USAGE, CliError
from mcpconn.cli.login_places import GatewayStore, Place, place_of
from mcpconn.cli.output import one_line, say
from mcpconn.config import ServerConfig

LONGEST_REQUEST = 64 * 1024
"""Bytes of the browser's request. A code and a state have some hundred."""
SLOWEST = 10.0
"""Seconds for a browser to send it."""
PAGE = """<!doctype html><meta charset="utf-8"><title>mcpconn</title>
<p style="font: 1.2em sans-serif; margin: 3em">{words}</p>"""
LONGEST_REASON = 300
"""Characters of an authorization server's reason that are shown."""


async def log_in(
    name: str,
    config: ServerConfig,
    *,
    timeout: float,
    browser: bool,
    forget: bool,
    store: GatewayStore | None = None,
) -> int:
    """Log in at a server, or forget the login; returns the exit status.

    Args:
        name: The server's name.
        config: The server.
        timeout: Seconds for the person.
        browser: Open one; otherwise the address is only printed.
        forget: Remove what is stored, and do nothing more.
        store: Keep the login in a gateway's store. None: in a file, for every program of this user.

    Raises:
        CliError: it is no server that one can log in at, or the store cannot be used.
    """
    if config.problem is not None:
        raise CliError(f"{name}: its entry cannot be used: {config.problem}", USAGE)
    if config.url is None:
        raise CliError(f"{name}: a login is for servers with a url; give a command its secrets in env", USAGE)
    if config.auth is not None and not isinstance(config.auth, Login):
        raise CliError(f"{name}: its entry has a token; remove that to log in", USAGE)
    try:
        async with place_of(config.endpoint, store) as place:
            if not forget:
                return await _log_in(name, config, place, timeout=timeout, browser=browser)
            await place.bare.clear()
            say(f"{name}: the stored login was deleted")
            return 0
    except CredentialsUnavailable as error:
        failed = str(error)
    raise CliError(f"{name}: {failed}", FAILED)


async def _log_in(name: str, config: ServerConfig, place: Place, *, timeout: float, browser: bool) -> int:
    login = config.auth if isinstance(config.auth, Login) else Login()
    way_back = WayBack(login.redirect_uri, await _registered_port(place.bare))
    async with way_back:
        asked = False

        async def redirect(address: str) -> None:
            nonlocal asked
            asked = True
            say(f"{name}: log in with a browser: {address}")
            if browser:
                await anyio.to_thread.run_sync(webbrowser.open, address)

        provider = login_provider(
            login,
            config.endpoint,
            place.storage(login, way_back.uri),
            redirect_uri=way_back.uri,
            redirect=redirect,
            callback=way_back.answer,
        )
        credentials = OAuth(provider, login_timeout=timeout)
        policy = replace(once(timeout, 0.0), connect_timeout=timeout + SLOWEST)
        async with managed({name: replace(config, auth=credentials)}, policy) as manager:
            await manager[name].wait_ready()
    if asked:
        say(f"{name}: logged in; the tokens are in {place}")
    elif await place.bare.get_tokens() is not None:
        say(f"{name}: you are logged in already; --forget ends that")
    else:
        say(f"{name}: it did not ask for a login")
    return 0


async def _registered_port(storage: StoredTokens) -> int | None:
    """The port of the redirect URI that the client is registered with. Some servers compare it."""
    try:
        client = (await storage.load()).client
        uris = client.redirect_uris if client is not None else None
        return urlsplit(str(uris[0])).port if uris else None
    except (CredentialsRefused, ValueError):
        return None


class WayBack:
    """Listens on this machine for the browser to return from the login."""

    def __init__(self, uri: str | None, port: int | None) -> None:
        """
        Args:
            uri: The redirect URI, if one is configured.
            port: A port that is tried first, if none is.
        """
        self.uri = uri or ""
        self._preferred = port
        self._found: AuthorizationCodeResult | CredentialsRefused | None = None
        self._came = anyio.Event()

    async def __aenter__(self) -> WayBack:
        parts = urlsplit(self.uri)
        self._path = parts.path or "/" if self.uri else "/callback"
        host = parts.hostname or "127.0.0.1"
        ports = [parts.port or 80] if self.uri else [*([self._preferred] if self._preferred else []), 0]
        failure: OSError | None = None
        for port in ports:
            try:
                self._listener = await anyio.create_tcp_listener(local_host=host, local_port=port)
                break
            except OSError as error:
                failure = error
        else:
            why = getattr(failure, "strerror", None) or failure
            raise CliError(f"{host}:{ports[0]}, where the browser comes back to, cannot be listened at: {why}", FAILED)
        if not self.uri:
            self.uri = f"http://127.0.0.1:{self._listener.extra(SocketAttribute.local_port)}{self._path}"
        self._group = await anyio.create_task_group().__aenter__()
        self._group.start_soon(self._listener.serve, self._serve)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._group.cancel_scope.cancel()
        await self._group.__aexit__(None, None, None)
        await self._listener.aclose()

    async def answer(self) -> AuthorizationCodeResult:
        """The parameters of the browser's request.

        Raises:
            CredentialsRefused: the login was refused.
        """
        await self._came.wait()
        # A second login starts from the beginning.
        found, self._found, self._came = self._found, None, anyio.Event()
        if not isinstance(found, AuthorizationCodeResult):
            raise found or CredentialsRefused("the login was cancelled")
        return found

    async def _serve(self, stream: SocketStream) -> None:
        async with stream:
            with anyio.move_on_after(SLOWEST):
                try:
                    status, words = self._take(await _target(stream))
                    body = PAGE.format(words=html.escape(words)).encode()
                    head = f"HTTP/1.1 {status}\r\ncontent-type: text/html\r\ncontent-length: {len(body)}\r\n"
                    await stream.send(f"{head}connection: close\r\n\r\n".encode() + body)
                except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                    """Browsers open connections that they do not use."""

    def _take(self, target: str) -> tuple[str, str]:
        parts = urlsplit(target)
        asked = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if parts.path != self._path or not asked.keys() & {"code", "error"}:
            return "404 Not Found", "Not found."
        found: AuthorizationCodeResult | CredentialsRefused
        if "code" in asked:
            found = AuthorizationCodeResult(code=asked["code"], state=asked.get("state"), iss=asked.get("iss"))
            words = "The terminal shows whether the login succeeded. This page can be closed."
        else:
            reason = one_line(": ".join(filter(None, (asked["error"], asked.get("error_description")))))
            words = f"the login was refused: {reason[:LONGEST_REASON]}"
            found = CredentialsRefused(words)
        if self._came.is_set():
            return "409 Conflict", "This login has already been answered."
        self._found = found
        self._came.set()
        return "200 OK", words


async def _target(stream: SocketStream) -> str:
    """The target of an HTTP request; of its headers nothing is needed."""
    data = b""
    while b"\r\n\r\n" not in data and len(data) < LONGEST_REQUEST:
        data += await stream.receive()
    words = data.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    return words[1] if len(words) == 3 and words[0] == "GET" else ""
