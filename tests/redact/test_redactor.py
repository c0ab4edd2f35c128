"""Known secrets are hidden in every form in which programs and servers say them back."""

from __future__ import annotations

import base64
import html
import json
import string
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcpconn.redact.redactor import HIDDEN, Redactor, redacted

TOKEN = "ghp_16C7e42F292c6912E7710c838347Ae178B4a"
PHRASE = 'correct horse/battery+"staple"=='


def in_base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "form",
    [
        PHRASE,
        quote(PHRASE),
        quote(PHRASE, safe=""),
        quote(PHRASE, safe="").lower(),
        quote_plus(PHRASE),
        in_base64(PHRASE),
        in_base64(PHRASE).rstrip("="),
        base64.urlsafe_b64encode(PHRASE.encode()).decode(),
        json.dumps(PHRASE)[1:-1],
        json.dumps(PHRASE).replace("/", "\\/")[1:-1],
        json.dumps(json.dumps(PHRASE)[1:-1])[1:-1],
        repr(PHRASE)[1:-1],
        html.escape(PHRASE),
    ],
)
def test_a_secret_is_hidden_in_every_form(form: str) -> None:
    assert Redactor([PHRASE])(f"before {form} after") == f"before {HIDDEN} after"


@pytest.mark.parametrize("user", ["u", "me", "you", "someone@example.com"])
def test_tokens_in_longer_base64_are_hidden(user: str) -> None:
    said = Redactor([TOKEN])(f"Authorization: Basic {in_base64(f'{user}:{TOKEN}')}")
    assert HIDDEN in said
    # What is left is the user and the characters that belong to both.
    assert len(said) <= len("Authorization: Basic ") + len(in_base64(user)) + 12


def test_a_scheme_is_no_part_of_the_secret() -> None:
    redact = Redactor([f"Bearer {TOKEN}", f"Basic {in_base64('someone:hunter22')}"])
    assert redact(f"got {TOKEN}") == "got ***"
    assert redact("wrong password hunter22") == "wrong password ***"
    assert redact("send a Bearer token or Basic credentials") == "send a Bearer token or Basic credentials"


@pytest.mark.parametrize("kept", [39, 30, 20, 12])
def test_a_secret_that_was_cut_is_hidden(kept: int) -> None:
    redact = Redactor([TOKEN])
    assert redact(f"bad token {TOKEN[:kept]}") == "bad token ***"
    assert redact(f"bad token {TOKEN[:kept]}... (cut)") == "bad token ***... (cut)"
    assert redact(f"{TOKEN[-kept:]} is bad") == "*** is bad"


@given(st.text(string.ascii_letters + string.digits, min_size=16, max_size=60), st.text(max_size=30), st.data())
def test_no_cut_of_a_text_shows_a_secret(secret: str, around: str, data: st.DataObject) -> None:
    text = f"{around}{secret}{around}"
    end = data.draw(st.integers(0, len(text)))
    said = Redactor([secret])(text[:end])
    assert secret[:12] not in said or secret[:12] in around * 2


@given(st.lists(st.text(min_size=1, max_size=40), max_size=4), st.text(max_size=200))
def test_a_redactor_takes_any_text(secrets: list[str], text: str) -> None:
    redact = Redactor(secrets)
    said = redact(text + "".join(secrets) + text)
    assert not any(
        secret in said for secret in secrets if len(secret) >= 6 and set(secret) - {"*"} and "***" not in secret
    )


def test_overlaps_are_hidden_once() -> None:
    redact = Redactor([TOKEN, TOKEN[10:] + "-and-more-of-it"])
    assert redact(f"{TOKEN}{TOKEN}") == HIDDEN
    assert redact(f"{TOKEN}-and-more-of-it.") == "***."


def test_what_is_short_is_left_readable() -> None:
    assert Redactor(["1", "true", "abc"])("1 true abc") == "1 true abc"


def test_secrets_learned_later_are_hidden_and_the_oldest_forgotten() -> None:
    redact = Redactor([TOKEN])
    assert redact("renewed-1") == "renewed-1"
    for number in range(65):
        redact.learn(f"renewed-{number}")
        redact.learn(f"renewed-{number}")
    assert redact("renewed-64") == HIDDEN
    assert redact("renewed-0.") == "renewed-0."
    assert redact(TOKEN) == HIDDEN
    assert TOKEN not in repr(redact)


def test_data_is_redacted_in_depth() -> None:
    data = {"a": [TOKEN, {TOKEN: 1}], "b": None, "c": (TOKEN,)}
    assert redacted(data, Redactor([TOKEN])) == {"a": [HIDDEN, {HIDDEN: 1}], "b": None, "c": [HIDDEN]}
