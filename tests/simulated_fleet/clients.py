"""Clients of a fleet: bare ones of both eras that send plain HTTP requests, with and without idempotency keys."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import anyio
import httpx2

from mcpconn.keys import FIRST, IDEMPOTENCY_KEY, LEDGER, NEW_SESSION, OUTCOME

URL = "http://127.0.0.1:9000/mcp"
ACCEPT = {"accept": "application/json, text/event-stream"}
LEGACY, MODERN = "2025-11-25", "2026-07-28"
LONGEST = 75.0
"""Seconds after which a client gives a request up: longer than the gateway's own deadline of 60 s."""
TRIES = 4
"""Times that a call with a key is sent, as `mcpconn.Connection` would until it has an answer."""
TOOLS = ("charge", "charge", "look")
NOT_MADE = frozenset({"not_run", "refused", "busy", "unauthorized"})
"""What an attempt is told, or sees, that has certainly not run."""
TOLD = NOT_MADE | {"answered", "unknown", "ran", "broken"}
"""Everything that a client may be told. `broken`: its connection broke, or it waited for too long."""


@dataclass
class Attempt:
    """One request of a call."""

    began: float
    replica: str = ""
    """The replica that took it."""
    told: str = "broken"
    ended: float = float("inf")
    session: str = ""
    """The upstream session that ran it, if it was answered."""
    new_session: bool = False
    """The answer says that the upstream session is a new one."""


@dataclass
class Call:
    """One call."""

    id: str
    client: str
    server: str
    tool: str
    keyed: bool
    attempts: list[Attempt] = field(default_factory=list)

    def __str__(self) -> str:
        told = ", ".join(
            f"{each.told} by {each.replica} at {each.began:.2f}-{each.ended:.2f}" for each in self.attempts
        )
        return f"call {self.id} of {self.client} to {self.server}/{self.tool}{' with a key' * self.keyed}: {told}"


class Client:
    """One client, of one principal."""

    def __init__(
        self,
        name: str,
        key: str,
        era: str,
        random: Random,
        transport: httpx2.AsyncBaseTransport,
        taken: Callable[[], str],
        losses: Callable[[], int],
    ) -> None:
        """
        Args:
            name: For people.
            key: Its API key.
            era: `LEGACY` or `MODERN`.
            random: Where its choices come from.
            transport: Its way to the replicas.
            taken: The replica that took the last request.
            losses: How often the store has lost writes.
        """
        self.name, self.era = name, era
        self.calls: list[Call] = []
        self.ledger: str | None = None
        self.troubles: list[str] = []
        """What it saw that no client should see."""
        self.revoked = False
        self._random, self._taken, self._losses = random, taken, losses
        self._http = httpx2.AsyncClient(transport=transport, timeout=None)
        self._headers = {**ACCEPT, "authorization": f"Bearer {key}"}
        self._opened = False
        self._asked = 0

    async def live(self, until: float, servers: dict[str, Any]) -> None:
        """Make calls until then."""
        random = self._random
        await anyio.sleep(random.uniform(0, 1))
        while anyio.current_time() < until:
            await self.call(random.choice(list(servers)), random.choice(TOOLS), random.choice((0, 0, 0.3, 1.5, 4)))
            await anyio.sleep(random.choice((0.05, 0.5, 1, 2)))

    async def call(self, server: str, tool: str, seconds: float) -> Call:
        """Make a call; one with a key until it is answered, or for some times."""
        keyed = tool == "charge" and self._random.random() < 0.6
        call = Call(f"{self.name}-{len(self.calls)}", self.name, server, tool, keyed)
        self.calls.append(call)
        random = self._random
        hedges = keyed and random.random() < 0.5
        ledger = self.ledger
        for number in range(TRIES if keyed else 1):
            meta = self._meta(call, ledger)
            async with anyio.create_task_group() as group:
                group.start_soon(self._attempt, call, seconds, meta)
                if hedges and not number:
                    # The same call, by another replica as a rule, while the first is under way: a copy, as a proxy
                    # makes one, or a repeat.
                    copied, losses = random.random() < 0.5, self._losses()
                    await anyio.sleep(random.choice((0, 0.01, 0.2, random.uniform(0, 5))))
                    if not copied:
                        meta = self._meta(call, ledger)
                    elif self._losses() > losses:
                        # A copy that comes after a loss is beyond what is promised.
                        continue
                    group.start_soon(self._attempt, call, seconds, meta)
            if any(each.told in ("answered", "ran", "unauthorized") for each in call.attempts):
                break
            await anyio.sleep(0.2 * 2**number)
        return call

    @staticmethod
    def _meta(call: Call, ledger: str | None) -> dict[str, Any]:
        """What a request says of its call."""
        meta: dict[str, Any] = {}
        if call.keyed:
            meta[IDEMPOTENCY_KEY] = call.id
            if not call.attempts:
                meta[FIRST] = True
            elif ledger is not None and any(each.told not in NOT_MADE for each in call.attempts):
                meta[LEDGER] = ledger
        return meta

    async def _attempt(self, call: Call, seconds: float, meta: dict[str, Any]) -> None:
        attempt = Attempt(anyio.current_time())
        call.attempts.append(attempt)
        try:
            with anyio.move_on_after(LONGEST):
                if not self._opened:
                    opened = await self._open()
                    attempt.replica = self._taken()
                    if opened is not None:
                        attempt.told = opened
                        return
                name = f"{call.server}__{call.tool}"
                params = {"name": name, "arguments": {"call_id": call.id, "seconds": seconds}, "_meta": meta}
                await self._make(attempt, params)
        finally:
            attempt.ended = anyio.current_time()

    async def _make(self, attempt: Attempt, params: dict[str, Any]) -> None:
        try:
            answer = await self._ask("tools/call", params, attempt)
        except httpx2.ConnectError:
            attempt.told = "refused"
            return
        except httpx2.TransportError:
            return
        if isinstance(answer, int):
            attempt.told = self._status(answer)
            return
        result, error = answer.get("result"), answer.get("error")
        if error is not None:
            said = (error.get("data") or {}) if isinstance(error.get("data"), dict) else {}
            attempt.told = said.get(OUTCOME) or f"error {error}"
        else:
            more = result.get("_meta") or {}
            attempt.told = more.get(OUTCOME) or (f"error {result}" if result.get("isError") else "answered")
            attempt.session = (result.get("structuredContent") or {}).get("session", "")
            attempt.new_session = NEW_SESSION in more
        if attempt.told not in TOLD:
            self.troubles.append(f"{attempt.told} from {attempt.replica} at {anyio.current_time():.2f}")

    def _status(self, status: int) -> str:
        if status == 401:
            return "unauthorized"
        if status == 503:
            return "busy"
        self.troubles.append(f"status {status} from {self._taken()} at {anyio.current_time():.2f}")
        return f"status {status}"

    async def _open(self) -> str | None:
        """Begin a session, or ask what there is. What an attempt that cannot is told."""
        modern = self.era == MODERN
        params: dict[str, Any] = {}
        if not modern:
            params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": self.name, "version": "1"}}
        try:
            answer = await self._ask("server/discover" if modern else "initialize", params)
        except httpx2.TransportError:
            # Nothing of the call itself went out.
            return "refused"
        if isinstance(answer, int):
            return self._status(answer)
        said = answer["result"]["capabilities"].get("experimental") or {}
        self.ledger = (said.get(LEDGER) or {}).get("id")
        self._opened = True
        return None

    async def _ask(self, method: str, params: dict[str, Any], attempt: Attempt | None = None) -> Any:
        """The answer to a request, or the HTTP status if there is none."""
        headers = dict(self._headers)
        if self.era == MODERN:
            params = {**params, "_meta": {**params.get("_meta", {}), **self._said()}}
            headers |= {"mcp-protocol-version": MODERN, "mcp-method": method}
            if "name" in params:
                headers["mcp-name"] = params["name"]
        elif method != "initialize":
            headers["mcp-protocol-version"] = LEGACY
        self._asked += 1
        number = self._asked
        body = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        async with self._http.stream("POST", URL, json=body, headers=headers) as response:
            if attempt is not None:
                attempt.replica = self._taken()
            if (session := response.headers.get("mcp-session-id")) is not None:
                self._headers["mcp-session-id"] = session
            if response.status_code != 200:
                return response.status_code
            if response.headers["content-type"].startswith("application/json"):
                return json.loads(await response.aread())
            async for line in response.aiter_lines():
                if line.startswith("data: {") and (message := json.loads(line[6:])).get("id") == number:
                    return message
        raise httpx2.ReadError("the stream has ended without an answer")

    def _said(self) -> dict[str, Any]:
        return {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": {"name": self.name, "version": "1"},
        }
