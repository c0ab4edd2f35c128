"""Calls that wait for their client's answer, if a legacy server asks a modern client during a call.

A legacy server sends a question and waits; a modern client is asked by the result of its request, and answers in the
next one. In between there is no open stream, so the call is parked: it continues in its own task, its question is sent
as `input_required`, and the answer's `requestState` names the parked call. A name takes one answer, is bound to the
principal, the view and the request, and expires: after ten minutes, or with the access token that the call or its last
answer came with. What ends a parked call without an answer cancels it upstream.
"""

from __future__ import annotations

import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio
import mcp_types as types
from mcp import MCPError
from mcp_types import INVALID_PARAMS, INVALID_REQUEST

from mcpconn.gateway.background import Background
from mcpconn.gateway.clients.rounds import wrapped
from mcpconn.gateway.principals import Principal
from mcpconn.gateway.rewrite import Json
from mcpconn.keys import OUTCOME

PER_PRINCIPAL = 16
"""Parked calls of one principal."""
EXPIRY = 600.0
"""Seconds that a question waits for its answer."""
ROUNDS = 10
"""Times that one call may ask; the SDK's client gives up after as many."""


class Parked:
    """One call that runs in a task of its own, and that its server may ask something in between."""

    def __init__(
        self, principal: Principal, *, asked: Callable[[Json], None] | None = None, expires: float | None = None
    ) -> None:
        """
        Args:
            principal: Who called, and alone may go on with it.
            asked: Told of each question as it goes out.
            expires: When the caller's access token expires, in seconds since 1970; None if it has none.
        """
        self.principal = principal
        self.expires = expires
        self.asked = asked
        self.rounds = 0
        self.scope = anyio.CancelScope()
        self._questions: dict[str, types.ServerRequest] = {}
        self._answers: dict[str, tuple[anyio.Event, list[Any]]] = {}
        self._changed = anyio.Event()
        self._result: Json | None = None
        self._error: Exception | None = None

    @property
    def over(self) -> bool:
        """Whether the call has ended."""
        return self._result is not None or self._error is not None

    async def run(self, call: Callable[[], Awaitable[Json]]) -> None:
        """Run the call to its end, in a task of the gateway's."""
        try:
            with self.scope:
                self._result = await call()
            if self.scope.cancelled_caught:
                self._error = Ended(
                    "The call was cancelled: its question was not answered in time, its client's credential ended, or "
                    "its client cancelled it. It is not known whether the tool ran."
                )
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
        while not self.over and not self._questions:
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


class Turn:
    """A call from one request of its client to the end, or to its next question."""

    def __init__(self, parked: Parked) -> None:
        self.parked = parked
        self.done = anyio.Event()
        self.result: Json | None = None
        self.error: Exception | None = None


class _Asked:
    """A question that went out, and the turn that its answer began."""

    def __init__(self, parked: Parked) -> None:
        self.parked = parked
        self.answer: str | None = None
        """The answer as it came; None until there is one."""
        self.turn: Turn | None = None

    @property
    def waits(self) -> bool:
        """Whether the call waits for this answer."""
        return self.answer is None and not self.parked.over


class ParkingLot:
    """The calls of this process that run in tasks of their own."""

    def __init__(
        self,
        group: Background,
        *,
        per_principal: int = PER_PRINCIPAL,
        expiry: float = EXPIRY,
        owner: Callable[[], str] = lambda: "",
        wall: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            group: Runs calls; they may outlive the request that began them.
            per_principal: Parked calls of one principal at once.
            expiry: Seconds that a question waits.
            owner: This replica's name; nothing if there are no others.
            wall: Seconds since 1970, as in access tokens.
        """
        self._owner = owner
        self._wall = wall
        self._group = group
        self._per_principal = per_principal
        self._expiry = expiry
        self._asked: OrderedDict[str, _Asked] = OrderedDict()

    def begin(
        self,
        principal: Principal,
        call: Callable[[Parked], Awaitable[Json]],
        *,
        asked: Callable[[Json], None] | None = None,
        expires: float | None = None,
    ) -> Turn:
        """Begin a call that may be parked.

        Args:
            principal: Who calls.
            call: Runs the call.
            asked: Told of each question as it goes out.
            expires: When the caller's access token expires, in seconds since 1970.
        """
        parked = Parked(principal, asked=asked, expires=expires)
        self._group.start_soon(parked.run, lambda: call(parked))
        return self._turn(parked)

    async def outcome(self, turn: Turn, *, detached: bool = False) -> Json:
        """The call's result, or an `input_required` that names it; what it raises is raised.

        Args:
            turn: From `begin`.
            detached: The call goes on if the request that waits here is cancelled. Otherwise it is cancelled, too.
        """
        try:
            await turn.done.wait()
        except anyio.get_cancelled_exc_class():
            if not detached:
                turn.parked.scope.cancel()
            raise
        if turn.error is not None:
            raise turn.error
        assert turn.result is not None
        return turn.result

    def knows(self, name: str) -> bool:
        """Whether a call is or was parked under this name in this process."""
        return name in self._asked

    async def resume(
        self,
        name: str,
        principal: Principal,
        responses: Mapping[str, Any],
        *,
        detached: bool = False,
        expires: float | None = None,
    ) -> Json:
        """Go on with a parked call. The same answer again, after a lost response, joins the first or gets its result.

        Args:
            name: From the answer's `requestState`.
            principal: Who answers.
            responses: The answers.
            detached: As in `outcome`.
            expires: When the token that the answer came with expires: it is the one that the next question ends with.

        Raises:
            Ended: no call of this principal waits under this name. It may have been answered, have expired, or have
                been in a process that is gone: its outcome is unknown.
        """
        asked = self._asked.get(name)
        if asked is None or asked.parked.principal != principal:
            raise Ended(
                "No call waits for this answer: it has expired, was cancelled, or the gateway was restarted. It is not "
                "known whether the tool ran."
            )
        given = json.dumps(responses, sort_keys=True, separators=(",", ":"))
        if asked.turn is None:
            asked.answer = given
            asked.parked.expires = expires
            asked.parked.answer(responses)
            asked.turn = self._turn(asked.parked)
        elif asked.answer != given:
            raise Ended("This question was answered before, with another answer. Only the first one counts.")
        return await self.outcome(asked.turn, detached=detached)

    def end(self, principal: Principal) -> None:
        """Cancel the calls of a principal that wait for an answer: it may not go on with them."""
        for asked in tuple(self._asked.values()):
            if asked.waits and asked.parked.principal == principal:
                asked.parked.scope.cancel()

    def _turn(self, parked: Parked) -> Turn:
        turn = Turn(parked)
        # In a task of its own: the request that waits for it may be cut off, and another one come for the same.
        self._group.start_soon(self._take, turn)
        return turn

    async def _take(self, turn: Turn) -> None:
        try:
            turn.result = await self._next(turn.parked)
        except Exception as error:
            turn.error = error
        finally:
            turn.done.set()

    async def _next(self, parked: Parked) -> Json:
        found = await parked.wait()
        if not found or not all(isinstance(each, types.Request) for each in found.values()):
            return found
        parked.rounds += 1
        if parked.rounds > ROUNDS:
            parked.scope.cancel()
            raise Ended(f"The server asked more than {ROUNDS} times during one call, so it was cancelled.")
        if sum(each.waits and each.parked.principal == parked.principal for each in self._asked.values()) >= (
            self._per_principal
        ):
            parked.scope.cancel()
            raise Ended(f"{self._per_principal} calls wait for an answer already, so this one was cancelled.")
        name = secrets.token_urlsafe(12)
        self._asked[name] = _Asked(parked)
        self._group.start_soon(self._expire, name)
        questions = {
            key: question.model_dump(by_alias=True, mode="json", exclude_none=True) for key, question in found.items()
        }
        answer = {
            "resultType": "input_required",
            "inputRequests": questions,
            "requestState": wrapped("parked", name, owner=self._owner()),
        }
        if parked.asked is not None:
            parked.asked(answer)
        return answer

    async def _expire(self, name: str) -> None:
        asked = self._asked[name]
        expires = asked.parked.expires
        left = self._expiry if expires is None else min(self._expiry, max(0.0, expires - self._wall()))
        await anyio.sleep(left)
        if asked.waits:
            asked.parked.scope.cancel()
        # Until then an answer that was given can be sent again, whatever became of the token.
        await anyio.sleep(self._expiry - left)
        del self._asked[name]

    def __len__(self) -> int:
        """Calls that wait for an answer now."""
        return sum(each.waits for each in self._asked.values())


class Ended(MCPError):
    """A call cannot go on; whether it ran is unknown."""

    def __init__(self, text: str) -> None:
        super().__init__(INVALID_PARAMS, text, {OUTCOME: "unknown"})
