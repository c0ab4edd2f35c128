"""Puts the trace context of a message into the headers of its HTTP request (W3C Trace Context)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_PARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_STATE = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,510}[\x21-\x7e])?")


def trace_headers(params: Mapping[str, Any] | None) -> dict[str, str]:
    """The headers for a request with these parameters; none if it belongs to no trace.

    The SDK writes the trace into `_meta`, which only the server's protocol layer reads. Proxies, load balancers and the
    server's HTTP instrumentation read headers.
    """
    meta = (params or {}).get("_meta")
    if not isinstance(meta, Mapping):
        return {}
    parent, state = meta.get("traceparent"), meta.get("tracestate")
    if not isinstance(parent, str) or not _PARENT.fullmatch(parent):
        return {}
    return {
        "traceparent": parent,
        **({"tracestate": state} if isinstance(state, str) and _STATE.fullmatch(state) else {}),
    }
