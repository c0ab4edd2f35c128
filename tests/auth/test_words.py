"""What may be said of an exception: its own words where they quote nothing, otherwise what is known of it."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from mcp.client.auth import OAuthFlowError
from mcp.shared.auth import OAuthToken
from pydantic import ValidationError

from mcpconn.auth import CredentialsRefused, CredentialsUnavailable
from mcpconn.auth.words import LIMIT, from_host, words

SECRET = "tok-1234567890-abcdef"


def raised(call: Any) -> Exception:
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def response(status: int) -> httpx2.Response:
    return httpx2.Response(status, request=httpx2.Request("POST", f"http://as.example/?t={SECRET}"))


class Sealed(Exception):
    """An error of host code."""


def refused_by_the_system() -> Exception:
    try:
        raise ConnectionRefusedError(111, "Connection refused")
    except OSError as error:
        found = httpx2.ConnectError("All connection attempts failed")
        found.__cause__ = error
        return found


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (CredentialsRefused("the card has expired"), "the card has expired"),
        (CredentialsUnavailable("the vault does not answer"), "the vault does not answer"),
        (RuntimeError("the vault is sealed"), "the vault is sealed"),
        (Sealed("the vault\n is   sealed"), "the vault is sealed"),
        (Sealed(), "Sealed"),
        (FileNotFoundError(2, "No such file or directory", "/run/token"), "No such file or directory: /run/token"),
        (refused_by_the_system(), "ConnectError (Connection refused)"),
        (httpx2.ConnectError(f"x {SECRET}"), "ConnectError"),
        (raised(lambda: int(SECRET)), "ValueError"),
        (KeyError(SECRET), "KeyError"),
        (raised(lambda: SECRET.encode("ascii") + "x"), "TypeError"),  # type: ignore[operator]
        (raised(lambda: (SECRET + "ü").encode("ascii")), "UnicodeEncodeError"),
        (raised(response(401).raise_for_status), "HTTPStatusError (HTTP 401)"),
        (raised(lambda: OAuthToken.model_validate({})), "ValidationError (access_token: missing)"),
        (
            raised(lambda: OAuthToken.model_validate({"access_token": [SECRET], "expires_in": SECRET})),
            "ValidationError (access_token: string_type, expires_in: int_parsing)",
        ),
        (raised(lambda: OAuthToken.model_validate(SECRET)), "ValidationError (a field: model_type)"),
        (OAuthFlowError(f"State parameter mismatch: {SECRET} != x"), "the response belongs to another login"),
        (OAuthFlowError(SECRET), "the provider's flow failed (OAuthFlowError)"),
    ],
)
def test_an_error_is_told_without_quotes(error: Exception, said: str) -> None:
    told = words(error, lambda text: text)
    assert told.startswith(said)
    assert SECRET not in told


def test_secrets_that_are_known_are_hidden_before_the_text_is_cut() -> None:
    for padding in range(LIMIT - 30, LIMIT + 5):
        told = words(RuntimeError("." * padding + SECRET), lambda text: text.replace(SECRET, "***"))
        assert "1234" not in told
        assert len(told) <= LIMIT + 3


def test_a_strangers_keys_are_not_told() -> None:
    class Strict(OAuthToken, extra="forbid"):
        """A model that names keys it does not know."""

    error = raised(lambda: Strict.model_validate({"access_token": "a", SECRET: 1}))
    assert isinstance(error, ValidationError)
    assert SECRET in str(error)
    assert words(error, lambda text: text) == "ValidationError (a field: extra_forbidden)"


@pytest.mark.anyio
async def test_what_host_code_raised_is_no_context_of_the_refusal() -> None:
    async def broken() -> str:
        raise Sealed(f"cannot open {SECRET}")

    with pytest.raises(CredentialsUnavailable, match=r"the store cannot be read: cannot open \*\*\*$") as caught:
        await from_host(broken, "the store cannot be read", lambda text: text.replace(SECRET, "***"))
    assert caught.value.__cause__ is caught.value.__context__ is None


@pytest.mark.anyio
@pytest.mark.parametrize("own", [CredentialsRefused("log in"), CredentialsUnavailable("later")])
async def test_a_refusal_of_host_code_is_passed_on_as_it_is(own: Exception) -> None:
    async def refusing() -> None:
        raise own

    with pytest.raises(type(own)) as caught:
        await from_host(refusing, "the store cannot be read", str)
    assert caught.value is own
