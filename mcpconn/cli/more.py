"""The commands that ask for more than tools: resources, prompts, ping, login, discover."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from mcpconn.cli import asking, completion
from mcpconn.cli import pictures as pictures
from mcpconn.cli.app import app as app
from mcpconn.cli.arguments import texts_of
from mcpconn.cli.failures import FAILED, USAGE, CliError
from mcpconn.cli.options import AsJson, Config, Debug, Servers, Timeout, Wait
from mcpconn.cli.output import one_line, print_json, say
from mcpconn.cli.rows import Column, Rows
from mcpconn.cli.shell import run
from mcpconn.cli.targets import server_of, servers_of
from mcpconn.connection import Connection
from mcpconn.login import state_directory

T = TypeVar("T")
Words = Annotated[list[str], typer.Argument(metavar="[FILE] SERVER WHAT...", autocompletion=completion.server)]


def listing(name: str, what: str, ask: Callable[[Connection], Awaitable[T]], show: Callable[..., None]) -> None:
    """Add a command that asks servers, all of them at once, and prints what they say.

    Args:
        name: Of the command.
        what: What it does, for its help.
        ask: Asks one server.
        show: Prints what was found, by server; with `as_json` as JSON.
    """

    @app.command(name, help=what)
    def command(
        servers: Servers = None,
        config: Config = None,
        timeout: Timeout = None,
        wait: Wait = 0.0,
        as_json: AsJson = False,
        debug: Debug = False,
    ) -> None:
        found, status = run(asking.of_each, servers_of(servers or [], config), ask, timeout=timeout, wait=wait)
        show(found, as_json=as_json)
        raise typer.Exit(status)


listing(
    "resources",
    "List the resources of servers, and the templates of resources.",
    asking.resources,
    asking.print_resources,
)


@app.command()
def read(
    words: Words,
    config: Config = None,
    timeout: Timeout = None,
    wait: Wait = 0.0,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Read a resource: SERVER URI."""
    name, server, (uri, *_) = server_of(words, config, least=1, example="read docs file:///readme.md")
    found, status = run(
        asking.of_each, {name: server}, lambda connection: connection.read_resource(uri), timeout=timeout, wait=wait
    )
    for result in found.values():
        asking.print_contents(result, as_json=as_json)
    raise typer.Exit(status)


listing("prompts", "List the prompts of servers, with their arguments.", asking.prompts, asking.print_prompts)


@app.command()
def prompt(
    words: Words,
    config: Config = None,
    timeout: Timeout = None,
    wait: Wait = 0.0,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Get a prompt: SERVER NAME [KEY=VALUE]..."""
    name, server, (asked, *arguments) = server_of(words, config, least=1, example="prompt docs summary topic=tea")
    given = texts_of(arguments)
    found, status = run(
        asking.of_each,
        {name: server},
        lambda connection: connection.get_prompt(asked, given or None),
        timeout=timeout,
        wait=wait,
    )
    for result in found.values():
        asking.print_messages(result, as_json=as_json)
    raise typer.Exit(status)


listing("ping", "Connect, and measure the time of one round trip.", asking.ping, asking.print_pings)


@app.command()
def login(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[FILE] SERVER", help="A server's name, or its address.", autocompletion=completion.server
        ),
    ],
    config: Config = None,
    timeout: Annotated[
        float, typer.Option("--timeout", min=1, metavar="SECONDS", help="Time limit for the login.")
    ] = 300.0,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the URL instead of opening a browser.")
    ] = False,
    forget: Annotated[bool, typer.Option("--forget", help="Delete the stored login.")] = False,
    store: Annotated[
        str | None,
        typer.Option(
            "--store", metavar="URL", envvar="MCPCONN_STORE", help="Log in for a gateway with this store in Redis."
        ),
    ] = None,
    sealing_keys: Annotated[
        Path | None, typer.Option("--sealing-keys", help="That gateway's sealing keys.  [default: `keys` of serve]")
    ] = None,
    debug: Debug = False,
) -> None:
    """Log in at a server by OAuth, with a browser. All your programs with its entry use the login."""
    from mcpconn.cli.login import log_in
    from mcpconn.cli.login_places import GatewayStore

    name, chosen, rest = server_of(words, config, least=0, example="login shop")
    if rest:
        raise CliError(f"log in at one server at a time: {name}, or {rest[0]}", USAGE)
    keys = sealing_keys or state_directory() / "keys"
    place = GatewayStore(store, keys) if store is not None else None
    raise typer.Exit(run(log_in, name, chosen, timeout=timeout, browser=not no_browser, forget=forget, store=place))


@app.command()
def discover(as_json: AsJson = False, debug: Debug = False) -> None:
    """Find the configuration files of editors and other hosts on this machine, without starting a server."""
    from mcpconn.cli.discover import discover as find

    found = find(Path.cwd(), Path.home())
    if as_json:
        print_json([each.as_json() for each in found])
        raise typer.Exit
    if not found:
        say("no configuration files of known hosts are here, or in your home directory")
        raise typer.Exit(FAILED)
    names = [", ".join(each.servers) or "no servers" for each in found]
    rows = Rows(
        Column("host", max(len(each.host) for each in found), whole=True),
        Column("file", max(len(str(each.path)) for each in found), whole=True),
        Column("servers", 16),
    )
    for each, servers in zip(found, names, strict=True):
        rows.add(each.host, str(each.path), one_line(each.why or servers))
