"""What SDKs say by themselves, without a server: the texts of errors that their clients make up. All in lower case.

The connections' own transports report what happened and need none of it. It is for transports of the SDK's that users
bring (`mcp.client.streamable_http`, `stdio_client`), whose errors are texts and nothing else, and for `CLOSED` and
`CUT`, which every session of the SDK and its server can say. Written after mcp 2.3.0; `tests/sdk/test_words.py` fails
when a later one says something else. If a text is gone, its error is a suspicion like any other, and is probed.

The texts are in the core, and not in `mcpconn.sdk` with everything else of the SDK, because the rules read them.
"""

from __future__ import annotations

CLOSED = ("connection closed", "mcp error -32000: connection closed")
"""The transport has ended: `JSONRPCDispatcher`, and the TypeScript SDK behind a proxy."""
CANCELLED = ("request cancelled", "request was cancelled")
"""The caller gave up: the TypeScript SDK behind a proxy."""
CUT = "session terminated before the request completed"
"""The SDK's server ended the session under a request that was running."""
STREAM_CUT = "sse stream"
"""How `streamable_http` begins when an event stream failed or ended before the answer, or was not reopened."""
UNREADABLE = ("failed to parse", "server answered")
"""How `streamable_http` begins when an answer is no JSON-RPC, or 202 Accepted."""
NO_JSON = "unexpected content type"
"""How `streamable_http` begins when an answer is a page."""
REDIRECTED = "redirect to"
"""How `streamable_http` begins when a redirect was not followed."""
REFUSED = "server returned an error response"
"""`streamable_http`, for every status from 400 whose body is no JSON-RPC error."""
