"""Fetches the URLs that an upstream server names, and refuses those in private networks.

An upstream names the URLs of its metadata, its authorization server and the token endpoint. The gateway may be in a
network that the upstream's operator cannot reach, so these URLs are used only if they are https and public, or if the
gateway's operator names them. A host is resolved once, and the connection goes to an address that was checked, so a
second, different DNS answer has no effect. Redirects are not followed.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from functools import cache
from typing import Any

import anyio
import httpx2

from mcpconn.auth.credentials import CredentialsRefused
from mcpconn.auth.discovery import origin
from mcpconn.auth.token_requests import TIMEOUT, send
from mcpconn.errors import ConfigError
from mcpconn.wire.environment import Environment

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[list[str]]]

NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""IPv6 addresses that a NAT64 gateway translates to the IPv4 address in their last four bytes (RFC 6052)."""
SIX_TO_FOUR = ipaddress.ip_network("2002::/16")
"""The same for the four bytes after the first two (RFC 3056)."""


class AllowedAddresses:
    """Which addresses are allowed, in addition to public ones over https."""

    def __init__(self, allowed: Iterable[str] = (), *, origins: Iterable[str] = ()) -> None:
        """
        Args:
            allowed: Hosts, addresses and networks (`10.1.0.0/16`) that the operator names; they may be private.
            origins: URLs of the configuration; their scheme, host and port are allowed.

        Raises:
            ConfigError: an entry is none of these.
        """
        self._hosts: set[str] = set()
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        self._origins = {origin(each) for each in origins}
        for entry in allowed:
            try:
                self._networks.append(ipaddress.ip_network(entry, strict=False))
            except ValueError:
                if not entry or "/" in entry or ":" in entry or not entry.isascii():
                    raise ConfigError(
                        f"gateway.allowed_addresses: {entry!r} is not a host name, address or network",
                        key="allowed_addresses",
                    ) from None
                self._hosts.add(entry.lower().rstrip("."))

    def named(self, url: httpx2.URL) -> bool:
        """Whether the configuration names this URL's host, so that it may be private, and http."""
        return origin(str(url)) in self._origins or url.host.lower().rstrip(".") in self._hosts

    def permits(self, address: str) -> bool:
        """Whether an address is public, or one of the operator's networks."""
        return _is_public(_parsed(address)) or self.lists(address)

    def lists(self, address: str) -> bool:
        """Whether an address is in one of the operator's networks."""
        found = _parsed(address)
        return any(found in network for network in self._networks)


class Fetcher:
    """Sends requests to allowed addresses only; the `fetch` of an OAuth flow."""

    def __init__(
        self,
        allowed: AllowedAddresses,
        *,
        resolve: Resolve | None = None,
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        """
        Args:
            allowed: The allowed addresses.
            resolve: Finds the addresses of a host; for tests.
            tls: The TLS context; None: one with httpx2's defaults, shared by all requests.
        """
        self.allowed = allowed
        self._resolve = resolve or _resolve
        self._tls = tls or _shared_tls

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request and read its answer. No redirect is followed.

        Raises:
            CredentialsRefused: the address is not allowed. Nothing was sent.
            httpx2.RequestError: there was no answer.
        """
        addresses = await self._addresses(request.url)
        # Creating a TLS context takes 60 ms of processor time, so it is created once, and not for http.
        verify: Any = self._tls() if request.url.scheme == "https" else False
        failed: httpx2.ConnectError | None = None
        for address in addresses:
            # The environment's proxy is not used, because it would resolve the name itself.
            async with httpx2.AsyncClient(trust_env=False, timeout=TIMEOUT, verify=verify) as client:
                try:
                    answer = await send(client, _pinned(request, address))
                except httpx2.ConnectError as error:
                    failed = error
                    continue
            answer.request, answer.next_request = request, None
            return answer
        raise failed or httpx2.ConnectError("the host has no address", request=request)

    async def _addresses(self, url: httpx2.URL) -> list[str]:
        """Resolve a URL's host, and return the allowed addresses."""
        named = self.allowed.named(url)
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            literal = ipaddress.ip_address(url.host)
        except ValueError:
            literal = None
        found = [str(literal)] if literal is not None else await self._resolve(url.host, port)
        if named:
            return found
        if not all(self.allowed.permits(each) for each in found):
            raise _refused(url, "it is in a private network")
        listed = all(self.allowed.lists(each) for each in found)
        if url.scheme != "https" and not (listed and found):
            raise _refused(url, "it is not https")
        return found


def _refused(url: httpx2.URL, why: str) -> CredentialsRefused:
    where = f"{url.scheme}://{url.netloc.decode('ascii', 'replace')}"
    return CredentialsRefused(
        f"{where}, which the server names, was not asked: {why}. If that is meant, add its host to "
        "`allowed_addresses` in the gateway section"
    )


def _pinned(request: httpx2.Request, address: str) -> httpx2.Request:
    """The same request to one address of its host; the certificate is still checked against the host's name."""
    host = f"[{address}]" if ":" in address else address
    headers = [(name, value) for name, value in request.headers.raw if name.lower() != b"host"]
    return httpx2.Request(
        request.method,
        request.url.copy_with(host=host),
        headers=[(b"host", request.url.netloc), *headers],
        content=request.content,
        extensions={**request.extensions, "sni_hostname": request.url.host},
    )


def _is_public(address: Address) -> bool:
    """Whether an address is globally routable, and not in the gateway's own networks."""
    return address.is_global and not (address.is_multicast or address.is_unspecified or address.is_reserved)


def _parsed(text: str) -> Address:
    """An address without its zone; for an IPv6 address that is translated to IPv4, the IPv4 address."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if address in SIX_TO_FOUR:
            return ipaddress.IPv4Address((int(address) >> 80) & 0xFFFFFFFF)
    return address


@cache
def _shared_tls() -> ssl.SSLContext:
    return Environment().tls()


async def _resolve(host: str, port: int) -> list[str]:
    try:
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        raise httpx2.ConnectError("the host cannot be resolved") from None
    return list(dict.fromkeys(str(each[4][0]) for each in found))
