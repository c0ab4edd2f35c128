"""The only package that touches private parts of the SDK: names with an underscore, replaced methods, its error texts.

Written for mcp 2.3.0, httpx2 2.16 and httpcore2 2.16. `tests/test_house.py` checks that no other package of mcpconn
does. For each entry there is a canary in `tests/sdk`, which fails when a later SDK has changed; `make canary` runs them
against the newest one.

`wire`, `auth` and the gateway import it. The SDK's texts that the rules match are in `mcpconn/core/sdk_words.py`,
because the core imports nothing.

| name | why it is needed | what happens without it |
| --- | --- | --- |
| **client** | | |
| `ClientSession.validate_tool_result` (public) | it lists tools inside a call | calls list tools again |
| `ClientSession._tool_output_schemas` | says whether a schema is known | results are not validated |
| `ClientSession._absorb_tool_listing` | a new session knows the tools' headers | HEADER_MISMATCH costs a listing |
| `Client._response_cache`, `Client._session` | one cache for all sessions | each session begins with an empty one |
| `Client._folded_extensions` | extensions are asked once, not at each session | they are asked at each session |
| `ClientSession._dispatcher`, `_stamp` | it refuses the receipt of a task as no result | tools that need tasks fail |
| `Client._relist_tool` | its request must not touch the call's record | a failed listing hides the refusal |
| `mcp.client._memory.InMemoryTransport` | its streams are wrapped | an ImportError: legacy servers in process are out |
| `mcp.shared.direct_dispatcher` raising by itself | tells its own timeout from a server's error | every such error is
taken for the server's |
| **http** | | |
| `httpx2.AsyncHTTPTransport._pool` | its idle sockets are swept | swept at the next request |
| `httpcore2.AsyncConnectionPool._network_backend` | sockets of ours | early refusals of large requests are not seen |
| `httpx2._utils.get_environment_proxies`, `URLPattern` | which proxy is for a URL | the rules of urllib |
| **server** | | |
| `StreamableHTTPServerTransport._handle_post_request`, `connect` | five tasks and three queues for each request | calls
take half as long again |
| `StreamableHTTPSessionManager._admit_session` | it makes the transports | the SDK's are used |
| `mcp.server._streamable_http_modern.handle_modern_request`, `_lifespan_state` | answers with JSON, where nothing comes
first | two tasks and a queue for each request |
| `mcp.shared._context_streams` | a request is served in the context in which it came | an ImportError |
| **oauth**, of `OAuthClientProvider` | | |
| `_initialize` | loads the client; providers with a fixed one set theirs here | it runs by itself |
| `_perform_authorization` | gets a grant (a login, an assertion), builds the token request | it runs by itself |
| `_validate_resource_match` | RFC 9728's check, with the host's own callback if it gave one | it runs by itself |
| `_select_authorization_server` | which server a provider with a fixed issuer wants | it runs by itself |
| `_issuer` | the one issuer that a provider for client credentials may talk to | it has none |
| `_auth_flow`, `_handle_...`, ... | a subclass that overrides one wants its own flow | not compared |
"""
