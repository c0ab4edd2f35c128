"""Sequences of rules that are written down, and played on a state machine as hypothesis would."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mcpconn.testing.machine import SandboxMachine

Rule = tuple[str, dict[str, Any]]
"""A rule of a machine, and its arguments."""


def on(rule: str, **arguments: Any) -> Rule:
    return rule, arguments


def met_by(fault: str, tool: str = "add", times: int = 1) -> Rule:
    """A call of the first caller meets a fault."""
    return on("call_meets_a_fault", number=0, tool=tool, fault=fault, times=times)


FORGOTTEN = (on("forget"), on("call", number=0, tool="add"))
"""A session is lost, and found out to be."""


def play(machine: type[SandboxMachine], rules: Iterable[Rule]) -> None:
    """Do what hypothesis does with an example."""
    playing = machine()
    try:
        for rule, arguments in rules:
            getattr(playing, rule)(**arguments)
    except BaseException:
        playing.abandon()
        raise
    playing.teardown()
