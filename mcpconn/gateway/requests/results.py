"""A result in the form of its client's era."""

from __future__ import annotations

from collections.abc import Callable

from mcp_types import SERVER_INFO_META_KEY

from mcpconn.gateway.clients.downstream import Context, is_modern
from mcpconn.gateway.http.notes import had_earlier_try
from mcpconn.gateway.outcomes import EARLIER, OUTCOME
from mcpconn.gateway.requests.lists import KINDS
from mcpconn.gateway.rewrite import Json


def dressed(ctx: Context, answer: Json, stamp: Callable[[], Json]) -> Json:
    """The answer with what its era wants around it.

    Args:
        ctx: The request that it answers.
        answer: The result.
        stamp: The gateway's `serverInfo`.
    """
    if ctx.request is not None and had_earlier_try(ctx.request.scope):
        answer = _doubted(answer)
    if not is_modern(ctx):
        return {key: value for key, value in answer.items() if key not in ("resultType", "ttlMs", "cacheScope")}
    answer = {"resultType": "complete", **answer}
    if ctx.method in KINDS or ctx.method == "resources/read":
        # A list can change with any server's, so it is not to be kept.
        answer = {"ttlMs": 0, "cacheScope": "private", **answer}
    answer["_meta"] = {**(answer.get("_meta") or {}), SERVER_INFO_META_KEY: stamp()}
    return answer


def _doubted(answer: Json) -> Json:
    """The answer to a request of which an earlier try may have run: it cannot say that the call did not run."""
    meta = answer.get("_meta") or {}
    if meta.get(OUTCOME) != "not_run":
        return answer
    said = [*answer.get("content", ()), {"type": "text", "text": EARLIER}]
    return {**answer, "content": said, "_meta": {**meta, OUTCOME: "unknown"}}
