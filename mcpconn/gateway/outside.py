"""The gateway's other paths: health, metrics and the status page at `/dashboard`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.responses import RedirectResponse
from starlette.types import Receive, Scope, Send

from mcpconn.asgi import Access
from mcpconn.asgi.app import StatusApp
from mcpconn.errors import ConfigError
from mcpconn.gateway.secret_files import read_secret
from mcpconn.gateway.sections import BOOL, STRING, Kind, Section
from mcpconn.gateway.store import Store
from mcpconn.manager import Manager

DASHBOARD = "/dashboard"
PLAIN = ("/healthz", "/readyz", "/metrics")
KEYS = ("read_key_file", "act_key_file", "actions")
KEY_FILE = Kind(STRING.fits, "must be the path of a file that holds the key").or_null()
OTHER_KEYS = "the store holds what was not sealed with the keys of this process: give all the same sealing keys"


class Outside:
    """Answers requests to paths that are not endpoints."""

    def __init__(
        self, manager: Manager, access: Access, metrics: Callable[[], tuple[bytes, str]], store: Store
    ) -> None:
        """
        Args:
            manager: Whose connections are shown.
            access: Who may look, and who may act.
            metrics: Renders `/metrics`.
            store: Named as degraded while it cannot be reached, or cannot be trusted with everything.
        """

        def degraded() -> dict[str, str]:
            why = store.standing.degraded
            found = {} if why is None else {"store": why}
            return {**found, "keys": OTHER_KEYS} if store.standing.other_keys else found

        self.status = StatusApp(manager, access=access, metrics=metrics, degraded=degraded)

    def takes(self, path: str) -> bool:
        """Whether a path, counted from where the gateway is mounted, is one of these."""
        return path in PLAIN or path == DASHBOARD or path.startswith(f"{DASHBOARD}/")

    async def __call__(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        root = scope.get("root_path", "")
        if path in PLAIN:
            await self.status(scope, receive, send)
        elif path == DASHBOARD:
            # The page's links are relative to a folder.
            await RedirectResponse(f"{root}{DASHBOARD}/", 307)(scope, receive, send)
        else:
            await self.status({**scope, "root_path": f"{root}{DASHBOARD}"}, receive, send)


def parse_dashboard(section: Any, *, folder: Path) -> Access:
    """Who may look at the dashboard, from the `dashboard` part of the `gateway` section.

    Args:
        section: Its value; None if there is none: clients on this machine alone.
        folder: Relative paths begin here.

    Raises:
        ConfigError: names the key and the fix.
    """
    if section is None:
        return Access()
    given = Section("gateway.dashboard", section, KEYS)
    keys = {name: _key(given, f"{name}_file", folder) for name in ("read_key", "act_key")}
    try:
        return Access(**keys, allow_actions=given.get("actions", BOOL, True))
    except ValueError as error:
        raise ConfigError(f"gateway.dashboard: {error}", key="dashboard") from None


def _key(given: Section, key: str, folder: Path) -> str | None:
    path = given.get(key, KEY_FILE)
    return None if path is None else read_secret(path, where=f"{given.where}.{key}", key=key, folder=folder)
