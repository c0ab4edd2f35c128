"""What is known about something that went wrong, as data."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest

from mcpconn.core import Delivery, Evidence, Failure, FailureKind, classify


@pytest.mark.parametrize("kind", [FailureKind, Delivery])
def test_names_in_logs_are_lower_case(kind: type[FailureKind] | type[Delivery]) -> None:
    for member in kind:
        assert str(member) == f"{member}" == member.value == member.name.lower()


def test_evidence_begins_empty() -> None:
    assert {getattr(Evidence(), field.name) for field in dataclasses.fields(Evidence)} == {None}


@pytest.mark.parametrize("cls", [Evidence, Failure])
def test_evidence_and_failures_are_told_by_name_and_do_not_change(cls: Any) -> None:
    with pytest.raises(TypeError):
        cls(None)
    failure = classify(Evidence(http_status=503))
    with pytest.raises(dataclasses.FrozenInstanceError):
        failure.proof = True  # type: ignore[misc] # that is the point
    with pytest.raises(dataclasses.FrozenInstanceError):
        failure.evidence.code = 1  # type: ignore[misc] # that is the point


def test_a_repr_shows_no_exception() -> None:
    evidence = Evidence(exception=RuntimeError("sk-secret"), challenge='Bearer realm="sk-secret"', http_status=401)
    assert "sk-secret" not in repr(evidence)
    assert "http_status=401" in repr(evidence)
    failure = Failure(
        kind=FailureKind.AUTH, delivery=Delivery.REJECTED, proof=False, summary="refused", evidence=evidence
    )
    assert "sk-secret" not in repr(failure)
    assert "Evidence" not in repr(failure)


def test_a_failure_is_its_summary_in_a_text() -> None:
    failure = Failure(kind=FailureKind.AUTH, delivery=Delivery.REJECTED, proof=False, summary="refused")
    assert str(failure) == "refused"
    assert failure.evidence == Evidence()
    assert failure.retry_after is None
    assert copy.copy(failure) == failure
