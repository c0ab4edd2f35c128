"""The keyword arguments that many methods share, defined once, so that type checkers detect a misspelt one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import mcp_types as types
from typing_extensions import TypedDict

from mcpconn.core.rule import Rule
from mcpconn.policy import Policy
from mcpconn.runtime.clock import Clock

if TYPE_CHECKING:
    from mcp.client.caching import CacheConfig, CacheMode
    from mcp.client.extension import ClientExtension
    from mcp.client.session import IncomingMessage
    from mcp.shared.dispatcher import ProgressFnT

    from mcpconn.callbacks import ConnectionContext

PlainProgress = Callable[[float, "float | None", "str | None"], Any]
"""A `progress_callback` of a `SyncManager`: called in a worker thread; it may also be async."""
PlainCallback = Callable[..., Any]
"""A callback of a `SyncManager`: called in a worker thread, with the async one's arguments; or async."""


class CallOptions(TypedDict, total=False):
    """Arguments of every call."""

    timeout: float | None
    """Seconds for the whole call, including waiting, reconnecting and retrying. None: no limit. Default: the
    configuration's timeout, or the policy's `call_timeout` (60 s)."""
    idempotent: bool | None
    """True: running this call twice is harmless, so it may be retried when its outcome is unknown. False: it is not
    harmless. None: the method and the tool's annotations decide."""
    wait: bool
    """False raises `NotReady` at once when the connection is not ready. Default: True."""


class MetaOptions(CallOptions, total=False):
    """Additional arguments of a request with `_meta`."""

    meta: types.RequestParamsMeta | None
    """The request's `_meta`."""


class ListOptions(MetaOptions, total=False):
    """Additional arguments of a listing."""

    cursor: str | None
    """The page to list; None: the first."""
    cache_mode: CacheMode
    """Whether the SDK's cache of results is used; see `mcp.client.caching`."""


class RoundOptions(MetaOptions, total=False):
    """Additional arguments of a request that a modern server may answer with questions (`input_required`)."""

    input_responses: types.InputResponses | None
    """The answers to the server's questions."""
    request_state: str | None
    """The state that the server sent with its questions, to be returned with the answers."""


class ReadOptions(RoundOptions, total=False):
    """Additional arguments of `read_resource`."""

    cache_mode: CacheMode
    """Whether the SDK's cache of results is used; see `mcp.client.caching`."""


class ToolOptions(RoundOptions, total=False):
    """Additional arguments of `call_tool`."""

    max_total_timeout: float | None
    """Each progress notification gives the call another `timeout` seconds, up to this total. None: progress does not
    extend the deadline."""
    read_timeout_seconds: float | None
    """Seconds that the SDK waits for the answer to one attempt."""
    progress_callback: ProgressFnT | None
    """Called with progress. Progress proves that the call was running."""


class SyncToolOptions(RoundOptions, total=False):
    """As `ToolOptions`, for plain functions."""

    max_total_timeout: float | None
    """Each progress notification gives the call another `timeout` seconds, up to this total. None: progress does not
    extend the deadline."""
    read_timeout_seconds: float | None
    """Seconds that the SDK waits for the answer to one attempt."""
    progress_callback: ProgressFnT | PlainProgress | None
    """Called with progress, in a worker thread if it is a plain function."""


class SyncRequestOptions(CallOptions, total=False):
    """Additional arguments of `request`, for plain functions."""

    progress_callback: ProgressFnT | PlainProgress | None
    """Called with progress, in a worker thread if it is a plain function."""
    before: Callable[[], Awaitable[None]] | None
    """Awaited immediately before each time the request is passed to the session."""
    rounds: bool
    """Answer a modern server's questions with the connection's callbacks."""


class ListenOptions(CallOptions, total=False):
    """Additional arguments of `listen`."""

    tools_list_changed: bool
    prompts_list_changed: bool
    resources_list_changed: bool
    resource_subscriptions: Sequence[str]
    """URIs of the resources to watch."""


class _PlainClientOptions(TypedDict, total=False):
    client_info: types.Implementation | None
    """The client's name and version in the handshake."""
    log_level: types.LoggingLevel | None
    """The level of the server's log messages."""
    sampling_capabilities: types.SamplingCapability | None
    """The capabilities of `sampling_callback` beyond plain messages."""
    extensions: Sequence[ClientExtension] | None
    """Protocol extensions that the client supports."""
    input_required_max_rounds: int
    """How many times a server may answer one call with questions."""
    raise_exceptions: bool
    """Raise the exceptions of a server in this process."""
    read_timeout_seconds: float | None
    """Seconds that the SDK waits for the answer to one attempt."""
    cache: CacheConfig | None
    """The SDK's cache of results."""
    mode: str
    """How to negotiate the protocol version: `auto`, `legacy`, or a modern version. An entry's own `mode` overrides
    it."""
    prior_discover: types.DiscoverResult | None
    """What is known about a server whose version `mode` names."""


if TYPE_CHECKING:
    SamplingCallback = Callable[
        [ConnectionContext, types.CreateMessageRequestParams],
        Awaitable[types.CreateMessageResult | types.CreateMessageResultWithTools | types.ErrorData],
    ]
    ElicitationCallback = Callable[
        [ConnectionContext, types.ElicitRequestParams], Awaitable[types.ElicitResult | types.ErrorData]
    ]


class ClientOptions(_PlainClientOptions, total=False):
    """Arguments that are passed to every `mcp.Client` of a connection."""

    sampling_callback: SamplingCallback | None
    """Answers sampling requests."""
    elicitation_callback: ElicitationCallback | None
    """Answers elicitation requests."""
    list_roots_callback: Callable[[ConnectionContext], Awaitable[types.ListRootsResult | types.ErrorData]] | None
    """Answers requests for roots: the folders that the server may use."""
    logging_callback: Callable[[types.LoggingMessageNotificationParams], Awaitable[None]] | None
    """Called with the server's log messages."""
    message_handler: Callable[[IncomingMessage], Awaitable[None]] | None
    """Called with every notification."""


class SyncClientOptions(_PlainClientOptions, total=False):
    """As `ClientOptions`, for plain functions."""

    sampling_callback: PlainCallback | None
    elicitation_callback: PlainCallback | None
    list_roots_callback: PlainCallback | None
    logging_callback: PlainCallback | None
    message_handler: PlainCallback | None


class ManagerOptions(ClientOptions, total=False):
    """Arguments of `Manager.from_file` besides the file."""

    policy: Policy | None
    """Timeouts and limits for all servers."""
    rules: Iterable[Rule]
    """Classification rules that are tried before the core's."""
    clock: Clock | None
    """Time and randomness, for tests."""


class SyncManagerOptions(SyncClientOptions, total=False):
    """Arguments of `SyncManager.from_file` besides the file."""

    policy: Policy | None
    """Timeouts and limits for all servers."""
    rules: Iterable[Rule]
    """Classification rules that are tried before the core's."""
    backend: str
    """The event loop of the background thread: `asyncio` or `trio`."""
    backend_options: dict[str, Any] | None
    """Options for `anyio.run`, such as `{"use_uvloop": True}`."""
