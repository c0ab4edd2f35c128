"""Which tokens open the gateway, and what happens while their issuer's keys change or cannot be obtained."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from mcpconn.errors import ConfigError
from mcpconn.gateway.access.credentials import NotNow, Refused
from mcpconn.gateway.access.jwks import APART, FRESH
from mcpconn.gateway.access.tokens import ALGORITHMS, Issuer, Tokens
from mcpconn.gateway.principals import Principal
from tests.gateway.access.issuer import AUDIENCE, ISSUER, JWKS, Authority

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def signing():
    """RSA keys take a moment to make: one authority is enough for tests that change nothing in it."""
    return Authority()


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _part(content: object) -> str:
    return _text(json.dumps(content).encode())


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def tokens(authority, now=None):
    return Tokens((Issuer(ISSUER, audience=AUDIENCE, jwks=JWKS, fetch=authority.fetch, now=now or Time()),))


async def test_a_good_token_names_its_principal(signing):
    found = await tokens(signing).identify(signing.token(scope="mcp:read mcp:write", client_id="app"))
    assert found.principal == Principal("app", ISSUER, "alice")
    assert found.scopes == {"mcp:read", "mcp:write"}
    assert found.expires is not None


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "https://other.example.com"},
        {"aud": None},
        {"exp": time.time() - 120},
        {"exp": None},
        {"iss": "https://evil.example.com"},
        {"iss": None},
        {"sub": None},
        {"nbf": time.time() + 600},
        {"client_id": {"a": 1}},
    ],
    ids=lambda claims: next(iter(claims)),
)
async def test_a_token_of_wrong_claims_is_refused(signing, claims):
    token = signing.token(**claims)
    with pytest.raises(Refused) as caught:
        await tokens(signing).identify(token)
    assert token[:20] not in str(caught.value)


async def test_an_unsigned_token_is_refused(signing):
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": time.time() + 60}
    with pytest.raises(Refused):
        await tokens(signing).identify(jwt.encode(claims, "", algorithm="none", headers={"kid": "one"}))


async def test_the_issuers_public_key_is_no_shared_secret(signing):
    public = signing.keys["one"].public_key()
    pem = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": time.time() + 60}
    # PyJWT itself refuses to sign like this, so it is done by hand.
    head, body = (_part(each) for each in ({"alg": "HS256", "kid": "one"}, claims))
    signature = hmac.new(pem, f"{head}.{body}".encode(), hashlib.sha256).digest()
    forged = f"{head}.{body}.{_text(signature)}"
    with pytest.raises(Refused):
        await tokens(signing).identify(forged)


@pytest.mark.parametrize("header", [{"jku": "https://evil/jwks"}, {"x5u": "https://evil/cert"}])
async def test_a_key_that_the_token_names_itself_is_not_used(signing, header):
    other = Authority()
    before = signing.fetched
    with pytest.raises(Refused):
        await tokens(signing).identify(other.token(kid="one", header=header))
    assert signing.fetched == before + 1


@pytest.mark.parametrize("token", ["", "a", "a.b.c", "a" * 100_000, "\x00.\x00.\x00", "e30.e30.", "é.é.é"])
async def test_what_is_no_token_is_refused(signing, token):
    with pytest.raises(Refused):
        await tokens(signing).identify(token)


async def test_a_rotated_key_is_fetched_once():
    authority, now = Authority(), Time()
    known = tokens(authority, now)
    await known.identify(authority.token())
    now.now += APART
    authority.rotate("two")
    for number in range(50):
        await known.identify(authority.token(f"user{number}"))
    assert authority.fetched == 2
    await known.identify(authority.token(kid="one"))


async def test_unknown_key_ids_flood_no_issuer():
    authority, forger, now = Authority(), Authority(), Time()
    forger.rotate("unknown")
    known = tokens(authority, now)
    await known.identify(authority.token())
    now.now += APART
    for _ in range(50):
        with pytest.raises(Refused):
            await known.identify(forger.token())
    assert authority.fetched == 2
    now.now += APART
    with pytest.raises(Refused):
        await known.identify(forger.token())
    assert authority.fetched == 3


async def test_old_keys_serve_during_an_outage():
    authority, now = Authority(), Time()
    known = tokens(authority, now)
    await known.identify(authority.token())
    authority.away = True
    now.now += 10 * FRESH
    await known.identify(authority.token())
    authority.away = False
    authority.withdrawn.add("one")
    authority.rotate("two")
    now.now += APART
    with pytest.raises(Refused):
        await known.identify(authority.token(kid="one"))


async def test_keys_never_loaded_are_a_temporary_refusal():
    authority, now = Authority(), Time()
    authority.away = True
    known = tokens(authority, now)
    with pytest.raises(NotNow):
        await known.identify(authority.token())
    authority.away = False
    now.now += 2
    await known.identify(authority.token())


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"keys": 1}', b'{"keys": [{}]}', b"\xff", b"[" * 100_000])
async def test_a_malformed_key_set_counts_as_away(content):
    authority = Authority()

    async def fetch(url: str) -> bytes:
        return bytes(content)

    known = Tokens((Issuer(ISSUER, audience=AUDIENCE, jwks=JWKS, fetch=fetch, now=Time()),))
    with pytest.raises(NotNow):
        await known.identify(authority.token())


@pytest.mark.parametrize("algorithm", ["none", "HS256", "HS512", "rs256", ""])
def test_weak_algorithms_are_refused(algorithm):
    assert algorithm not in ALGORITHMS
    with pytest.raises(ConfigError, match="algorithm"):
        Issuer(ISSUER, audience=AUDIENCE, jwks=JWKS, algorithms=(algorithm,))


@pytest.mark.parametrize(
    "url", ["http://login.example.com/jwks", "file:///etc/passwd", "https://u:p@host/", "", "jwks"]
)
def test_keys_come_from_safe_places_alone(url):
    with pytest.raises(ConfigError, match="jwks"):
        Issuer(ISSUER, audience=AUDIENCE, jwks=url)


def test_a_key_set_on_loopback_is_allowed():
    assert Issuer(ISSUER, audience=AUDIENCE, jwks="http://127.0.0.1:8080/jwks").issuer == ISSUER
