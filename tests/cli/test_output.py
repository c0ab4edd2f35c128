"""What is shown of what servers say, and the view of all connections."""

from __future__ import annotations

import io
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
import pytest
from rich.console import Console
from trio.testing import MockClock

from mcpconn import Change, Event, Failure, FailureKind, Manager, Policy, ServerConfig, State
from mcpconn.asgi.rows import news
from mcpconn.cli.call import text_of
from mcpconn.cli.failures import describe, fix
from mcpconn.cli.output import STYLES, clean, seconds
from mcpconn.cli.watch import own, watch
from mcpconn.cli.watch_sources import Own, Row
from mcpconn.cli.watch_view import View, line_of
from mcpconn.core import Delivery
from mcpconn.runtime.clock import Clock
from mcpconn.testing import Script, ScriptTransport

DOCUMENTED = Path(__file__).resolve().parent.parent.parent / "docs_src" / "howto" / "watch.txt"
SERVERS = {"alpha": {"url": "http://alpha/mcp"}, "be[red]ta": {"url": "http://beta/mcp"}}


def test_servers_cannot_command_a_terminal() -> None:
    assert clean("\x1b]0;owned\x07\x1b[2Jplain\ttext\nnext\r\nlast\x9b1m") == "�]0;owned��[2Jplain\ttext\nnext\nlast�1m"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0124, "12 ms"),
        (0.999, "999 ms"),
        (1.04, "1.0 s"),
        (7, "7 s"),
        (119.6, "2:00"),
        (3725, "1:02:05"),
    ],
)
def test_a_duration_is_written_for_people(value: float | None, text: str) -> None:
    assert seconds(value) == text


def test_all_states_and_failures_have_words() -> None:
    assert set(STYLES) == set(State)
    for kind in FailureKind:
        failure = Failure(kind=kind, delivery=Delivery.UNKNOWN, proof=True, summary="x")
        assert fix(failure)


def test_all_kinds_of_content_become_text() -> None:
    blob = types.BlobResourceContents(uri="file:///b", blob="QUJDRA==")
    result = types.CallToolResult(
        content=[
            types.TextContent(type="text", text="words"),
            types.ImageContent(type="image", data="QUJD", mime_type="image/png"),
            types.AudioContent(type="audio", data="QUJD", mime_type="audio/wav"),
            types.ResourceLink(type="resource_link", name="notes", uri="file:///notes"),
            types.EmbeddedResource(
                type="resource", resource=types.TextResourceContents(uri="file:///t", text="inside")
            ),
            types.EmbeddedResource(type="resource", resource=blob),
        ]
    )
    assert text_of(result).splitlines() == [
        "words",
        "[image/png, 3 bytes; --json shows the data]",
        "[audio/wav, 3 bytes; --json shows the data]",
        "[notes: file:///notes]",
        "inside",
        "[file:///b, 6 bytes; --json shows the data]",
    ]


def test_structured_content_is_shown_where_there_is_nothing_else() -> None:
    result = types.CallToolResult(content=[], structured_content={"sum": 3})
    assert json.loads(text_of(result)) == {"sum": 3}


def test_a_fault_of_ours_is_one_line_that_names_the_way_to_see_it() -> None:
    group = Exception("two things went wrong")
    # Python 3.10 has no ExceptionGroup; this is what makes one.
    group.exceptions = (RuntimeError("oops"), ValueError())  # type: ignore[attr-defined]
    message, status = describe(group)
    assert (message, status) == ("RuntimeError: oops; this is a bug in mcpconn; --debug shows where", 1)


# -- watch


def change(number: int, *, server: str = "alpha", failure: Failure | None = None, wait: float | None = None) -> Row:
    lost = Change(server, number, State.READY, Event.LOST, State.RECONNECTING, failure, 1.7e9 + number, 1.0, wait=wait)
    told = news(lost)
    assert told is not None
    return told


def view_of(servers: dict[str, Any]) -> View:
    return View(Own(Manager(servers), "mcp.json"))


def shown(view: View, *, width: int = 100, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    console.print(view.picture(console))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue().splitlines()


def test_the_view_shows_all_connections_and_what_happened_last() -> None:
    view = view_of(SERVERS)
    view.changes += [change(number) for number in range(3)]
    lines = shown(view)
    assert lines[0].startswith("0 of 2 ready  mcp.json")
    assert lines[2].split() == ["server", "state", "for", "epoch", "next", "try", "last", "failure"]
    assert lines[3].split()[:3] == ["alpha", "○", "idle"]
    assert lines[4].split()[:3] == ["be[red]ta", "○", "idle"]
    assert sum("ready -> ◌ reconnecting  lost" in line for line in lines) == 3


@pytest.mark.parametrize(("width", "height"), [(100, 24), (60, 12), (40, 9), (200, 60)])
def test_the_view_fits_any_terminal(width: int, height: int) -> None:
    view = view_of(SERVERS)
    failure = Failure(kind=FailureKind.TRANSPORT_LOST, delivery=Delivery.UNKNOWN, proof=True, summary="word " * 60)
    view.changes += [change(number, failure=failure) for number in range(100)]
    lines = shown(view, width=width, height=height)
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)
    newest = line_of(view.changes[-1], 9).plain[:30]
    assert lines[-1].startswith(newest)


def test_a_transition_is_one_line_with_cause_and_next_try() -> None:
    failure = Failure(
        kind=FailureKind.TRANSPORT_LOST, delivery=Delivery.UNKNOWN, proof=True, summary="it\nended\x1b[1m"
    )
    text = line_of(change(1, failure=failure, wait=2.0)).plain
    assert text.endswith("alpha  ready -> ◌ reconnecting  lost: it ended�[1m (next try in 2.0 s)")


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The time of day is the same wherever the test runs."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


VIRTUAL = pytest.mark.parametrize(
    "anyio_backend", [("trio", {"clock": MockClock(autojump_threshold=0)})], ids=["virtual time"]
)


@pytest.mark.anyio
@VIRTUAL
async def test_the_view_that_the_documentation_shows_is_what_watch_shows(utc: None) -> None:
    began = anyio.current_time()
    clock = Clock(wall=lambda: 1.7e9 + 49600 + anyio.current_time() - began, rng=random.Random(7))
    script = Script()
    down = ScriptTransport(Script())
    down.down = True
    servers = {
        "clock": {"url": "http://clock/mcp", "http_transport": ScriptTransport(script)},
        "shop": {"url": "http://shop/mcp", "http_transport": down},
    }
    manager = Manager(servers, policy=Policy(keepalive=5), clock=clock)
    view = View(Own(manager, "mcp.json", clock), clock)
    async with view.source.running(view.changes.append):
        await anyio.sleep(61)
        script.forget_sessions()
        await anyio.sleep(6)
        lines = [line.rstrip() for line in shown(view, width=92, height=13)]
    assert lines == DOCUMENTED.read_text(encoding="utf-8").splitlines()


@pytest.mark.anyio
@VIRTUAL
@pytest.mark.parametrize("as_json", [True, False])
async def test_watch_notices_a_dead_server_without_calls(as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    script = Script()
    transport = ScriptTransport(script)

    def die_at_the_second_probe(_: Any) -> None:
        transport.down = script.count("ping") >= 2

    script.on_request = die_at_the_second_probe
    servers = {"srv": ServerConfig(name="srv", url="http://srv/mcp", http_transport=transport)}
    await watch(own(servers, Path("mcp.json"), probe=5), duration=30, as_json=as_json)
    lines = capsys.readouterr().out.splitlines()
    if as_json:
        events = [json.loads(line) for line in lines]
        assert [event["event"] for event in events[:3]] == ["connect", "established", "lost"]
        assert all(event["server"] == "srv" for event in events)
        assert (events[2]["from"], events[2]["to"]) == ("ready", "reconnecting")
        assert events[2]["failure"]["kind"] == "unavailable"
    else:
        assert lines[1].split("srv  ")[1].startswith("connecting -> ● ready  established after ")
        assert "ready -> ◌ reconnecting  lost: the server cannot be reached" in lines[2]
    assert ("closed" in lines[-1]) is True
