"""What a server offers - tools, resources, templates, prompts - kept across its sessions.

A host registers tools once. While the connection is away they stay readable, marked as stale; after a
reconnect, and when the server says that a list has changed, they are listed anew and the differences
announced.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

import anyio
import mcp_types as types
from mcp.client.subscriptions import PromptsListChanged, ResourcesListChanged, ToolsListChanged

from mcpconn.runtime.session import Session

KINDS = ("tools", "resources", "templates", "prompts")
PAGES = 100
"""Pages read of one listing. A server whose paging never ends must not hang its client."""
COURTESY = 0.1
"""Seconds that the listing of a new session lets a call go first which has waited for the session."""
CROWD_COURTESY = 1.0
"""Seconds that it lets the dials of other connections go first: a host that starts a hundred is waiting for those."""
DEBOUNCE = 0.2
"""Seconds from a notification to the listing. Servers that load plugins send one for each."""
RELISTEN_MAXIMUM = 60.0
"""Longest wait before a lost event stream is opened again, in seconds; the first is one, doubling."""

_EVENTS: dict[type[Any], tuple[str, ...]] = {
    types.ToolListChangedNotification: ("tools",),
    types.ResourceListChangedNotification: ("resources", "templates"),
    types.PromptListChangedNotification: ("prompts",),
    ToolsListChanged: ("tools",),
    ResourcesListChanged: ("resources", "templates"),
    PromptsListChanged: ("prompts",),
}
"""Notifications of the legacy era and events of the modern one, and what they say has changed."""


@dataclass(frozen=True)
class CatalogChange:
    """What is different from the last listing."""

    server: str
    kind: str
    """`tools`, `resources`, `templates` or `prompts`."""
    added: tuple[str, ...]
    """Names; for resources and templates, URIs."""
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    epoch: int
    """The session that listed them."""


class Lister(Protocol):
    """What the catalogue needs of a connection: its calls, and a task beside them."""

    name: str

    async def list_tools(self, *, cursor: str | None, cache_mode: Any) -> types.ListToolsResult: ...
    async def list_resources(self, *, cursor: str | None, cache_mode: Any) -> types.ListResourcesResult: ...
    async def list_resource_templates(
        self, *, cursor: str | None, cache_mode: Any
    ) -> types.ListResourceTemplatesResult: ...
    async def list_prompts(self, *, cursor: str | None, cache_mode: Any) -> types.ListPromptsResult: ...
    def present(self) -> Session | None: ...
    def spawn(self, task: Callable[[], Any]) -> bool: ...


class Catalog:
    """What one server offers, as its latest session listed it."""

    def __init__(
        self, of: Lister, *, calm: Callable[[], Awaitable[None]], report: Callable[[str, Exception], None]
    ) -> None:
        """
        Args:
            of: Lists what its server offers.
            calm: Returns when no connection of the manager is being opened.
            report: Told when a listener raised.
        """
        self._of = of
        self._calm = calm
        self._report = report
        self._entries: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
        self._dirty: set[str] = set()
        self._debouncing = False
        self._refreshing: anyio.Event | None = None
        self._listeners: list[Callable[[CatalogChange], None]] = []
        self.epoch = 0
        """The session that the entries are from; 0 before the first listing."""

    @property
    def tools(self) -> Mapping[str, types.Tool]:
        """Tools by name."""
        return MappingProxyType(self._entries["tools"])

    @property
    def resources(self) -> Mapping[str, types.Resource]:
        """Resources by URI."""
        return MappingProxyType(self._entries["resources"])

    @property
    def templates(self) -> Mapping[str, types.ResourceTemplate]:
        """Resource templates by URI template."""
        return MappingProxyType(self._entries["templates"])

    @property
    def prompts(self) -> Mapping[str, types.Prompt]:
        """Prompts by name."""
        return MappingProxyType(self._entries["prompts"])

    @property
    def stale(self) -> bool:
        """Whether the entries are an earlier session's, or known to have changed since."""
        session = self._of.present()
        return session is None or session.epoch != self.epoch or bool(self._dirty)

    def subscribe(self, listener: Callable[[CatalogChange], None]) -> Callable[[], None]:
        """Have `listener` called with every difference. Returns its end."""
        self._listeners.append(listener)

        def unsubscribe() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return unsubscribe

    async def safe(self, name: str) -> bool:
        """Whether the tool's annotations say that running it twice does no harm.

        They are hints (specification, tool annotations); a server that lies about them harms itself.
        """
        if name not in self._entries["tools"] and self._refreshing is not None:
            await self._refreshing.wait()
        tool: types.Tool | None = self._entries["tools"].get(name)
        if tool is None or tool.annotations is None:
            return False
        return bool(tool.annotations.read_only_hint or tool.annotations.idempotent_hint)

    # -- listing

    async def attend(self, session: Session, *, busy: bool = False) -> None:
        """Keep the catalogue true for as long as `session` is there: list it, and listen for changes.

        Args:
            session: The present session.
            busy: Calls have waited for it. The first of them goes before the listing.
        """
        await self.refresh(after=partial(self._let_others_go, session, busy))
        if session.link is not None and session.link.era == "modern":
            await self._listen(session)

    async def _let_others_go(self, session: Session, busy: bool) -> None:
        with anyio.move_on_after(CROWD_COURTESY):
            await self._calm()
        if busy:
            with anyio.move_on_after(COURTESY):
                await session.answered.wait()

    async def refresh(
        self, kinds: Sequence[str] = KINDS, *, after: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """List anew what the server advertises, and announce the differences.

        A listing that fails leaves what was known as it was; the connection has dealt with the failure.

        Args:
            kinds: What to list.
            after: Awaited first.
        """
        while self._refreshing is not None:
            await self._refreshing.wait()
            if not self.stale:
                return
        session = self._of.present()
        if session is None or session.link is None:
            return
        self._refreshing = anyio.Event()
        try:
            if after is not None:
                await after()
            advertised = _advertised(session.link.capabilities)
            for kind in kinds:
                self._dirty.discard(kind)
                found = await self._list(kind) if kind in advertised else {}
                self._replace(kind, found, session.epoch)
            self.epoch = session.epoch
        except Exception:
            # Classified, reported and logged by the call itself. The next session will list again.
            self._dirty.update(kinds)
        finally:
            done, self._refreshing = self._refreshing, None
            done.set()

    async def _list(self, kind: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        cursor: str | None = None
        for _ in range(PAGES):
            page: Any
            if kind == "tools":
                page = await self._of.list_tools(cursor=cursor, cache_mode="refresh")
                found.update((tool.name, tool) for tool in page.tools)
            elif kind == "resources":
                page = await self._of.list_resources(cursor=cursor, cache_mode="refresh")
                found.update((str(resource.uri), resource) for resource in page.resources)
            elif kind == "templates":
                page = await self._of.list_resource_templates(cursor=cursor, cache_mode="refresh")
                found.update((template.uri_template, template) for template in page.resource_templates)
            else:
                page = await self._of.list_prompts(cursor=cursor, cache_mode="refresh")
                found.update((prompt.name, prompt) for prompt in page.prompts)
            following = page.next_cursor
            if following is None or following == cursor:
                break
            cursor = following
        return found

    def _replace(self, kind: str, found: dict[str, Any], epoch: int) -> None:
        known = self._entries[kind]
        self._entries[kind] = found
        change = CatalogChange(
            self._of.name,
            kind,
            added=tuple(sorted(found.keys() - known.keys())),
            removed=tuple(sorted(known.keys() - found.keys())),
            changed=tuple(sorted(key for key in found.keys() & known.keys() if found[key] != known[key])),
            epoch=epoch,
        )
        if change.added or change.removed or change.changed:
            for listener in tuple(self._listeners):
                try:
                    listener(change)
                except Exception as error:  # a listener is host code
                    self._report("listener", error)

    # -- being told

    def notice(self, message: Any) -> None:
        """A notification came. If it says that a list has changed, list it soon."""
        kinds = _EVENTS.get(type(message))
        if kinds is None:
            return
        self._dirty.update(kinds)
        if not self._debouncing:
            self._debouncing = self._of.spawn(self._catch_up)

    async def _catch_up(self) -> None:
        try:
            while self._dirty:
                await anyio.sleep(DEBOUNCE)
                session = self._of.present()
                if session is None:
                    return
                await self.refresh([kind for kind in KINDS if kind in self._dirty])
                if self._of.present() is not session:
                    return
        finally:
            self._debouncing = False

    async def _listen(self, session: Session) -> None:
        """Modern era: changes are events on a stream of their own, where the server has any to tell."""
        assert session.link is not None
        wanted = _changing(session.link.capabilities)
        wait = 1.0
        while any(wanted.values()) and self._of.present() is session:
            try:
                async with session.link.client.listen(**wanted) as subscription:
                    wait = 1.0
                    async for event in subscription:
                        self.notice(event)
            except Exception:
                # Lost, or not served after all. What changed meanwhile was not told.
                self._dirty.update(KINDS)
            await anyio.sleep(wait)
            wait = min(wait * 2, RELISTEN_MAXIMUM)
            if self._dirty and self._of.present() is session:
                await self.refresh()


def _advertised(capabilities: types.ServerCapabilities) -> set[str]:
    found = set()
    if capabilities.tools is not None:
        found.add("tools")
    if capabilities.resources is not None:
        found |= {"resources", "templates"}
    if capabilities.prompts is not None:
        found.add("prompts")
    return found


def _changing(capabilities: types.ServerCapabilities) -> dict[str, bool]:
    """The arguments of `listen` for the lists that the server says can change."""
    offers = {
        "tools_list_changed": capabilities.tools,
        "resources_list_changed": capabilities.resources,
        "prompts_list_changed": capabilities.prompts,
    }
    return {name: bool(offer is not None and offer.list_changed) for name, offer in offers.items()}
