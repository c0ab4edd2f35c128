"""The rights of a principal: servers, tools and views, rate and concurrency."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from mcpconn.gateway.principals import Principal

RIGHTS_KEY = "mcpconn.rights"
"""Where the gate leaves a request's rights in its ASGI scope."""


@dataclass(frozen=True, kw_only=True)
class Rights:
    """One rule of the configuration, and what it grants. Of several that fit a principal, the first counts."""

    who: tuple[str, ...] = ("*",)
    """Names of keys (`key:ci`), subjects of tokens (`alice`), or `scope:NAME`; `*` stands for any text."""
    views: tuple[str, ...] = ("*",)
    """Views it may connect to; the one of everything is called ``."""
    servers: tuple[str, ...] = ("*",)
    allow: tuple[str, ...] = ("*",)
    """Tools, as `server/tool`."""
    deny: tuple[str, ...] = ()
    """Tools it may not use; this overrides `allow`."""
    rate: float | None = None
    """Requests a second in the long run; None: any number."""
    burst: int = 20
    """Requests at once after a pause, with a `rate`."""
    concurrent: int | None = None
    """Requests in flight at once; None: any number."""

    @property
    def limited(self) -> bool:
        """Whether requests are counted."""
        return self.rate is not None or self.concurrent is not None

    @property
    def every_tool(self) -> bool:
        """Whether all tools of its servers may be used."""
        return self.allow == ("*",) and not self.deny

    def fits(self, principal: Principal, scopes: Iterable[str]) -> bool:
        """Whether the rule is about this principal."""
        names = [str(principal), principal.client, *(f"scope:{each}" for each in scopes)]
        return any(fnmatchcase(name, pattern) for name in names if name for pattern in self.who)

    def server(self, server: str) -> bool:
        """Whether anything of a server may be seen."""
        return _any(self.servers, server)

    def tool(self, server: str, tool: str) -> bool:
        """Whether a tool may be seen and called."""
        name = f"{server}/{tool}"
        return self.server(server) and _any(self.allow, name) and not _any(self.deny, name)

    def view(self, view: str) -> bool:
        """Whether a view may be connected to."""
        return _any(self.views, view)


EVERYTHING = Rights()


def rights_of(scope: Mapping[str, Any]) -> Rights:
    """The rights of an HTTP request; all rights if requests are not authenticated."""
    found: Rights = scope.get(RIGHTS_KEY, EVERYTHING)
    return found


def _any(patterns: tuple[str, ...], text: str) -> bool:
    return any(pattern == "*" or fnmatchcase(text, pattern) for pattern in patterns)
