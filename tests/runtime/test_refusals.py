"""What a person is told to do about a connection that failed."""

from __future__ import annotations

import ssl

import httpx2
import pytest

from mcpconn.core.failures import Delivery, Evidence, Failure, FailureKind
from mcpconn.runtime.refusals import advice
from mcpconn.wire.child import ChildExited


def config(**evidence: object) -> Failure:
    found = Evidence(**evidence)  # type: ignore[arg-type]
    return Failure(kind=FailureKind.CONFIG, delivery=Delivery.NOT_SENT, proof=True, summary="it failed", evidence=found)


def wrapped(cause: Exception) -> Exception:
    error = RuntimeError("the dial failed")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (config(exception=wrapped(ssl.SSLCertVerificationError(1, "expired"))), "the server's certificate"),
        (config(exception=wrapped(httpx2.ProxyError("no"))), "the proxy or its settings"),
        (config(http_status=407), "the proxy or its settings"),
        (config(exception=FileNotFoundError("no such program")), "the server's configuration"),
        (config(), "the server's configuration"),
    ],
    ids=["certificate", "proxy", "407", "command", "nothing known"],
)
def test_configuration_is_blamed_for_its_own_faults(failure: Failure, said: str) -> None:
    assert said in advice(failure, None)


@pytest.mark.parametrize(
    ("error", "blamed"),
    [(wrapped(ChildExited(1, ["no such module"])), True), (wrapped(httpx2.ReadError("reset")), False)],
    ids=["a child that exited", "a dial over HTTP that was cut"],
)
def test_a_command_is_blamed_only_where_there_is_one(error: Exception, blamed: bool) -> None:
    evidence = Evidence(exception=error, phase="dial")
    failure = Failure(
        kind=FailureKind.TRANSPORT_LOST, delivery=Delivery.NOT_SENT, proof=True, summary="lost", evidence=evidence
    )
    said = advice(failure, 30.0)
    assert ("check its command" in said) is blamed
    assert "in 30 s" in said
