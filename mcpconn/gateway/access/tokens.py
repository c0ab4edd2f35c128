"""Access tokens of OAuth issuers (RFC 9068), for the gateway as a resource server."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import anyio
import jwt

from mcpconn.errors import ConfigError
from mcpconn.gateway.access.credentials import Identity, Inbound, Refused
from mcpconn.gateway.access.jwks import Fetch, KeySet
from mcpconn.gateway.principals import Principal

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""What a token may be signed with. Nothing symmetric: the issuer's public key would be the secret. Never `none`."""
LEEWAY = 30.0
"""Seconds by which clocks may differ."""
LONGEST = 16 * 1024
"""Characters of a token that is looked at."""


class Issuer:
    """One authorization server whose tokens are accepted."""

    def __init__(
        self,
        issuer: str,
        *,
        audience: str,
        jwks: str,
        algorithms: tuple[str, ...] = ALGORITHMS,
        fetch: Fetch | None = None,
        now: Callable[[], float] = anyio.current_time,
    ) -> None:
        """
        Args:
            issuer: The `iss` of its tokens, to the letter.
            audience: The `aud` that a token for this gateway has: its public URL.
            jwks: URL of its keys.
            algorithms: Those it signs with.
            fetch: Reads a URL; for tests.
            now: Monotonic seconds.

        Raises:
            ConfigError: an algorithm or a URL cannot be used.
        """
        for each in algorithms:
            if each not in ALGORITHMS:
                known = ", ".join(ALGORITHMS)
                raise ConfigError(
                    f"gateway.access: algorithm {each!r} is not supported; known: {known}", key="algorithms"
                )
        self.issuer = issuer
        self.audience = audience
        self._algorithms = list(algorithms)
        self._keys = KeySet(jwks, fetch=fetch, now=now)

    def keep_keys(self, before: Iterable[Issuer]) -> None:
        """Use the keys that an issuer of the same name and URL has loaded.

        Otherwise, after a reload of the configuration, its users would have to wait for an issuer that is unreachable
        at that moment.
        """
        for each in before:
            if (each.issuer, each._keys.url) == (self.issuer, self._keys.url):
                self._keys = each._keys

    async def identify(self, token: str) -> Identity:
        """Whose token it is.

        Raises:
            Refused: it is expired, for another audience, or not signed by this issuer.
            NotNow: this issuer's keys were never loaded.
        """
        try:
            header = jwt.get_unverified_header(token)
            # `jwk`, `jku` and `x5u` in a header name keys of the sender's choice, and are ignored.
            key = await self._keys.key(header.get("kid"))
            claims: dict[str, Any] = jwt.decode(
                token,
                key=key,
                algorithms=self._algorithms,
                audience=self.audience,
                issuer=self.issuer,
                leeway=LEEWAY,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise Refused("the token has expired") from None
        except jwt.InvalidAudienceError:
            raise Refused("the token is for another audience") from None
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise Refused(f"the token is not valid ({type(error).__name__})") from None
        client = claims.get("client_id") or claims.get("azp") or ""
        if not isinstance(client, str):
            raise Refused("the token's client is not a string")
        scopes, expires = _scopes(claims), float(claims["exp"])
        principal = Principal(client, self.issuer, claims["sub"])
        return Identity(principal, scopes, expires, Inbound(token, expires, scopes))


class Tokens:
    """The tokens of all issuers."""

    def __init__(self, issuers: tuple[Issuer, ...]) -> None:
        self._issuers = {each.issuer: each for each in issuers}

    async def identify(self, token: str) -> Identity:
        """As `Issuer.identify`, of the issuer that the token names."""
        if len(token) > LONGEST:
            raise Refused("the token is too long")
        try:
            named = jwt.decode(token, options={"verify_signature": False}).get("iss")
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise Refused("the token cannot be read") from None
        issuer = self._issuers.get(named) if isinstance(named, str) else None
        if issuer is None:
            raise Refused("the token's issuer is not known here")
        return await issuer.identify(token)


def _scopes(claims: dict[str, Any]) -> frozenset[str]:
    """`scope` is a text of words (RFC 8693, 4.2); some issuers have a list, or call it `scp`."""
    said = claims.get("scope", claims.get("scp", ""))
    words = said.split() if isinstance(said, str) else said if isinstance(said, list) else []
    return frozenset(each for each in words if isinstance(each, str))
