"""The gateway's other paths: health, metrics and the status page at `/dashboard`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.responses import RedirectResponse
from starlette.types import Receive, Scope, Send

from mcpconn.asgi import Access
from mcpconn.asgi.app import StatusApp
from mcpconn.errors import ConfigError
from mcpconn.gateway.secret_files import read_secret
from mcpconn.gateway.store import Store
from mcpconn.manager import Manager

DASHBOARD = "/dashboard"
PLAIN = ("/healthz", "/readyz", "/metrics")
KEYS = ("read_key_file", "act_key_file", "actions")


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
            return {} if why is None else {"store": why}

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
    if not isinstance(section, Mapping):
        raise ConfigError("gateway.dashboard must be a mapping", key="dashboard")
    for key in section:
        if key not in KEYS:
            raise ConfigError(f"gateway.dashboard: unknown key {key!r}; known: {', '.join(KEYS)}", key=str(key))
    actions = section.get("actions", True)
    if not isinstance(actions, bool):
        raise ConfigError("gateway.dashboard.actions must be true or false", key="actions")
    keys = {name: _key(section.get(f"{name}_file"), f"{name}_file", folder) for name in ("read_key", "act_key")}
    try:
        return Access(**keys, allow_actions=actions)
    except ValueError as error:
        raise ConfigError(f"gateway.dashboard: {error}", key="dashboard") from None


def _key(path: Any, key: str, folder: Path) -> str | None:
    if path is None:
        return None
    if not isinstance(path, str) or not path:
        raise ConfigError(f"gateway.dashboard.{key} must be the path of a file that holds the key", key=key)
    return read_secret(path, where=f"gateway.dashboard.{key}", key=key, folder=folder)
