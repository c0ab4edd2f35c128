"""Three kinds of credentials, and where they go."""

from collections.abc import Awaitable, Callable, Mapping

from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider

import mcpconn
from mcpconn.auth import CredentialsRefused, FileTokenStorage


# --8<-- [start:callable]
def with_a_callable(
    url: str, fetch_token: Callable[[], Awaitable[str]]
) -> mcpconn.ServerConfig:
    """Asked for a token at first, and again whenever the server refuses it."""
    return mcpconn.ServerConfig(url=url, auth=fetch_token)


# --8<-- [end:callable]
# --8<-- [start:protocol]
class Signed:
    """Credentials of one's own: two methods, no base class."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._generation = 0

    async def headers(self) -> Mapping[str, str]:
        """For every request."""
        return {"X-Key": f"{self._key}.{self._generation}"}

    async def refresh(self, challenge: str | None) -> bool:
        """The server refused them: renew, once for all calls that met the refusal."""
        if self._generation >= 3:
            raise CredentialsRefused("the key is used up: get another from the console")
        self._generation += 1
        return True


# --8<-- [end:protocol]
# --8<-- [start:oauth]
def with_oauth(
    url: str, issuer: str, client_id: str, client_secret: str
) -> mcpconn.ServerConfig:
    """The SDK's own provider. Processes may share the file of its tokens."""
    provider = ClientCredentialsOAuthProvider(
        server_url=url,
        storage=FileTokenStorage("~/.config/my-host/tokens.json"),
        issuer=issuer,
        client_id=client_id,
        client_secret=client_secret,
    )
    return mcpconn.ServerConfig(url=url, auth=provider)


# --8<-- [end:oauth]
# --8<-- [start:again]
async def after_a_login(manager: mcpconn.Manager, server: str, token: str) -> None:
    """A person has logged in again: back from `failed`, with the new token."""
    await manager[server].update_credentials(token)


# --8<-- [end:again]
