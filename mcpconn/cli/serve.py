"""`mcpconn serve`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import anyio

from mcpconn.cli.failures import USAGE, CliError
from mcpconn.cli.output import say
from mcpconn.login import state_directory


@dataclass(frozen=True)
class ServeOptions:
    """The options of `mcpconn serve`. Its help says what each does."""

    listen: str
    stdio: bool = False
    view: str = ""
    state: Path | None = None
    print_config: bool = False
    allow_anonymous: bool = False
    public_url: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    sealing_keys: Path | None = None
    fleet: str | None = None
    fleet_networks: tuple[str, ...] = ()
    store: str | None = None
    store_may_lose: bool = False
    uvloop: bool = False


def serve(path: Path, options: ServeOptions) -> None:
    """Run the gateway of a configuration file until it is stopped.

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
    if options.uvloop and find_spec("uvloop") is None:
        raise CliError("--uvloop needs uvloop: pip install '.[uvloop]' in a clone of mcpconn, or pip install uvloop")
    loop = {"use_uvloop": options.uvloop}
    passed = None if options.stdio or options.print_config else passed_socket()
    # The access rules depend on the actual address of the socket, not on --listen.
    where = gateway.Listen.parse(options.listen) if passed is None else gateway.Listen.of(passed)
    if options.print_config:
        say(gateway.print_config("gateway", gateway.own_command(path, options.view), where.url(where.port)))
        return
    if options.stdio and options.fleet is not None:
        raise CliError("--fleet is for clients over HTTP; over --stdio there is one client and one process", USAGE)
    notes: list[str] = []
    app = gateway.make_app(
        path,
        gateway.Storage(
            options.state or state_directory(), options.sealing_keys, options.store, options.store_may_lose
        ),
        one_person=options.stdio or where.is_loopback,
        say=notes.append if options.stdio else say,
        public_url=options.public_url,
        allowed_hosts=options.allowed_hosts,
        fleet=gateway.fleet_settings(options.fleet, options.fleet_networks),
        alone=options.stdio,
    )
    asks = app.settings.access.asks
    if not (options.stdio or where.is_loopback or asks or options.allow_anonymous):
        raise CliError(
            f"{where.host}:{where.port}: anyone who can reach it could use your servers. Require keys "
            "(`gateway.access` in the file), listen on 127.0.0.1, or say --allow-anonymous",
            USAGE,
        )
    if options.view and options.view not in app.settings.views:
        known = ", ".join(sorted(name for name in app.settings.views if name)) or "none"
        raise CliError(f"there is no view {options.view!r} in {path}; known: {known}", USAGE)
    if options.stdio:
        anyio.run(serve_stdio, app, options.view, backend_options=loop)
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
            say("all anonymous clients count as one user: modern clients share the state of a server's session")
        say("add it to your editor: mcpconn serve --print-config")

    anyio.run(lambda: gateway.serve_http(app, accepting, path=path, ready=ready, say=say), backend_options=loop)
