"""The commands and their options. The other modules of this package implement them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from mcpconn.cli import completion
from mcpconn.cli import config as configuration
from mcpconn.cli.arguments import arguments_of
from mcpconn.cli.call import call as call_once
from mcpconn.cli.connect import Checked
from mcpconn.cli.connect import check as check_all
from mcpconn.cli.failures import FAILED, USAGE, CliError
from mcpconn.cli.options import AsJson, Config, Debug, Servers, Timeout, Wait
from mcpconn.cli.output import complain, print_json
from mcpconn.cli.shell import Shell, run, show_version
from mcpconn.cli.tables import CheckTable, print_tools
from mcpconn.cli.targets import file_and_words, server_of, servers_of
from mcpconn.cli.watch import attached, own
from mcpconn.cli.watch import watch as watch_all

app = typer.Typer(
    cls=Shell,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Connects to MCP servers and reports their state truthfully.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Connects to MCP servers and reports their state truthfully."""


@app.command()
def serve(
    file: Annotated[Path | None, typer.Argument(help="The configuration file, such as mcp.json.")] = None,
    listen: Annotated[str, typer.Option(help="Host and port; port 0 takes a free one.")] = "127.0.0.1:9000",
    stdio: Annotated[bool, typer.Option("--stdio", help="Serve one client over stdin and stdout.")] = False,
    view: Annotated[str, typer.Option(help="The view to serve over stdio.")] = "",
    state: Annotated[
        Path | None, typer.Option(help="Directory of the store and the sealing key.", show_default=False)
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Show how to add the gateway to an editor, and exit.")
    ] = False,
    allow_anonymous: Annotated[
        bool, typer.Option("--allow-anonymous", help="Accept all clients that can reach the address.")
    ] = False,
    public_url: Annotated[
        str | None, typer.Option("--public-url", help="The address that clients use, such as https://mcp.example.com.")
    ] = None,
    allowed_host: Annotated[
        list[str] | None, typer.Option("--allowed-host", help="A host name that clients may use.")
    ] = None,
    sealing_keys: Annotated[
        Path | None, typer.Option("--sealing-keys", help="File of sealing keys.  [default: one is kept in --state]")
    ] = None,
    fleet: Annotated[
        str | None, typer.Option(help="Run as one of several replicas: this machine's IP and a port for the others.")
    ] = None,
    fleet_network: Annotated[
        list[str] | None, typer.Option("--fleet-network", help="A network that replicas are in, such as 10.0.0.0/8.")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            envvar="MCPCONN_STORE",
            help="Where replicas share their state, such as rediss://HOST:6379.  [default: a file in --state]",
        ),
    ] = None,
    store_may_lose: Annotated[
        bool, typer.Option("--store-may-lose", help="Use the store even if it evicts or does not persist.")
    ] = False,
    uvloop: Annotated[
        bool, typer.Option("--uvloop", help="Run on uvloop, which takes less processor time for each call.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Serve all servers in a file at one MCP endpoint that survives their failures."""
    from mcpconn.cli.serve import ServeOptions
    from mcpconn.cli.serve import serve as serve_all

    given = ServeOptions(
        listen=listen,
        stdio=stdio,
        view=view,
        state=state,
        print_config=print_config,
        allow_anonymous=allow_anonymous,
        public_url=public_url,
        allowed_hosts=tuple(allowed_host or ()),
        sealing_keys=sealing_keys,
        fleet=fleet,
        fleet_networks=tuple(fleet_network or ()),
        store=store,
        store_may_lose=store_may_lose,
        uvloop=uvloop,
    )
    serve_all(configuration.path_of(file), given)


key = typer.Typer(cls=Shell, no_args_is_help=True, rich_markup_mode=None, help="Keys for clients of the gateway.")
app.add_typer(key, name="key")


@key.command("add")
def key_add(name: Annotated[str, typer.Argument(help="The holder of the key.")], config: Config = None) -> None:
    """Create a key. It is printed once and not stored."""
    from mcpconn.cli.keys import add

    add(configuration.path_of(config), name)


@key.command("list")
def key_list(config: Config = None) -> None:
    """List the names of all keys."""
    from mcpconn.cli.keys import names

    names(configuration.path_of(config))


@key.command("remove")
def key_remove(name: Annotated[str, typer.Argument(help="The holder of the key.")], config: Config = None) -> None:
    """Revoke a key. A running gateway refuses it within a second and ends its streams."""
    from mcpconn.cli.keys import remove

    remove(configuration.path_of(config), name)


@app.command()
def check(
    servers: Servers = None,
    config: Config = None,
    timeout: Timeout = None,
    wait: Wait = 0.0,
    strict: Annotated[bool, typer.Option("--strict", help="Reject the whole file if one entry is invalid.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Connect to every server and report the result.

    Exit status: 0 all are ready; 1 one failed, or its entry is invalid; 2 the file is invalid.
    """
    chosen = servers_of(servers or [], config, strict=strict)
    configuration.say_notes(chosen)
    table = CheckTable(chosen)
    known = {name: Checked(name, each, "connecting") for name, each in chosen.items()}

    def done(result: Checked) -> None:
        known[result.name] = result
        if not as_json:
            table.add(result)

    try:
        run(check_all, chosen, timeout=timeout, wait=wait, done=done)
    except KeyboardInterrupt:
        # Show the results that are already known.
        if any(result.finished for result in known.values()):
            _report_checks(known, table, as_json=as_json)
        raise
    completion.remember(known.values())
    raise typer.Exit(_report_checks(known, table, as_json=as_json))


def _report_checks(known: Mapping[str, Checked], table: CheckTable, *, as_json: bool) -> int:
    failed = [result for result in known.values() if not result.ok]
    whole = all(result.finished for result in known.values())
    if as_json:
        results = {result.name: result.as_json() for result in known.values()}
        print_json({"ok": whole and not failed, "servers": results})
        return FAILED if failed else 0
    for result in known.values():
        if not result.finished:
            table.add(result)
    table.finish(known.values())
    return FAILED if failed else 0


@app.command()
def tools(
    servers: Servers = None,
    config: Config = None,
    timeout: Timeout = None,
    wait: Wait = 0.0,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List the tools of the servers, with their arguments.

    Exit status: 0 all answered; 1 one failed.
    """
    chosen = servers_of(servers or [], config)
    results = run(check_all, chosen, timeout=timeout, wait=wait)
    completion.remember(results)
    if as_json:
        dumped = {
            each.name: [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in each.tools or []]
            for each in results
            if each.ok
        }
        print_json(dumped)
    else:
        print_tools(results)
    failed = [each for each in results if not each.ok]
    for each in failed:
        complain(f"{each.name}: {each.why}; {each.fix}" if each.fix else f"{each.name}: {each.why}")
    raise typer.Exit(FAILED if failed else 0)


@app.command()
def call(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[FILE] SERVER TOOL [ARGUMENT]...",
            help="KEY=VALUE, a JSON object, @FILE, or - for standard input. The server is a name or an address; it is"
            " left out before a command after --.",
            autocompletion=completion.call,
        ),
    ],
    config: Config = None,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.001, metavar="SECONDS", help="Time limit of the whole call.")
    ] = 60.0,
    wait: Wait = 0.0,
    idempotent: Annotated[
        bool, typer.Option("--idempotent", help="Running the tool twice is harmless: retry if there is no answer.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Do not show progress or the server's log.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Call a tool and print its result. The server's log and progress go to standard error.

    Exit status: 0 the tool answered; 1 it failed; 3 there was no answer, and the tool may have run.
    """
    name, chosen, (tool, *arguments) = server_of(words, config, least=1, example="call shop buy item=pen")
    status = run(
        call_once,
        name,
        chosen,
        tool,
        arguments_of(arguments),
        timeout=timeout,
        wait=wait,
        idempotent=True if idempotent else None,
        quiet=quiet,
        as_json=as_json,
    )
    raise typer.Exit(status)


@app.command()
def watch(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE] [SERVER]...", help="Servers to watch.  [default: all]", autocompletion=completion.server
        ),
    ] = None,
    config: Config = None,
    attach: Annotated[
        str | None,
        typer.Option("--attach", metavar="URL", help="Watch a running host: the URL of its status page."),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option("--key-file", help="With --attach: a file with the page's key.  [default: $MCPCONN_KEY]"),
    ] = None,
    probe: Annotated[
        float, typer.Option("--probe", min=0.1, metavar="SECONDS", help="Idle time after which a connection is probed.")
    ] = 5.0,
    duration: Annotated[
        float | None,
        typer.Option("--for", min=0, metavar="SECONDS", help="How long to watch.  [default: until Ctrl-C]"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each transition.")] = False,
    debug: Debug = False,
) -> None:
    """Watch connections live: those of a running host, or new sessions to the servers in a file."""
    if attach is not None:
        if config is not None:
            raise CliError("--attach and --config exclude each other: a host has its own configuration", USAGE)
        source = attached(attach, key_file=key_file, names=tuple(names or ()))
    else:
        config, names = file_and_words(names or (), config)
        path = configuration.path_of(config)
        servers = configuration.load(path)
        chosen = configuration.pick(servers, names) if names else {k: v for k, v in servers.items() if not v.disabled}
        source = own(chosen, path, probe=probe)
    try:
        run(watch_all, source, duration=duration, as_json=as_json)
    except KeyboardInterrupt:
        # Ctrl-C, SIGTERM or SIGHUP end it regularly, not as a failure.
        raise typer.Exit from None


@app.command()
def schema(debug: Debug = False) -> None:
    """Print the JSON Schema of mcp.json, for editors."""
    from mcpconn.schema import file_schema

    print_json(file_schema())


@app.command()
def demo(
    duration: Annotated[
        float | None, typer.Option("--seconds", min=1, metavar="SECONDS", help="How long to run.")
    ] = None,
    log: Annotated[Path | None, typer.Option("--log", help="Write the library's log lines to this file.")] = None,
    debug: Debug = False,
) -> None:
    """Show how calls survive two servers that are broken repeatedly."""
    # Imported here because the other commands do not need it.
    from mcpconn.demo import main

    arguments = [] if duration is None else ["--seconds", f"{duration:g}"]
    raise typer.Exit(main([*arguments, *([] if log is None else ["--log", str(log)])]))
