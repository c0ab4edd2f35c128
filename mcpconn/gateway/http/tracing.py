"""Spans through the gateway: a client's trace goes on in the gateway's spans, and from these in the servers'.

A client says in `_meta` which span its call belongs to, and the SDK's server makes its own span a child of that. One
that has HTTP instrumentation alone says it in a header, which counts if `_meta` says nothing. On the way to a server
both are written again, for the span of the request to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from opentelemetry import context, trace
from opentelemetry.propagate import extract
from starlette.types import Scope

from mcpconn.gateway.http.asgi import header


def continued(scope: Scope) -> AbstractContextManager[None]:
    """Run a block within the trace that the headers of a request name."""
    if header(scope, b"traceparent") is None:
        return _NONE
    return _continued(scope)


@contextmanager
def _continued(scope: Scope) -> Iterator[None]:
    carrier = {name: value for name in ("traceparent", "tracestate") if (value := header(scope, name.encode()))}
    found = extract(carrier)
    if not trace.get_current_span(found).get_span_context().is_valid:
        yield
        return
    token = context.attach(found)
    try:
        yield
    finally:
        context.detach(token)


_NONE: AbstractContextManager[None] = nullcontext()
"""For requests without a trace, which most are; it has no state."""
