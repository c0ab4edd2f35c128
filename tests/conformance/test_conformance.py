"""The official conformance suite, against a client written on `Connection`.

Its scenarios for servers of 2026-07-28 come with a later version of the suite; see docs/conformance.md for all
results, beside those of the SDK's own client.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.suite import Suite

SCENARIOS = (
    "initialize",
    "tools_call",
    "elicitation-sep1034-client-defaults",
    "sse-retry",
    "auth/metadata-default",
    "auth/metadata-var1",
    "auth/metadata-var2",
    "auth/metadata-var3",
    "auth/basic-cimd",
    "auth/scope-from-www-authenticate",
    "auth/scope-from-scopes-supported",
    "auth/scope-omitted-when-undefined",
    "auth/scope-step-up",
    "auth/scope-retry-limit",
    "auth/token-endpoint-auth-basic",
    "auth/token-endpoint-auth-post",
    "auth/token-endpoint-auth-none",
    "auth/pre-registration",
    "auth/2025-03-26-oauth-endpoint-fallback",
    "auth/resource-mismatch",
    "auth/offline-access-scope",
    "auth/offline-access-not-supported",
    "auth/client-credentials-jwt",
    "auth/client-credentials-basic",
    "auth/cross-app-access-complete-flow",
)

REFUSED_BY_THE_SDK = {
    "auth/2025-03-26-oauth-metadata-backcompat": "its metadata name another issuer than the server that serves them, "
    "which RFC 8414, 3.3 forbids",
}


@pytest.fixture(scope="session")
def suite() -> Iterator[Suite]:
    try:
        suite = Suite.find()
    except LookupError as error:
        pytest.skip(str(error))
    with suite.ready():
        yield suite


RACES = 5
"""Times to run a scenario at most, where the suite has raced with itself."""


def raced(output: str) -> bool:
    """Whether the suite took the session's own event stream for the reconnection that it waits for.

    It tells the two apart by their order alone, and the SDK opens the first beside the calls: where that GET
    comes after the call, the suite has measured nothing.
    """
    call, stream = output.find("(method: tools/call)"), output.find("Received GET request")
    return 0 <= call < stream and "Could not measure timing" in output


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_scenario_that_the_sdks_own_client_passes_is_passed(scenario: str, suite: Suite) -> None:
    for _ in range(RACES):
        result = suite.run(scenario)
        if result.passed or scenario != "sse-retry" or not raced(result.output):
            break
    assert result.passed, result.output


def test_no_scenario_is_left_out(suite: Suite) -> None:
    assert set(suite.scenarios()) == {*SCENARIOS, *REFUSED_BY_THE_SDK}
