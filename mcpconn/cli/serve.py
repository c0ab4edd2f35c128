"""`mcpconn serve`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import anyio

from mcpconn.cli.failures import USAGE, CliError
from mcpconn.cli.output import say
from mcpconn.login import state_directory


def serve(
    path: Path,
    *,
    listen: str,
    stdio: bool,
    view: str,
    state: Path | None,
    show_config: bool,
    allow_anonymous: bool,
    public_url: str | None = None,
    allowed_hosts: tuple[str, ...] = (),
    sealing_keys: Path | None = None,
    fleet: str | None = None,
    fleet_networks: tuple[str, ...] = (),
    store: str | None = None,
    store_may_lose: bool = False,
    uvloop: bool = False,
) -> None:
    """Run the gateway until it is stopped.

    Raises:
        CliError: uvicorn or uvloop is missing, the view does not exist, or the address would be open to everybody.
        ConfigError: the file, the key, the store or the address cannot be used.
    """
    try:
        from mcpconn.gateway import serve as gateway
        from mcpconn.gateway.http.activation import passed_socket
        from mcpconn.gateway.over_stdio import serve_stdio
    except ModuleNotFoundError as error:
        how = f"pip install '.[gateway]' in a clone of mcpconn, or pip install {error.name}"
        raise CliError(f"serve needs {error.name}: {how}") from None
    if uvloop and find_spec("uvloop") is None:
        raise CliError("--uvloop needs uvloop: pip install '.[uvloop]' in a clone of mcpconn, or pip install uvloop")
    loop = {"use_uvloop": uvloop}
    passed = None if stdio or show_config else passed_socket()
    # The access rules depend on the actual address of the socket, not on --listen.
    where = gateway.Listen.parse(listen) if passed is None else gateway.Listen.of(passed)
    if show_config:
        say(gateway.print_config("gateway", gateway.own_command(path, view), where.url(where.port)))
        return
    if stdio and fleet is not None:
        raise CliError("--fleet is for clients over HTTP; over --stdio there is one client and one process", USAGE)
    notes: list[str] = []
    app = gateway.make_app(
        path,
        gateway.Storage(state or state_directory(), sealing_keys, store, store_may_lose),
        one_person=stdio or where.is_loopback,
        say=notes.append if stdio else say,
        public_url=public_url,
        allowed_hosts=allowed_hosts,
        fleet=gateway.fleet_settings(fleet, fleet_networks),
        alone=stdio,
    )
    asks = app.settings.access.asks
    if not stdio and not where.is_loopback and not asks and not allow_anonymous:
        raise CliError(
            f"{where.host}:{where.port}: everybody who reaches it could use your servers. Ask for keys "
            "(`gateway.access` in the file), listen on 127.0.0.1, or say --allow-anonymous",
            USAGE,
        )
    if view and view not in app.settings.views:
        known = ", ".join(sorted(name for name in app.settings.views if name)) or "none"
        raise CliError(f"there is no view {view!r} in {path}; known: {known}", USAGE)
    if stdio:
        anyio.run(serve_stdio, app, view, backend_options=loop)
        return
    accepting = passed or gateway.listening_socket(where)
    url = where.url(accepting.getsockname()[1])

    def ready() -> None:
        if app.fleet is not None:
            say(f"one of several replicas: the others reach this one at {app.fleet.address}")
        say(f"serving {len(app.servers)} servers at {url}")
        for name in sorted(each for each in app.settings.views if each):
            say(f"  view {name}: {url}/{name}")
        if (degraded := app.store.standing.degraded) is not None:
            say(f"degraded: store: {degraded}")
        if asks:
            say("clients need a key or a token")
        elif where.is_loopback:
            say("anonymous clients are one person here: modern ones share what a server keeps per session")
        say("add it to your editor: mcpconn serve --print-config")

    anyio.run(lambda: gateway.serve_http(app, accepting, path=path, ready=ready, say=say), backend_options=loop)
