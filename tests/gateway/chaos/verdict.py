"""What the clients were told, compared with the servers' journals; and the gateway's audit lines, compared with
both."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.gateway.chaos.clients import Said


def lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a journal."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def of_calls(calls: Iterable[Said], runs: Mapping[str, int]) -> Iterator[str]:
    """What was not true of what clients were told. `runs`: how often each call ran, by its id."""
    for call in calls:
        ran, told = runs.get(call.id, 0), call.told
        if call.tool == "charge" and ran > 1:
            yield f"ran {ran} times: {call}"
        if "answered" in told and (ran != 1 if call.tool == "charge" else not ran):
            yield f"answered, and ran {ran} times: {call}"
        if "ran" in told and not ran:
            yield f"said to have run: {call}"
        if set(told) == {"not_run"} and ran:
            yield f"said not to have run, and ran {ran} times: {call}"
        if "answered" in told and not call.text.startswith(call.id):
            yield f"another call's answer: {call}"


def of_sessions(journal: Iterable[Mapping[str, Any]], place: str) -> Iterator[str]:
    """Sessions of a server that more than one client used. `place`: what names a session in a line."""
    users: dict[Any, set[str]] = defaultdict(set)
    for run in journal:
        users[run.get(place)].add(run["canary"])
    for session, canaries in users.items():
        if len(canaries) > 1:
            yield f"{place} {session} was used for {sorted(canaries)}"


def of_audit(
    audit: Iterable[Mapping[str, Any]], calls: Iterable[Said], runs: Mapping[str, int]
) -> tuple[list[str], Counter[str]]:
    """What was not true of the audit lines, and how often each outcome is in them. Alone, `started` is `unknown`."""
    problems: list[str] = []
    started: dict[str, Mapping[str, Any]] = {}
    ended: dict[str, str] = {}
    for line in audit:
        if line["event"] == "started":
            if line["id"] in started:
                problems.append(f"started twice: {line}")
            started[line["id"]] = line
        else:
            if line["id"] in ended or line["id"] not in started:
                problems.append(f"ended twice, or never started: {line}")
            ended[line["id"]] = line["outcome"]
    outcomes: dict[str, list[str]] = defaultdict(list)
    for name, line in started.items():
        outcomes[line["arguments"]["id"]].append(ended.get(name, "alone"))
    by_id = {call.id: call for call in calls}
    problems += [f"ran, and no line says so: {by_id.get(name, name)}" for name in runs if name not in outcomes]
    for name, found in outcomes.items():
        call, ran = by_id.get(name), runs.get(name, 0)
        if call is None:
            problems.append(f"nobody called {name}")
        elif len(found) > len(call.told):
            problems.append(f"{len(found)} lines for {len(call.told)} requests: {call}")
        elif "answered" in call.told and "answered" not in found:
            problems.append(f"answered, and the lines say {found}: {call}")
        if "answered" in found and not ran:
            problems.append(f"the lines say that it was answered, and it did not run: {call}")
        if set(found) == {"not_run"} and ran:
            problems.append(f"the lines say that it did not run, and it ran {ran} times: {call}")
        if call is not None and len(call.told) == 1 and call.told[0] == "not_run" and found != ["not_run"]:
            problems.append(f"told not_run, and the lines say {found}: {call}")
    for line in started.values():
        call = by_id.get(line["arguments"]["id"])
        if call is not None and (line["principal"], line["server"]) != (f"key:{call.client}", call.server):
            problems.append(f"the wrong principal or server: {line}")
    return problems, Counter(outcome for found in outcomes.values() for outcome in found)
