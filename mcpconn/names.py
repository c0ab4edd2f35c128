"""Maps a server's tools, prompts and resource URIs to the names that clients of the gateway see, and back. Pure.

A public name is a function of server and tool alone: it stays the same after a restart, and does not depend on other
servers or tools. It has the characters `[A-Za-z0-9_-]` only, because many models refuse others.

    plain     SERVER__TOOL                if both are legal, the result fits, and it can be split again
    hashed    PART_OF_IT-x012345678abcd   in every other case

Two pairs never share a plain name: a plain name is split at its first double underscore, and a server whose own name
would move that place is hashed. No plain name looks like a hashed one. Two hashed names differ unless 60 bits of
SHA-256 collide; the gateway refuses the second of two such tools rather than confuse them (see `Table`).
"""

from __future__ import annotations

import hashlib
import re
from base64 import b32encode
from collections.abc import Iterable, Mapping

SEPARATOR = "__"
DEFAULT_LENGTH = 48
"""Characters of a public name. Models allow 64, and hosts put prefixes of their own in front."""
SHORTEST_LENGTH = 24
"""A shorter limit leaves no readable part beside the hash."""
HASH_LENGTH = 12
"""Base-32 characters of a hash: 60 bits."""

_LEGAL = re.compile(r"[A-Za-z0-9_-]+")
_ILLEGAL = re.compile(r"[^A-Za-z0-9_-]+")
_HASHED = re.compile(rf".*-x[a-z2-7]{{{HASH_LENGTH}}}", re.DOTALL)
_SCHEME = re.compile(r"[a-z][a-z0-9.-]*")


def public_name(server: str, name: str, *, limit: int = DEFAULT_LENGTH) -> str:
    """The name under which the tool or prompt `name` of `server` is listed.

    Args:
        server: Name of the server in the configuration.
        name: Name of the tool or prompt, as the server lists it.
        limit: Characters of the result at most; `SHORTEST_LENGTH` or more.
    """
    joined = f"{server}{SEPARATOR}{name}"
    splits = SEPARATOR not in server and not server.endswith("_")
    if splits and len(joined) <= limit and _LEGAL.fullmatch(joined) and not _HASHED.fullmatch(joined):
        return joined
    return _hashed(joined, _digest(server, name), limit)


def split_name(public: str) -> tuple[str, str] | None:
    """Server and name of a plain public name; None for a hashed one, which only a listing can resolve."""
    if _HASHED.fullmatch(public):
        return None
    server, found, name = public.partition(SEPARATOR)
    return (server, name) if found and server and name else None


def public_uri(server: str, uri: str) -> str:
    """The URI under which a resource of `server` is listed: the scheme contains the server's name, the rest is
    unchanged.

    This works for URI templates too, because their inside is not changed.
    """
    return f"{uri_label(server)}+{uri}"


def split_uri(public: str) -> tuple[str, str] | None:
    """The label of the server and its own URI; None if the text has no label."""
    label, found, uri = public.partition("+")
    # A scheme is compared without regard to case (RFC 3986, 3.1), and clients may change it.
    return (label.lower(), uri) if found and _SCHEME.fullmatch(label.lower()) else None


def uri_label(server: str) -> str:
    """The beginning of the scheme of every URI of `server`: its name, if that can begin a scheme (RFC 3986, 3.1)."""
    if _SCHEME.fullmatch(server) and not _HASHED.fullmatch(server):
        return server
    readable = re.sub(r"[^a-z0-9.-]+", "-", server.lower()).strip("-.") or "server"
    label = readable if readable[0].isalpha() else f"s-{readable}"
    return f"{label[:DEFAULT_LENGTH]}-x{_digest(server, '')}"


class Table:
    """The public names of everything that one view lists, in both directions.

    It is made from the listings. A plain name resolves without it, so a call reaches a server whose list is not
    known yet.
    """

    def __init__(self, servers: Iterable[str], *, limit: int = DEFAULT_LENGTH, prefix: bool = True) -> None:
        """
        Args:
            servers: Names of the view's servers.
            limit: Characters of a public name.
            prefix: False leaves names and URIs as they are; only for a view of one server.

        Raises:
            ValueError: `prefix` is False for several servers, or the limit is too small.
        """
        self.serve(servers)
        if not prefix and len(self.servers) != 1:
            raise ValueError("prefix: false needs a view of exactly one server")
        if limit < SHORTEST_LENGTH:
            raise ValueError(f"a name needs at least {SHORTEST_LENGTH} characters, not {limit}")
        self._limit = limit
        self._prefix = prefix
        self._hashed: dict[str, tuple[str, str]] = {}

    def serve(self, servers: Iterable[str]) -> None:
        """Set the view's servers. The names of remaining servers do not change."""
        self.servers = tuple(servers)
        self._labels = {uri_label(server): server for server in self.servers}

    def publish(self, server: str, names: Iterable[str]) -> Mapping[str, str]:
        """Public names, by own name, of what `server` lists now. A name that is taken by another tool is left out."""
        published: dict[str, str] = {}
        for name in names:
            public = self.name(server, name)
            if self._prefix and split_name(public) is None:
                taken_by = self._hashed.setdefault(public, (server, name))
                if taken_by != (server, name):
                    continue
            published[name] = public
        return published

    def name(self, server: str, name: str) -> str:
        """The public name of a tool or prompt of `server`."""
        return public_name(server, name, limit=self._limit) if self._prefix else name

    def resolve(self, public: str) -> tuple[str, str] | None:
        """Server and own name; None if no server of the view can have listed it."""
        if not self._prefix:
            return self.servers[0], public
        if (known := self._hashed.get(public)) is not None:
            return known
        found = split_name(public)
        if found is None or found[0] not in self.servers:
            return None
        # A name that this function never creates, such as one that should have been hashed, belongs to no server.
        return found if self.name(*found) == public else None

    def uri(self, server: str, uri: str) -> str:
        """The public URI, or URI template, of `server`'s own."""
        return public_uri(server, uri) if self._prefix else uri

    def resolve_uri(self, public: str) -> tuple[str, str] | None:
        """Server and own URI; None if the text names no server of the view."""
        if not self._prefix:
            return self.servers[0], public
        found = split_uri(public)
        if found is None or found[0] not in self._labels:
            return None
        return self._labels[found[0]], found[1]


def _hashed(joined: str, digest: str, limit: int) -> str:
    readable = _ILLEGAL.sub("_", joined).strip("_-") or "tool"
    return f"{readable[: limit - HASH_LENGTH - 2]}-x{digest}"


def _digest(server: str, name: str) -> str:
    # Lengths first: without them ("ab", "c") and ("a", "bc") would be one text. Python strings may contain half a
    # surrogate pair, and some server will send one.
    text = f"{len(server)}:{server}{name}".encode("utf-8", "surrogatepass")
    return b32encode(hashlib.sha256(text).digest()).decode("ascii").lower()[:HASH_LENGTH]
