"""The common frame of all commands: one line for an error, an exit status, and the log lines of `--debug`."""

from __future__ import annotations

import asyncio
import logging
import sys
import traceback
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, NoReturn, TypeVar

import anyio
import typer
import typer.core

from mcpconn.cli.failures import INTERRUPTED, UNREAD, USAGE, describe, leaf
from mcpconn.cli.hiding import HidingFormatter, forget, hide
from mcpconn.cli.output import complain, discard, paused, prepare_streams
from mcpconn.cli.signals import Ended, until_ended
from mcpconn.cli.targets import ad_hoc
from mcpconn.version import __version__

T = TypeVar("T")


class Shell(typer.core.TyperGroup):
    """Always ends with one line and an exit status."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Any:
        """Run a command. Completion and help are typer's."""
        _quiet()
        prepare_streams()
        args = list(sys.argv[1:] if args is None else args)
        # What follows `--` is a server's command line, with options of its own.
        ad_hoc.command = args[args.index("--") + 1 :] if "--" in args else None
        args = args[: args.index("--")] if "--" in args else args
        _Debug.on = False
        forget()
        options["standalone_mode"] = False
        try:
            status = super().main(args, *rest, **options)
            # Here and not at the interpreter's exit, so that what cannot be written is one line, too.
            sys.stdout.flush()
        except Exception as error:
            if isinstance(leaf(error), BrokenPipeError):
                _leave()
            if _Debug.on:
                # Written here because the interpreter's own output would show secrets.
                sys.stderr.write(hide("".join(traceback.format_exception(error))))
            status = _complain(error)
        except SystemExit as end:
            # typer's way to end at a closed pipe, with status 1.
            if isinstance(end.__context__, BrokenPipeError):
                _leave()
            raise
        except Ended as signal:
            # As shells do for a process that a signal has ended.
            status = 128 + signal.number
        except KeyboardInterrupt:
            status = INTERRUPTED
        sys.exit(status if isinstance(status, int) else 0)


class _Debug:
    on = False


def _leave() -> NoReturn:
    """End because nobody reads the output any more, as in `mcpconn tools | head -1`: that is not a failure."""
    discard(sys.stdout)
    sys.exit(UNREAD)


def _complain(error: Exception) -> int:
    # Errors of usage are typer's own, and the classes are where its version keeps them.
    format_message, context = getattr(error, "format_message", None), getattr(error, "ctx", None)
    if callable(format_message) and type(error).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(format_message() + "\n")
        return USAGE
    if callable(format_message):
        path = getattr(context, "command_path", "mcpconn")
        message = format_message().rstrip(".")
        complain(f"{message}{'' if message.endswith('?') else ';'} see {path} --help")
        return int(getattr(error, "exit_code", USAGE))
    if type(error).__name__ == "Abort":
        return INTERRUPTED
    message, status = describe(error)
    complain(message)
    return status


def _quiet() -> None:
    """Suppress log lines between the lines of a command, because the commands report the same information."""
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(logging.NullHandler())


# At run time it takes no type argument before Python 3.11.
class _Handler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes log lines above the line that changes while a command waits."""

    def emit(self, record: logging.LogRecord) -> None:
        with paused():
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """The output is closed. The base class would show the record's arguments, which may be secret."""


def debugging(value: bool) -> bool:
    """`--debug`: log lines, and a traceback if something fails."""
    if value:
        _Debug.on = True
        handler = _Handler(sys.stderr)
        handler.setFormatter(HidingFormatter("%(levelname)s %(name)s %(message)s"))
        logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
        logging.getLogger("mcpconn").setLevel(logging.DEBUG)
        logging.getLogger("transitions").setLevel(logging.WARNING)
    return value


def show_version(value: bool) -> None:
    """`--version`."""
    if value:
        sys.stdout.write(f"mcpconn {__version__}\n")
        raise typer.Exit


def run(function: Callable[..., Awaitable[T]], *args: Any, **options: Any) -> T:
    """Run an async function to its end; a signal ends it early.

    Raises:
        Ended: by a signal.
        KeyboardInterrupt: by Ctrl-C.
        Exception: as the function.
    """
    try:
        return anyio.run(until_ended, partial(function, *args, **options))
    except asyncio.CancelledError as error:
        # On Python 3.10, what ends an interrupted loop is the cancellation itself.
        raise KeyboardInterrupt from error
