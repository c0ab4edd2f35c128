"""Forwards a client's requests to the servers: each request names a server, and causes no other request to it.

It is a middleware of the SDK's server and answers with plain JSON: a result passes through without being parsed into a
model, so nothing in it is lost, and nothing is validated twice. The handlers do not deal with keeping connections
alive. This module alone decides what a client is told about a failed call: a tool error with a text for models, and
`_meta` for programs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

import anyio
from mcp import MCPError
from mcp.server.context import CallNext, HandlerResult
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS, LOG_LEVEL_META_KEY, METHOD_NOT_FOUND
from mcp_types import methods as protocol

from mcpconn.connection import Connection
from mcpconn.errors import CallFailed
from mcpconn.gateway.clients.downstream import Call, Context, Downstream, current, is_modern
from mcpconn.gateway.clients.extras import Extras
from mcpconn.gateway.clients.parked import Ended, Parked, ParkingLot
from mcpconn.gateway.clients.rounds import ROUND, Rounds
from mcpconn.gateway.fleet.go_ahead import ask_go_ahead
from mcpconn.gateway.fleet.guard import let_out
from mcpconn.gateway.fleet.membership import OwnershipLost
from mcpconn.gateway.outcomes import CALL_ID, OUTCOME, refused, tool_error, unanswered
from mcpconn.gateway.requests import large
from mcpconn.gateway.requests.keyed import Keyed
from mcpconn.gateway.requests.ledger import Ledger
from mcpconn.gateway.requests.ledger_entries import Entry, fingerprint_of
from mcpconn.gateway.requests.lists import KINDS, BadCursor, Lists
from mcpconn.gateway.requests.located import Located
from mcpconn.gateway.requests.modern_tasks import ModernTasks
from mcpconn.gateway.requests.param_headers import ParamHeaders
from mcpconn.gateway.requests.results import dressed
from mcpconn.gateway.requests.standing import Standing
from mcpconn.gateway.requests.stopping import sending
from mcpconn.gateway.requests.task_calls import TaskCalls
from mcpconn.gateway.requests.task_ids import TaskIds
from mcpconn.gateway.rewrite import Json, result, to_server
from mcpconn.gateway.servers.eras import speaks_modern
from mcpconn.gateway.servers.relay import Relay
from mcpconn.gateway.servers.upstreams import ERA_PATIENCE, NotShared, Upstreams
from mcpconn.gateway.upstream_auth.calls import LoginsOfCalls
from mcpconn.gateway.upstream_auth.offering import LOGIN_TOOL, LoginNeeded, Offers
from mcpconn.gateway.upstream_auth.users import NoCredentials
from mcpconn.gateway.views import View
from mcpconn.keys import CANCEL, FIRST, IDEMPOTENCY_KEY, LEDGER
from mcpconn.names import Table
from mcpconn.seal import Sealer

if TYPE_CHECKING:
    from mcpconn.gateway.fleet.fleet import Fleet


class Forwarder:
    """The requests of one view."""

    def __init__(
        self,
        view: View,
        *,
        table: Table,
        lists: Lists,
        upstreams: Upstreams,
        relay: Relay,
        parking: ParkingLot,
        ledger: Ledger,
        extras: Extras,
        offers: Offers,
        sealer: Sealer,
        stamp: Callable[[], Json],
        trusted: Callable[[str], bool] = lambda server: False,
        fleet: Fleet | None = None,
    ) -> None:
        """
        Args:
            view: The visible servers and tools.
            table: Public names.
            lists: Answers the list methods.
            upstreams: The connections.
            relay: Unsolicited messages of servers.
            parking: Calls that wait for an answer of their client.
            ledger: Calls with an idempotency key.
            extras: What a legacy session keeps over a restart of the gateway.
            offers: Has users log in whose calls need it.
            sealer: Seals the ids of tasks.
            stamp: The gateway's `serverInfo`, for results of the modern era.
            trusted: Whether a server is a gateway of our own.
            fleet: This process as a replica; None if it is the whole gateway.
        """
        self._fleet = fleet
        self._located = Located(view, table)
        self._table = table
        self._lists = lists
        self._upstreams = upstreams
        self._relay = relay
        self._parking = parking
        self._ledger = ledger
        self._keyed = Keyed(ledger, parking)
        self.standing = Standing(
            view.name,
            relay=relay,
            upstreams=upstreams,
            extras=extras,
            located=self._located.resource,
            connection=self._connection,
        )
        self._param_headers = ParamHeaders()
        self._logins = LoginsOfCalls(offers, parking)
        ids = TaskIds(sealer, lambda: table.servers)
        self._tasks = TaskCalls(ids, lister=upstreams.lister, forward=self._of_task, servers=lambda: table.servers)
        self._modern_tasks = ModernTasks(ids, self._of_task)
        self._stamp = stamp
        self._trusted = trusted
        self._handlers: dict[str, Callable[[Call, Json], Awaitable[Json]]] = {
            **{method: partial(self._list, method) for method in KINDS},
            "tools/call": self._call_tool,
            "prompts/get": self._get_prompt,
            "resources/read": self._read,
            "resources/subscribe": self.standing.subscribe,
            "resources/unsubscribe": self.standing.unsubscribe,
            "completion/complete": self._complete,
            "logging/setLevel": self.standing.set_level,
            CANCEL: self._cancel,
        }

    async def __call__(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        if ctx.method == "notifications/initialized":
            await self.standing.initialized(ctx)
        elif ctx.method == "notifications/roots/list_changed":
            await self.standing.roots_changed(ctx)
        elif ctx.method == "server/discover":
            # Its answer has the servers' instructions in it.
            await self._lists.first_look()
        about_tasks = self._tasks_of(ctx).handlers.get(ctx.method)
        handler = about_tasks or self._handlers.get(ctx.method)
        if handler is None:
            if ctx.method == "ping":
                # A client that only pings also receives pending notifications.
                await self._relay.flush(Call(ctx, Downstream.of(ctx), ""))
            return await call_next(ctx)
        try:
            # The SDK's server would do it after its middleware, which this is.
            # It knows nothing of tasks, nor of what is ours.
            if ctx.method != CANCEL and about_tasks is None:
                protocol.validate_client_request(ctx.method, ctx.protocol_version, ctx.params)
        except KeyError:
            raise MCPError(METHOD_NOT_FOUND, "Method not found", ctx.method) from None
        if ctx.request is not None and ctx.method != "tools/call":
            await large.decide(ctx.request.scope, None, safe=True)
        call = Call(ctx, Downstream.of(ctx), "")
        await self._relay.flush(call)
        async with current(call):
            answer = await handler(call, dict(ctx.params or {}))
        return dressed(ctx, answer, self._stamp)

    # -- which server

    async def _connection(self, call: Call, server: str) -> Connection:
        call.server = server
        try:
            await self._upstreams.settle(server, call.client, ERA_PATIENCE)
            connection = self._upstreams.connection(server, call.client)
        except (NotShared, NoCredentials) as error:
            raise MCPError(INVALID_PARAMS, str(error), {"mcpconn/outcome": "not_run"}) from None
        if (level := self._relay.level_of(call)) is not None:
            await self._upstreams.set_level(connection, level)
        return connection

    # -- lists

    async def _list(self, method: str, call: Call, params: Json) -> Json:
        try:
            return await self._lists.page(method, params.get("cursor"), call.client)
        except BadCursor as error:
            raise MCPError(INVALID_PARAMS, str(error)) from None

    # -- tools

    async def _call_tool(self, call: Call, params: Json) -> Json:
        server, own = self._located.named(call, params, "tool")
        # Its annotations say whether it may run twice, so they are waited for if the server has just been connected.
        await self._lists.first_look(("tools",), server=server, client=call.client)
        if own == LOGIN_TOOL and self._upstreams.users.logs_in(server):
            return await self._logins.tool(call, await self._connection(call, server), Rounds.opened(params))
        if call.ctx.request is not None:
            safe = bool(self._idempotent(call, server, "tools/call", {"name": own}))
            call.quiet = await large.decide(call.ctx.request.scope, (server, own), safe=safe)
        meta = params.get("_meta") or {}
        rounds = Rounds.opened(params)
        own_key = meta.get(IDEMPOTENCY_KEY)
        if own_key is not None and (not isinstance(own_key, str) or own_key.startswith(ROUND)):
            raise MCPError(INVALID_PARAMS, f"{IDEMPOTENCY_KEY} must be a string that does not begin with {ROUND}")
        key = rounds.key or own_key
        sent = {**to_server(params), "name": own}
        if is_modern(call.ctx):
            # A task of the older era cannot be asked about in this one.
            sent.pop("task", None)
        # A modern client's stream can be cut at any time; a call with a key can be asked for again, so it goes on.
        detached = own_key is not None and is_modern(call.ctx)
        try:
            if rounds.parked is not None:
                return await self._resume(rounds, call, detached=detached)
            rounds.into(sent)
            if key is None:
                return await self._run_tool(call, server, sent, None, None)
            return await self._keyed.run(
                call.client,
                key,
                fingerprint_of("tools/call", server, {**params, "name": own, **rounds.salient}),
                partial(self._run_tool, call, server, sent),
                repeat_of=meta.get(LEDGER),
                new=meta.get(FIRST) is True,
                detached=detached,
            )
        except Ended as error:
            return tool_error(error.error.message, "unknown", {})
        except LoginNeeded as needed:
            return needed.result({})
        except CallFailed as error:
            return unanswered(error, server, {})

    async def _run_tool(self, call: Call, server: str, sent: Json, entry: Entry | None, parked: Parked | None) -> Json:
        """Run a tool, and write down what became of it if the call has a key.

        Args:
            call: Whose call it is.
            server: Where the tool is.
            sent: The request's parameters.
            entry: The call's in the ledger, if it has a key.
            parked: The task it runs in, if it is one of the gateway's own.
        """
        meta = {} if entry is None else {CALL_ID: entry.key.name}
        before = None if entry is None else partial(self._ledger.send, entry)
        try:
            connection = await self._connection(call, server)
            answer = await self._forward(call, connection, "tools/call", sent, before=before, parked=parked)
        except LoginNeeded as needed:
            if entry is not None:
                await self._ledger.drop(entry)
            return needed.result(meta)
        except CallFailed as error:
            if entry is not None:
                await (self._ledger.drop(entry) if error.outcome == "not_run" else self._ledger.unknown(entry))
            return unanswered(error, server, meta)
        except OwnershipLost as error:
            if entry is not None:
                await (self._ledger.unknown(entry) if error.sent else self._ledger.drop(entry))
            return tool_error(str(error), error.told, meta)
        except Ended:
            raise
        except MCPError as error:
            said = refused(error)
            if entry is not None:
                await self._ledger.answer(entry, {"error": said.error.model_dump(mode="json", exclude_none=True)})
            raise said from None
        except BaseException:
            if entry is not None:
                # Cancelled, or a bug in mcpconn: if the request was sent, it may have run.
                with anyio.CancelScope(shield=True):
                    await self._ledger.unknown(entry)
            raise
        if entry is not None:
            # A modern server's question is an answer as well: the same request again gets the same question.
            await self._ledger.answer(entry, {"result": answer})
        return answer

    async def _resume(self, rounds: Rounds, call: Call, *, detached: bool = False) -> Json:
        """Continue a parked call, in any replica."""
        assert rounds.parked is not None
        await ask_go_ahead(call.ctx.request, refused=Ended)
        client = call.client
        asked = (rounds.parked, client.principal, rounds.responses or {})
        if self._fleet is not None and rounds.owner and not self._parking.knows(rounds.parked):
            return await self._fleet.resume_elsewhere(rounds.owner, *asked)
        return await self._parking.resume(*asked, detached=detached, expires=client.expires)

    async def _cancel(self, call: Call, params: Json) -> Json:
        return await self._keyed.cancel(call.client.principal, params.get("key"))

    # -- prompts and resources

    async def _get_prompt(self, call: Call, params: Json) -> Json:
        server, own = self._located.named(call, params, "prompt")
        return await self._read_only(call, server, "prompts/get", {**to_server(params), "name": own}, params)

    async def _read(self, call: Call, params: Json) -> Json:
        server, own = self._located.resource(call, str(params.get("uri", "")))
        return await self._read_only(call, server, "resources/read", {**to_server(params), "uri": own}, params)

    async def _complete(self, call: Call, params: Json) -> Json:
        ref = dict(params.get("ref") or {})
        if ref.get("type") == "ref/prompt":
            server, ref["name"] = self._located.named(call, ref, "prompt")
        else:
            server, ref["uri"] = self._located.resource(call, str(ref.get("uri", "")))
        return await self._read_only(call, server, "completion/complete", {**to_server(params), "ref": ref}, params)

    async def _read_only(self, call: Call, server: str, method: str, sent: Json, params: Json) -> Json:
        rounds = Rounds.opened(params)
        if rounds.parked is not None:
            return await self._resume(rounds, call)
        rounds.into(sent)
        try:
            return await self._forward(call, await self._connection(call, server), method, sent)
        except OwnershipLost as error:
            raise MCPError(INTERNAL_ERROR, str(error), {OUTCOME: error.told}) from None
        except MCPError as error:
            raise refused(error) from None

    def _tasks_of(self, ctx: Context) -> TaskCalls | ModernTasks:
        return self._modern_tasks if is_modern(ctx) else self._tasks

    async def _of_task(self, call: Call, server: str, method: str, sent: Json) -> Json:
        return await self._read_only(call, server, method, sent, {})

    # -- the way to a server and back

    async def _forward(
        self,
        call: Call,
        connection: Connection,
        method: str,
        sent: Json,
        *,
        before: Callable[[], Awaitable[None]] | None = None,
        parked: Parked | None = None,
    ) -> Json:
        """One request to a server. A modern client's may be parked while its legacy server asks.

        Args:
            call: Whose request it is.
            connection: Where it goes.
            method: The JSON-RPC method.
            sent: Its parameters.
            before: Awaited immediately before it is sent.
            parked: The task it runs in, if it is one of the gateway's own.
        """
        guard = None if self._fleet is None else self._fleet.guard(call.client, call.server)
        level = self._relay.level_of(call) or ("debug" if not is_modern(call.ctx) else None)

        # The connection copies the parameters, but not what is inside them: so this can still be changed.
        meta = sent["_meta"] = dict(sent.get("_meta") or {})

        async def prepare() -> None:
            # The era is known for certain only now. A modern server is told the level of log messages with each
            # request; a legacy client that did not say takes what there is.
            if level is not None and speaks_modern(connection):
                meta[LOG_LEVEL_META_KEY] = level
            if method == "tools/call" and speaks_modern(connection):
                listed = self._upstreams.tools(call.server, call.client)
                self._param_headers.tell(connection, call.server, listed, str(sent["name"]))
            await let_out(call.ctx.request, connection, before, guard)
            sending()

        async def run(parked: Parked | None = None) -> Json:
            call.parked = parked
            async with self._relay.during(call, connection):
                answer = await connection.request(
                    method,
                    sent,
                    progress_callback=call.progress,
                    before=prepare,
                    idempotent=self._idempotent(call, call.server, method, sent),
                    rounds=not is_modern(call.ctx),
                )
            if guard is not None:
                await guard.after()
            answer = self._tasks_of(call.ctx).receipt(call, sent, self._answered(call.server, method, answer))
            return answer if guard is None else guard.told(answer)

        async def attempt(parked: Parked | None) -> Json:
            if not is_modern(call.ctx) or not call.client.abilities or speaks_modern(connection):
                return await run()
            if parked is not None:
                return await run(parked)
            begun = self._parking.begin(call.client.principal, run, expires=call.client.expires)
            return await self._parking.outcome(begun)

        return await self._logins.run(call, connection, attempt, parked)

    def _answered(self, server: str, method: str, answer: Json) -> Json:
        if answer.get("resultType") == "input_required":
            return Rounds.passed(answer)
        return result(method, answer, partial(self._table.uri, server), trusted=self._trusted(server))

    def _idempotent(self, call: Call, server: str, method: str, sent: Json) -> bool | None:
        """What a tool's annotations say. They are known from the listing, which is another connection's."""
        if method != "tools/call":
            return None
        return self._upstreams.harmless(server, str(sent["name"]), call.client)
