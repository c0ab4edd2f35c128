"""What goes along when a request is forwarded."""

from __future__ import annotations

from typing import Any

from mcpconn.gateway.fleet.envelopes import SESSION, envelope_of, scope_of
from mcpconn.gateway.fleet.membership import Replica
from mcpconn.gateway.fleet.ownership import Owner
from mcpconn.gateway.http.notes import arrived_in, arriving, had_earlier_try, note_earlier_try

OWNER = Owner("session/s", Replica("r", "127.0.0.1:1"), 1, mine=False)


def forwarded(scope: Any) -> Any:
    """The scope of a request at its owner."""
    return scope_of(envelope_of(OWNER, scope, action=SESSION, view="", body=b""))


def request(*headers: tuple[bytes, bytes]) -> Any:
    return {"method": "POST", "headers": list(headers)}


def test_the_epoch_of_the_arrival_goes_along():
    assert arrived_in(forwarded(arriving(request(), "e1"))) == "e1"
    assert arrived_in(forwarded(request())) is None


def test_a_client_cannot_name_the_epoch_itself():
    assert arrived_in(forwarded(arriving(request((b"mcpconn-epoch", b"e2")), "e1"))) == "e1"
    assert arrived_in(forwarded(request((b"mcpconn-epoch", b"e2")))) is None


def test_an_earlier_try_goes_along():
    scope = request()
    assert not had_earlier_try(forwarded(scope))
    note_earlier_try(scope)
    assert had_earlier_try(forwarded(scope))
