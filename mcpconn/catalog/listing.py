"""Reads one list of a server, page by page, and defines the kinds of lists."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import mcp_types as types
from mcp.client.subscriptions import PromptsListChanged, ResourcesListChanged, ToolsListChanged
from pydantic import BaseModel, ValidationError

from mcpconn.wire.misfits import fault_of

KINDS = ("tools", "resources", "templates", "prompts")
"""The lists that a server can have."""
PAGES = 100
"""Maximum number of pages of one listing. A server whose paging never ends must not hang its client."""

LISTS = {
    "tools": ("tools/list", "list_tools"),
    "resources": ("resources/list", "list_resources"),
    "templates": ("resources/templates/list", "list_resource_templates"),
    "prompts": ("prompts/list", "list_prompts"),
}
"""For each kind the JSON-RPC method that lists a page, and the method of `mcp.Client` for it."""

_FORMS: dict[str, tuple[str, type[BaseModel], type[BaseModel]]] = {
    "tools": ("tools", types.Tool, types.ListToolsResult),
    "resources": ("resources", types.Resource, types.ListResourcesResult),
    "templates": ("resourceTemplates", types.ResourceTemplate, types.ListResourceTemplatesResult),
    "prompts": ("prompts", types.Prompt, types.ListPromptsResult),
}
"""For each kind the member of a page that has the entries, their form, and the form of the page."""

MEMBERS = {kind: member for kind, (member, _, _) in _FORMS.items()}
"""For each kind the member of a page that has the entries."""

_EVENTS: dict[type[Any], tuple[str, ...]] = {
    types.ToolListChangedNotification: ("tools",),
    types.ResourceListChangedNotification: ("resources", "templates"),
    types.PromptListChangedNotification: ("prompts",),
    ToolsListChanged: ("tools",),
    ResourcesListChanged: ("resources", "templates"),
    PromptsListChanged: ("prompts",),
}
"""Notifications of the legacy era and events of the modern one, with the lists whose change they announce."""


class Listing(NamedTuple):
    """The entries of one kind that a server listed."""

    entries: dict[str, Any]
    """By name; resources by URI, templates by URI template."""
    complete: bool
    """Whether the last page was read. False if the paging was circular or did not end within `PAGES`."""


NOTHING = Listing({}, True)
"""The server has no such list."""


async def collect(fetch: Callable[[str | None], Awaitable[Any]], kind: str) -> Listing:
    """Read all pages of one list.

    A repeated cursor ends the reading, because the server would send the same pages indefinitely.

    Args:
        fetch: Lists one page; takes the cursor, None for the first page.
        kind: One of `KINDS`.
    """
    entries: dict[str, Any] = {}
    cursors: set[str] = set()
    cursor: str | None = None
    for _ in range(PAGES):
        page = await fetch(cursor)
        entries.update(keyed(kind, page))
        cursor = page.next_cursor
        # Some servers send an empty cursor with the last page, which is not a valid cursor.
        if not cursor:
            return Listing(entries, True)
        if cursor in cursors:
            break
        cursors.add(cursor)
    return Listing(entries, False)


def keyed(kind: str, page: Any) -> dict[str, Any]:
    """The entries of one page."""
    if kind == "tools":
        return {tool.name: tool for tool in page.tools}
    if kind == "resources":
        return {str(resource.uri): resource for resource in page.resources}
    if kind == "templates":
        return {template.uri_template: template for template in page.resource_templates}
    return {prompt.name: prompt for prompt in page.prompts}


def without_misfits(kind: str, page: Mapping[str, Any]) -> tuple[BaseModel | None, dict[int, str]]:
    """A page without the entries that do not have the form that the protocol requires.

    Args:
        kind: One of `KINDS`.
        page: The result as the server sent it.

    Returns:
        The page, or None if something else is wrong with it; and what is wrong with entries, by their number from 0.
    """
    member, form, whole = _FORMS[kind]
    entries = page.get(member)
    if not isinstance(entries, list):
        return None, {}
    good, wrong = [], {}
    for number, entry in enumerate(entries):
        try:
            form.model_validate(entry, by_name=False)
        except ValidationError as error:
            wrong[number] = fault_of(error)
        else:
            good.append(entry)
    try:
        return whole.model_validate({**page, member: good}, by_name=False), wrong
    except ValidationError:
        return None, wrong


def changed_kinds(message: Any) -> tuple[str, ...]:
    """The lists whose change a notification announces; none for any other message."""
    return _EVENTS.get(type(message), ())


def advertised(capabilities: types.ServerCapabilities | None) -> frozenset[str]:
    """The lists that a server declares."""
    offers = _offers(capabilities)
    return frozenset(kind for kind in KINDS if offers[kind] is not None)


def changing(capabilities: types.ServerCapabilities | None) -> frozenset[str]:
    """The lists whose changes a server announces (`listChanged`)."""
    offers = _offers(capabilities)
    return frozenset(kind for kind in KINDS if (offer := offers[kind]) is not None and offer.list_changed)


def subscription(capabilities: types.ServerCapabilities | None) -> dict[str, bool]:
    """The arguments of `listen` for those lists."""
    kinds = changing(capabilities)
    return {f"{kind}_list_changed": kind in kinds for kind in ("tools", "resources", "prompts")}


def _offers(capabilities: types.ServerCapabilities | None) -> Mapping[str, Any]:
    if capabilities is None:
        return dict.fromkeys(KINDS)
    return {
        "tools": capabilities.tools,
        "resources": capabilities.resources,
        "templates": capabilities.resources,
        "prompts": capabilities.prompts,
    }
