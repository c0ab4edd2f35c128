"""From a client's request to what one replica asks of another, and back."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, cast

from starlette.types import Scope, Send

from mcpconn.gateway.access.rights import RIGHTS_KEY, Rights
from mcpconn.gateway.fleet.ownership import Owner
from mcpconn.gateway.fleet.signing import Envelope, digest
from mcpconn.gateway.http.asgi import header
from mcpconn.gateway.http.notes import arrived_in, arriving, had_earlier_try, note_earlier_try
from mcpconn.gateway.principals import SCOPE_KEY as PRINCIPAL_KEY
from mcpconn.gateway.principals import Principal, principal_of

SESSION, PRINCIPAL, RESUME = "session", "principal", "resume"
"""Actions; the first two are also what keys begin with."""
ARRIVED, EARLIER = "mcpconn-epoch", "mcpconn-earlier"
"""Headers of an envelope: the epoch of the store in which the request arrived at the sender; an earlier try of it may
have run."""
_PASSED = (b"host", b"origin", b"accept", b"content-type", b"last-event-id", b"traceparent", b"tracestate", b"baggage")
"""Headers of a client that go on to the owner, beside those that begin with `mcp-`. Its credentials do not."""


def session_key(sid: str) -> str:
    """Under which a legacy session is owned."""
    return f"{SESSION}/{sid}"


def principal_key(principal: Principal) -> str:
    """Under which is owned what a principal's modern clients share."""
    return f"{PRINCIPAL}/{principal.digest}"


def envelope_of(
    owner: Owner, scope: Scope, *, action: str, view: str, body: bytes, new: bool = True, asks: bool = False
) -> Envelope:
    """What is asked of an owner."""
    principal, rights, arrived = principal_of(scope), scope.get(RIGHTS_KEY), arrived_in(scope)
    headers = tuple(
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in scope["headers"]
        if name in _PASSED or name.startswith(b"mcp-")
    )
    if arrived is not None:
        # As a header, which a replica of an earlier version passes over; a client's own of that name is not passed on.
        headers += ((ARRIVED, arrived),)
    if had_earlier_try(scope):
        headers += ((EARLIER, "1"),)
    return Envelope(
        to=owner.replica.name,
        action=action,
        key=owner.key,
        number=owner.number,
        method=scope["method"],
        view=view,
        headers=headers,
        principal=(principal.client, principal.issuer, principal.subject),
        rights=None if rights is None else asdict(rights),
        body=digest(body),
        new=new,
        asks=asks,
    )


def parked_envelope(owner: str, principal: Principal, body: bytes) -> Envelope:
    """What is asked of a replica that has parked a call."""
    return Envelope(
        to=owner,
        action=RESUME,
        key="",
        number=0,
        method="POST",
        view="",
        headers=(),
        principal=(principal.client, principal.issuer, principal.subject),
        rights=None,
        body=digest(body),
    )


def scope_of(envelope: Envelope) -> Scope:
    """A client's request, as it was at the replica that took it."""
    path = f"/mcp/{envelope.view}" if envelope.view else "/mcp"
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": envelope.method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in envelope.headers],
        "client": None,
        "server": None,
        PRINCIPAL_KEY: envelope.whom,
    }
    if envelope.rights is not None:
        # JSON has no tuples.
        given = {key: tuple(value) if isinstance(value, list) else value for key, value in envelope.rights.items()}
        scope[RIGHTS_KEY] = Rights(**cast("Any", given))
    if header(scope, EARLIER.encode()) is not None:
        note_earlier_try(scope)
    arrived = header(scope, ARRIVED.encode())
    return scope if arrived is None else arriving(scope, arrived)


async def answer(send: Send, status: int, content: Any) -> None:
    body = json.dumps(content).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
