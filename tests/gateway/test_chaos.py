"""Servers, gateway and clients while all of them are killed: a short form of `make chaos`, and what its judge finds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.chaos.__main__ import live_through
from tests.gateway.chaos.clients import Said
from tests.gateway.chaos.verdict import of_audit, of_calls, of_sessions

ID = "1" * 16


@pytest.mark.anyio
async def test_every_caller_is_told_the_truth(tmp_path: Path) -> None:
    report = await live_through(tmp_path, seconds=20, clients=8)
    assert not report.problems, str(report)
    assert report.told["answered"] > 50, str(report)
    assert report.killed, str(report)


def said(*told: str, tool: str = "charge", text: str = ID) -> Said:
    return Said(ID, "client-01", "old", tool, keyed=False, told=list(told), text=text)


@pytest.mark.parametrize(
    ("call", "ran"),
    [
        (said("answered"), 0),
        (said("answered"), 2),
        (said("not_run"), 1),
        (said("unknown"), 2),
        (said("broken", "unknown"), 2),
        (said("ran"), 0),
        (said("answered", text="another"), 1),
        (said("answered", tool="look"), 0),
    ],
)
def test_the_judge_finds_what_was_untrue(call: Said, ran: int) -> None:
    assert list(of_calls([call], Counter({ID: ran})))


@pytest.mark.parametrize(
    ("call", "ran"),
    [
        (said("answered"), 1),
        (said("broken", "answered"), 1),
        (said("not_run", "unknown"), 1),
        (said("unknown"), 0),
        (said("not_run"), 0),
        (said("answered", tool="look"), 2),
    ],
)
def test_the_judge_lets_pass_what_was_true(call: Said, ran: int) -> None:
    assert not list(of_calls([call], Counter({ID: ran})))


def test_the_judge_finds_a_shared_session() -> None:
    journal = [{"session": "s", "canary": "a"}, {"session": "s", "canary": "b"}, {"session": "t", "canary": "b"}]
    assert len(list(of_sessions(journal, "session"))) == 1
    assert not list(of_sessions(journal[1:], "session"))


def line(event: str, name: str = "x", **more: Any) -> dict[str, Any]:
    facts = {"event": event, "id": name, "principal": "key:client-01", "server": "old", **more}
    return {**facts, "arguments": {"id": ID}} if event == "started" else facts


ANSWERED = [line("started"), line("ended", outcome="answered")]


@pytest.mark.parametrize(
    ("audit", "call", "ran"),
    [
        ([], said("answered"), 1),
        ([*ANSWERED, line("started", "y")], said("answered"), 1),
        ([line("started"), line("started")], said("broken"), 1),
        ([line("ended", outcome="answered")], said("answered"), 1),
        ([line("started"), line("ended", outcome="not_run")], said("unknown"), 1),
        ([line("started"), line("ended", outcome="unknown")], said("not_run"), 0),
        ([line("started")], said("answered"), 1),
        (ANSWERED, said("broken"), 0),
        ([line("started", principal="key:client-02")], said("broken"), 0),
    ],
)
def test_the_judge_finds_an_audit_line_that_is_untrue(audit: Any, call: Said, ran: int) -> None:
    assert of_audit(audit, [call], Counter({ID: ran}) if ran else {})[0]


@pytest.mark.parametrize(
    ("audit", "call", "ran"),
    [
        (ANSWERED, said("answered"), 1),
        (ANSWERED, said("broken"), 1),
        ([line("started")], said("broken"), 1),
        ([line("started")], said("unknown"), 0),
    ],
)
def test_the_judge_takes_started_alone_for_unknown(audit: Any, call: Said, ran: int) -> None:
    assert not of_audit(audit, [call], Counter({ID: ran}) if ran else {})[0]
