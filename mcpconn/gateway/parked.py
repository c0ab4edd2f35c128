"""Calls that wait for their client's answer: a modern client, and a legacy server that asks in the middle of a call.

A legacy server sends a question and waits; a modern client is asked by the result of its request, and answers in the
next one. In between nobody holds a stream, so the call is parked: it goes on in a task of its own, its question goes
out as `input_required`, and the answer's `requestState` names the parked call. A name is used once, is bound to the
principal, the view and the request, and expires. What ends a parked call without an answer cancels it upstream.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio
import mcp_types as types
from anyio.abc import TaskGroup
from mcp import MCPError
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST

from mcpconn.gateway.principals import Principal
from mcpconn.gateway.rewrite import Json
from mcpconn.gateway.rounds import wrapped

PER_PRINCIPAL = 16
"""Parked calls of one principal."""
EXPIRY = 600.0
"""Seconds that a question waits for its answer."""
ROUNDS = 10
"""Times that one call may ask; the SDK's client gives up after as many."""


class Parked:
    """One call of a modern client that its server may ask something in between."""

    def __init__(self, principal: Principal, fingerprint: str) -> None:
        """
        Args:
            principal: Who called, and alone may go on with it.
            fingerprint: What was called; the answer comes with the same call.
        """
        self.principal = principal
        self.fingerprint = fingerprint
        self.rounds = 0
        self.scope = anyio.CancelScope()
        self._questions: dict[str, types.ServerRequest] = {}
        self._answers: dict[str, tuple[anyio.Event, list[Any]]] = {}
        self._changed = anyio.Event()
        self._result: Json | None = None
        self._error: Exception | None = None

    async def run(self, call: Callable[[], Awaitable[Json]]) -> None:
        """Run the call to its end, in a task of the gateway's."""
        try:
            with self.scope:
                self._result = await call()
            if self.scope.cancelled_caught:
                self._error = MCPError(INTERNAL_ERROR, "the call was cancelled, because its question was not answered")
        except Exception as error:
            self._error = error
        finally:
            for event, _ in self._answers.values():
                event.set()
            self._changed.set()

    async def ask(self, question: types.ServerRequest) -> Any:
        """A question of the server: returns the client's answer, as it came.

        Raises:
            MCPError: the client cannot be asked any more, or did not answer.
        """
        key = secrets.token_urlsafe(6)
        event, answers = self._answers[key] = (anyio.Event(), [])
        self._questions[key] = question
        self._changed.set()
        await event.wait()
        self._answers.pop(key, None)
        if not answers:
            raise MCPError(INVALID_REQUEST, "the client did not answer the question")
        return answers[0]

    async def wait(self) -> dict[str, types.ServerRequest] | Json:
        """The call's result, or the questions that came up meanwhile: a dict of requests by key.

        Raises:
            Exception: what the call raised.
        """
        while self._result is None and self._error is None and not self._questions:
            await self._changed.wait()
            self._changed = anyio.Event()
        if self._error is not None:
            raise self._error
        if self._result is not None:
            return self._result
        questions, self._questions = self._questions, {}
        return questions

    def answer(self, responses: Mapping[str, Any]) -> None:
        """Hand on the client's answers. A question without one is refused."""
        for key, (event, answers) in self._answers.items():
            if key in responses:
                answers.append(responses[key])
            event.set()


class ParkingLot:
    """The parked calls of this process."""

    def __init__(self, group: TaskGroup, *, per_principal: int = PER_PRINCIPAL, expiry: float = EXPIRY) -> None:
        """
        Args:
            group: Runs calls; they may outlive the request that began them.
            per_principal: Parked calls of one principal at once.
            expiry: Seconds that a question waits.
        """
        self._group = group
        self._per_principal = per_principal
        self._expiry = expiry
        self._by_name: dict[str, Parked] = {}

    def begin(self, principal: Principal, fingerprint: str, call: Callable[[Parked], Awaitable[Json]]) -> Parked:
        """Begin a call that may be parked."""
        parked = Parked(principal, fingerprint)
        self._group.start_soon(parked.run, lambda: call(parked))
        return parked

    async def next(self, parked: Parked) -> Json:
        """The call's result, or an `input_required` that names it; what it raises is raised.

        If the request that waits here is cancelled, the call is cancelled too: its client has gone.
        """
        try:
            found = await parked.wait()
        except BaseException:
            parked.scope.cancel()
            raise
        if not all(isinstance(each, types.Request) for each in found.values()) or not found:
            return found
        parked.rounds += 1
        if parked.rounds > ROUNDS:
            parked.scope.cancel()
            raise MCPError(INTERNAL_ERROR, f"the server asked more than {ROUNDS} times during one call")
        if sum(each.principal == parked.principal for each in self._by_name.values()) >= self._per_principal:
            parked.scope.cancel()
            raise MCPError(INTERNAL_ERROR, f"{self._per_principal} calls wait for an answer already; answer them first")
        name = secrets.token_urlsafe(12)
        self._by_name[name] = parked
        self._group.start_soon(self._expire, name)
        questions = {
            key: question.model_dump(by_alias=True, mode="json", exclude_none=True) for key, question in found.items()
        }
        return {"resultType": "input_required", "inputRequests": questions, "requestState": wrapped("parked", name)}

    async def resume(self, name: str, principal: Principal, fingerprint: str, responses: Mapping[str, Any]) -> Json:
        """Go on with a parked call.

        Raises:
            MCPError: no call of this principal waits under this name. It may have been answered, have expired, or have
                been in a process that is gone: its outcome is unknown.
        """
        parked = self._by_name.get(name)
        if parked is None or parked.principal != principal or parked.fingerprint != fingerprint:
            raise MCPError(
                INVALID_PARAMS,
                "no call waits for this answer: it was answered before, has expired, or the gateway was restarted. "
                "It is not known whether the tool ran",
                {"mcpconn/outcome": "unknown"},
            )
        del self._by_name[name]
        parked.answer(responses)
        return await self.next(parked)

    async def _expire(self, name: str) -> None:
        await anyio.sleep(self._expiry)
        parked = self._by_name.pop(name, None)
        if parked is not None:
            parked.scope.cancel()

    def __len__(self) -> int:
        """Calls that wait for an answer now."""
        return len(self._by_name)
