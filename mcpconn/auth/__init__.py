"""Credentials for HTTP servers: passed as `ServerConfig.auth`, added to every request, renewed when refused.

`ServerConfig.auth` accepts a bearer token, a `Login`, a `Credentials`, a callable, a provider of
`mcp.client.auth`, or any `httpx2.Auth`.
"""

from typing import TYPE_CHECKING

from mcpconn.auth.credentials import (
    Credentials,
    CredentialsRefused,
    CredentialsUnavailable,
    FromCallable,
    StaticBearer,
)
from mcpconn.auth.oauth import OAuth
from mcpconn.auth.record import Mark, TokenRecord, TokenStore
from mcpconn.auth.storage import FileTokenStorage, TokenFileError
from mcpconn.auth.store import StoredTokens
from mcpconn.lazy import first_use
from mcpconn.login import Login, token_file

if TYPE_CHECKING:
    from mcpconn.auth.redis_storage import RedisTokenStorage

__getattr__ = first_use("mcpconn.auth", {"RedisTokenStorage": "mcpconn.auth.redis_storage"})

__all__ = [
    "Credentials",
    "CredentialsRefused",
    "CredentialsUnavailable",
    "FileTokenStorage",
    "FromCallable",
    "Login",
    "Mark",
    "OAuth",
    "RedisTokenStorage",
    "StaticBearer",
    "StoredTokens",
    "TokenFileError",
    "TokenRecord",
    "TokenStore",
    "token_file",
]
