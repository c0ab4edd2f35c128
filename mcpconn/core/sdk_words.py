"""Texts of errors that the clients of SDKs create locally, without a server. All are in lower case.

mcpconn's own transports report what happened and do not need these texts. They are for the SDK's transports that users
pass (`mcp.client.streamable_http`, `stdio_client`), whose errors consist only of texts, and for `CLOSED` and `CUT`,
which every session of the SDK and its server can produce. They match mcp 2.3.0; `tests/sdk/test_words.py` fails if a
later version uses other texts. An error with an unknown text is a suspicion like any other, and is probed.

The texts are in the core, not in `mcpconn.sdk` with everything else about the SDK, because the rules use them.
"""

from __future__ import annotations

CLOSED = ("connection closed", "mcp error -32000: connection closed")
"""The transport has ended: `JSONRPCDispatcher`, and the TypeScript SDK behind a proxy."""
CANCELLED = ("request cancelled", "request was cancelled")
"""The caller cancelled: the TypeScript SDK behind a proxy."""
CUT = "session terminated before the request completed"
"""The SDK's server ended the session while the request was running."""
STREAM_CUT = "sse stream"
"""The beginning of the texts of `streamable_http` when an event stream failed or ended before the answer, or was not
reopened."""
UNREADABLE = ("failed to parse", "server answered")
"""The beginning when an answer is not JSON-RPC, or is 202 Accepted."""
NO_JSON = "unexpected content type"
"""The beginning when an answer is a web page."""
REDIRECTED = "redirect to"
"""The beginning when a redirect was not followed."""
REFUSED = "server returned an error response"
"""The text for every status of 400 or above whose body is not a JSON-RPC error."""
