"""Users' logins at upstream servers, from the link that a client receives to tokens in the store.

1. A call fails because its user has not logged in. `invite` makes a link to a page of the gateway.
2. The page makes the browser prove that it is the same user's (see `page`), and `begin` finds the authorization server,
   registers a client if there is none, and returns the address to log in at.
3. The browser returns with a code. `finish` exchanges it for tokens, which are stored for the user and the server.

All intermediate state is in the store, sealed, and under the user's own keys: another user's link or state is not
found, even if it is guessed, and any process of the gateway can continue a login that another one began. Invitations
and states expire after 10 minutes; a state can be used once.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

from mcpconn.auth.authorization import Authorization
from mcpconn.auth.credentials import CredentialsRefused, CredentialsUnavailable
from mcpconn.auth.discovery import AuthorizationServer, origin
from mcpconn.auth.grants import Request, choose_client, find_server, trade
from mcpconn.auth.oauth import Note, OAuth, unheard
from mcpconn.auth.record import TokenRecord
from mcpconn.auth.registration import is_dynamic, is_expired
from mcpconn.auth.shared import LIFETIME
from mcpconn.auth.store import expiry
from mcpconn.auth.stored import ANYWHERE, CLIENT_NAME, LoginProvider, configured_client, login_provider
from mcpconn.auth.token_requests import Fetch, refusal
from mcpconn.auth.token_response import Refused
from mcpconn.config import ServerConfig
from mcpconn.gateway.principals import Principal
from mcpconn.gateway.store import Key, Store, StoreFull
from mcpconn.gateway.upstream_auth.tokens import PrincipalTokens, address_hash
from mcpconn.login import Login
from mcpconn.redact.places import redact_url
from mcpconn.seal import KeyRing, NotSealedHere

GOOD_FOR = 600.0
"""Seconds for which an invitation or a begun login is valid. It is the recommended maximum lifetime of authorization
codes (RFC 6749, 4.1.2)."""
TOKENS = "upstream tokens"
"""The purpose from which the sealing key for tokens is derived."""
AT_ONCE = 64
"""Maximum number of invitations and begun logins of one principal; more are refused."""
CALLBACK = "callback"
"""Last part of the redirect path. No invitation has this name."""
VERSION = "2025-11-25"
"""The protocol version assumed before the server has been contacted. With it the `resource` parameter (RFC 8707) is
sent."""


class LoginFailed(Exception):
    """A login failed. The text is for the person at the browser, and contains no secret."""


@dataclass(frozen=True)
class Invitation:
    """A link for one user to log in at one server."""

    id: str
    server: str
    challenge: str | None
    """What the server said when it asked for credentials (WWW-Authenticate)."""
    forgotten: str | None = None
    """Id of a client that the authorization server no longer knows."""


class UserOAuth(OAuth):
    """A user's own tokens, as credentials of a connection. They are renewed here, but no login is begun here. Requests
    go through `Fetcher`, because the server names the addresses.
    """

    def __init__(self, provider: LoginProvider, *, fetch: Fetch) -> None:
        super().__init__(provider, fetch=fetch)
        self.challenge: str | None = None
        """The server's last challenge: it names the authorization server and the scopes."""
        self.refused: str | None = None
        """The access token that can no longer be used or renewed; None: there was none."""

    async def renew(
        self,
        challenge: str | None,
        *,
        version: str | None = None,
        fetch: Fetch | None = None,
        note: Note = unheard,
    ) -> bool:
        """As `OAuth.renew`; if only a new login can help, the refusal says so."""
        self.challenge = challenge
        try:
            return await super().renew(challenge, version=version, fetch=fetch, note=note)
        except CredentialsRefused:
            tokens = self.provider.context.current_tokens
            self.refused = tokens.access_token if tokens is not None else None
            raise

    async def step_up(
        self,
        challenge: str,
        *,
        version: str | None = None,
        fetch: Fetch | None = None,
        note: Note = unheard,
    ) -> bool:
        """As `OAuth.step_up`."""
        self.challenge = challenge
        return await super().step_up(challenge, version=version, fetch=fetch, note=note)


class Logins:
    """All users' logins at all servers."""

    def __init__(
        self, store: Store, ring: KeyRing, *, fetch: Callable[[str], Fetch], config: Callable[[str], ServerConfig]
    ) -> None:
        """
        Args:
            store: Keeps invitations, logins that have begun, registered clients and tokens.
            ring: Seals all of it.
            fetch: Returns, for a server, the function that sends requests to addresses it names.
            config: The entry of a server, by name; raises `KeyError` if it is gone.
        """
        self._store = store
        self._fetch = fetch
        self._config = config
        self._tokens = ring.sealer(TOKENS)
        self._sealer = ring.sealer("upstream login")

    # -- tokens

    def storage(self, principal: Principal, server: str) -> PrincipalTokens:
        """The token storage of a principal for a server."""
        return PrincipalTokens(
            self._store,
            self._tokens,
            principal=principal,
            server=server,
            url=self._config(server).endpoint,
            client=configured_client(self._login(server)),
        )

    def credentials(self, principal: Principal, server: str) -> UserOAuth:
        """A principal's credentials for a server, shared by all connections of this process."""
        provider = self._provider(principal, server, ANYWHERE)
        provider.no_login = "this user has not logged in at it through this gateway, or has to log in again"
        return UserOAuth(provider, fetch=self._fetch(server))

    def _provider(self, principal: Principal, server: str, redirect_uri: str) -> LoginProvider:
        url, storage = self._config(server).endpoint, self.storage(principal, server)
        name = f"{CLIENT_NAME} gateway"
        return login_provider(self._login(server), url, storage, redirect_uri=redirect_uri, client_name=name)

    def _login(self, server: str) -> Login:
        """The login settings of an entry."""
        auth = self._config(server).auth
        return auth if isinstance(auth, Login) else Login()

    # -- the steps of a login

    async def invite(
        self, principal: Principal, server: str, challenge: str | None, *, forgotten: str | None = None
    ) -> Invitation:
        """Make a link for a principal.

        Args:
            principal: The only one who may log in with it.
            server: The server's name.
            challenge: What the server said when it asked for credentials.
            forgotten: Id of a client that the authorization server no longer knows.

        Raises:
            LoginFailed: the principal has too many already.
            StoreUnavailable: it cannot be stored.
        """
        invitation = Invitation(secrets.token_urlsafe(16), server, challenge, forgotten)
        await self._keep(self._invited(principal, invitation.id), asdict(invitation))
        return invitation

    async def invited(self, principal: Principal, name: str) -> Invitation | None:
        """The invitation with this name, if it belongs to this principal and has not expired."""
        found = await self._kept(self._invited(principal, name))
        return None if found is None else Invitation(**found[0])

    async def begin(self, principal: Principal, invitation: Invitation, redirect_uri: str) -> str:
        """Begin a login. Returns the URL that the browser must open.

        Args:
            principal: The user that the browser has authenticated as.
            invitation: As returned by `invited`.
            redirect_uri: Where the authorization server sends the browser back.

        Raises:
            LoginFailed: a login at this server is impossible now; the text says why.
            StoreUnavailable: it cannot be stored.
        """
        server = self._known(invitation.server)
        provider = self._provider(principal, server, redirect_uri)
        request = self._request(provider, server, invitation.challenge)
        try:
            record = await self.storage(principal, server).load()
            place = self._client(server, redirect_uri)
            known = await self._kept(place)
            shared = None if known is None else OAuthClientInformationFull.model_validate(known[0])
            if shared is not None and (is_expired(shared) or shared.client_id == invitation.forgotten):
                shared = None
            provider.context.client_info = configured_client(self._login(server)) or shared

            async def keep(client: OAuthClientInformationFull) -> None:
                # All users share one registration; otherwise each would register a client.
                value = self._sealed(place, client.model_dump(mode="json", exclude_none=True))
                await self._store.put(place, value, ttl=LIFETIME)

            found = await find_server(request, record)
            await choose_client(request, found, TokenRecord(), forgotten=None, keep=keep)
            begun, address = Authorization.begin(provider, found)
        except (CredentialsRefused, CredentialsUnavailable) as error:
            failed = str(error)
        else:
            kept = {**begun.to_json(), "server": server, "link": invitation.id}
            await self._keep(self._begun(principal, begun.state), kept)
            return address
        raise LoginFailed(failed)

    async def finish(
        self, principal: Principal, *, state: str, code: str | None, iss: str | None, said: str | None
    ) -> str:
        """Finish a login after the browser's return. Returns the name of the server that the user is now logged in at.

        Args:
            principal: The user that the browser has authenticated as.
            state: The `state` parameter.
            code: The authorization code, if there is one.
            iss: The issuer it names (RFC 9207).
            said: The error code, if the login was refused.

        Raises:
            LoginFailed: this principal has no pending login with this state, or the login was refused.
            StoreUnavailable: the begun login cannot be read.
        """
        place = self._begun(principal, state)
        found = await self._kept(place)
        # Deleted first, so that only one of two answers with the same state is used.
        if found is None or not await self._store.delete(place, version=found[1]):
            raise LoginFailed(
                "No login of yours waits for this answer. It was answered already, is older than 10 minutes, or was "
                "begun by somebody else."
            )
        server = self._known(found[0].pop("server"))
        begun = Authorization.from_json(found[0])
        name = redact_url(begun.server.issuer)
        if code is None:
            raise LoginFailed(f"{name} refused the login{f' ({_plain(said)})' if said else ''}.")
        provider = self._provider(principal, server, begun.redirect_uri)
        if begun.server.server_url != provider.context.server_url:
            raise LoginFailed(f"The address of {server!r} has changed since. Begin again.")
        try:
            outgoing = begun.token_request(provider, code, iss)
            request = self._request(provider, server, None)
            commit = partial(self._store_tokens, self.storage(principal, server), begun.client)
            refused = await trade(request, outgoing, begun.server, begun.scope, commit)
            if refused is None:
                await self._store.delete(self._invited(principal, found[0]["link"]))
                return server
            failed = await self._told(refused, server, begun, provider)
        except (CredentialsRefused, CredentialsUnavailable) as error:
            failed = str(error)
        raise LoginFailed(failed)

    @staticmethod
    async def _store_tokens(
        storage: PrincipalTokens, client: OAuthClientInformationFull, tokens: OAuthToken, server: AuthorizationServer
    ) -> None:
        changes: dict[str, Any] = {
            "tokens": tokens,
            "expires_at": expiry(tokens),
            "issuer": server.issuer,
            "server": origin(server.server_url),
            "client": client,
            "rotates": None,
            "mark": None,
        }
        # A login supersedes a renewal in progress, whose tokens belong to the previous login.
        await storage.change(lambda stored: stored.successor(**changes))

    async def _told(self, refused: Refused, server: str, begun: Authorization, provider: LoginProvider) -> str:
        """The error for a refused code. A client that the authorization server has forgotten is registered again next
        time."""
        if refused.registration and is_dynamic(begun.client, provider):
            place = self._client(server, begun.redirect_uri)
            found = await self._kept(place)
            if found is not None and found[0].get("client_id") == begun.client.client_id:
                await self._store.delete(place, version=found[1])
            return f"{redact_url(begun.server.issuer)} does not know this gateway any more. Begin again."
        return f"{redact_url(begun.server.issuer)} refused: {refused.said}"

    # -- the store

    def _known(self, server: str) -> str:
        try:
            self._config(server)
        except KeyError:
            raise LoginFailed(f"There is no server {server!r} any more.") from None
        return server

    def _request(self, provider: LoginProvider, server: str, challenge: str | None) -> Request:
        # Nothing learned here is shown, except texts that this module composes, so no redactor has to know the secrets.
        return Request(provider, refusal(401, challenge), VERSION, self._fetch(server), unheard)

    def _client(self, server: str, redirect_uri: str) -> Key:
        """The key of the client that was registered for all users of a server."""
        return Key("clients", f"{server} {address_hash(f'{self._config(server).endpoint} {redirect_uri}')}")

    @staticmethod
    def _invited(principal: Principal, name: str) -> Key:
        return Key(f"logins/{principal.digest}", f"link {_hash(name)}")

    @staticmethod
    def _begun(principal: Principal, state: str) -> Key:
        return Key(f"logins/{principal.digest}", f"state {_hash(state)}")

    async def _keep(self, place: Key, content: Mapping[str, Any]) -> None:
        try:
            await self._store.add(place, self._sealed(place, content), ttl=GOOD_FOR, limit=AT_ONCE)
        except StoreFull:
            full = True
        else:
            full = False
        if full:
            raise LoginFailed("Too many logins of yours were begun in the last 10 minutes. Wait until they expire.")

    async def _kept(self, place: Key) -> tuple[dict[str, Any], int] | None:
        record = await self._store.get(place)
        if record is None:
            return None
        try:
            content = self._sealer.open(record.value.decode("ascii", "replace"), "\n".join(place))
        except NotSealedHere:
            return None
        found: dict[str, Any] = json.loads(content)
        return found, record.version

    def _sealed(self, place: Key, content: Mapping[str, Any]) -> bytes:
        return self._sealer.seal(json.dumps(content).encode(), "\n".join(place)).encode("ascii")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _plain(text: str) -> str:
    """An error code of an authorization server, if it consists of letters and underscores; anything else is not
    shown."""
    return text if text.isascii() and text.replace("_", "").isalnum() and len(text) <= 40 else "an unknown error"
