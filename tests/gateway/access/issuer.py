"""An issuer of access tokens that exists in this process alone."""

from __future__ import annotations

import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

ISSUER = "https://login.example.com"
AUDIENCE = "https://mcp.example.com/mcp"
JWKS = "https://login.example.com/jwks"


class Authority:
    """Signs tokens, and serves its keys to whoever calls `fetch`."""

    def __init__(self) -> None:
        self.keys: dict[str, rsa.RSAPrivateKey] = {}
        self.withdrawn: set[str] = set()
        self.fetched = 0
        self.away = False
        self.rotate("one")

    def rotate(self, kid: str) -> None:
        self.keys[kid] = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.current = kid

    async def fetch(self, url: str) -> bytes:
        self.fetched += 1
        if self.away:
            raise OSError("unreachable")
        assert url == JWKS
        keys = []
        for kid, key in self.keys.items():
            if kid not in self.withdrawn:
                public = json.loads(RSAAlgorithm.to_jwk(key.public_key()))
                keys.append({**public, "kid": kid, "use": "sig", "alg": "RS256"})
        return json.dumps({"keys": keys}).encode()

    def token(self, subject: str = "alice", *, kid: str | None = None, header: Any = None, **claims: Any) -> str:
        """A token; a claim that is None is left out."""
        kid = kid or self.current
        body = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "exp": time.time() + 600, **claims}
        body = {name: value for name, value in body.items() if value is not None}
        return jwt.encode(body, self.keys[kid], algorithm="RS256", headers={"kid": kid, **(header or {})})
