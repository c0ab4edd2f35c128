"""What a fleet promises, held against what clients were told and what servers ran."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tests.simulated_fleet.clients import LONGEST, NOT_MADE, TOLD, Call

if TYPE_CHECKING:
    from tests.simulated_fleet.world import World

AT_MOST_ONCE = "a call that is not safe runs at most once"
ANSWERED_RAN = "what was answered has run"
NOT_RUN = "what was not run has not run"
ONE_OWNER = "an upstream session is used by one replica"
ONE_CLIENT = "an upstream session serves one client"
NOTHING_ELSE = "a client is told nothing but an outcome"
REVOKED = "a principal that was revoked is refused everywhere"
IN_TIME = "no call is waited for beyond its deadline"
ONE_USE = "no refresh token is sent twice while somebody uses what the first use returned"
ONE_AT_A_TIME = "a client's session with a server is never one that was replaced"
CONVERGES = "after the trouble every client is answered"
PROMISES = (
    *(AT_MOST_ONCE, ANSWERED_RAN, NOT_RUN, ONE_OWNER, ONE_CLIENT, NOTHING_ELSE),
    *(REVOKED, IN_TIME, ONE_USE, ONE_AT_A_TIME, CONVERGES),
)

REFUSED_AFTER = 2.0
"""Seconds after which a revoked key opens nothing: a look at the file, one at the log, each half a second, and the
store's own time."""


def broken_promises(world: World, last: list[Call]) -> None:
    """Raise an AssertionError that names each promise that was broken."""
    if found := list(_broken(world, last)):
        raise AssertionError("\n".join(found))


def _broken(world: World, last: list[Call]) -> Iterator[str]:
    calls = {call.id: call for client in world.clients for call in client.calls}
    ran = Counter(run.call for run in world.runs)
    for call in calls.values():
        told = {attempt.told for attempt in call.attempts}
        times = ran[call.id]
        runs = ", ".join(f"{run.replica} at {run.at:.2f}" for run in world.runs if run.call == call.id)
        if times > 1 and call.tool != "look":
            yield f"{AT_MOST_ONCE}: {call}; it ran {times} times ({runs})"
        if "answered" in told and not times:
            yield f"{ANSWERED_RAN}: {call}"
        if told <= NOT_MADE and times:
            yield f"{NOT_RUN}: {call}; it ran {times} times ({runs})"
        if any(attempt.ended - attempt.began >= LONGEST for attempt in call.attempts):
            yield f"{IN_TIME}: {call}"
        if strange := told - TOLD:
            yield f"{NOTHING_ELSE}: {strange}, {call}"
    for (server, session), replicas in world.users.items():
        if len(replicas) > 1:
            yield f"{ONE_OWNER}: {server} {session} by {sorted(replicas)}"
    clients: dict[tuple[str, str], set[str]] = {}
    for run in world.runs:
        if run.session:
            clients.setdefault((run.server, run.session), set()).add(run.call.partition("-")[0])
    for place, names in clients.items():
        if len(names) > 1:
            yield f"{ONE_CLIENT}: {place} by {sorted(names)}"
    for name, at in world.revoked.items():
        for call in calls.values():
            for attempt in call.attempts if call.client == name else ():
                late = attempt.began > max(at, world.trouble_over) + REFUSED_AFTER
                if late and attempt.told != "unauthorized":
                    yield f"{REVOKED}: at {at:.2f}, {call}"
    yield from (f"{ONE_USE}: {words}" for words in world.logins.ended)
    yield from _replaced(world)
    # A replica that dies between spending a refresh token and storing what it got leaves a login that is needed.
    may_need_login = set(world.minute.troubles) - {"server forgets", "revoke", "links"}
    for call in last:
        if call.client in world.revoked or any(each.told == "answered" for each in call.attempts):
            continue
        if call.server != "safe" or not may_need_login:
            yield f"{CONVERGES}: {call}"


def _replaced(world: World) -> Iterator[str]:
    """While the store can be reached, an owner that was paused or cut off does not go on beside its successor."""
    if any(what.startswith("store") or what == "failover" for what in world.minute.troubles):
        # Who cannot ask who the owner is goes on with what it has, or opens a session of its own.
        return
    seen: dict[str, list[str]] = {}
    for run in world.runs:
        if run.server != "old":
            continue
        sessions = seen.setdefault(run.call.partition("-")[0], [])
        if run.session in sessions[:-1]:
            yield f"{ONE_AT_A_TIME}: call {run.call} ran on {run.session} at {run.at:.2f} by {run.replica}"
        if run.session not in sessions:
            sessions.append(run.session)
