"""The keyword arguments that many methods share, defined once: a misspelt one is an error for type checkers."""

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
    """What every call takes."""

    timeout: float | None
    """Seconds for the whole call, waiting, reconnecting and retrying included. None: no limit. Not given: the
    configuration's, or the policy's `call_timeout` (60 s)."""
    idempotent: bool | None
    """True: running this call twice does no harm, so it may be retried when its outcome is unknown. False: it is not.
    None: the method and the tool's annotations say it."""
    wait: bool
    """False raises `NotReady` at once when the connection is not ready. Default: True."""


class MetaOptions(CallOptions, total=False):
    """What a request with `_meta` takes, too."""

    meta: types.RequestParamsMeta | None
    """The request's `_meta`."""


class ListOptions(MetaOptions, total=False):
    """What a listing takes, too."""

    cursor: str | None
    """The page to list; None: the first."""
    cache_mode: CacheMode
    """Whether the SDK's cache of results is used; see `mcp.client.caching`."""


class RoundOptions(MetaOptions, total=False):
    """What a request takes, too, that a modern server may answer with questions (`input_required`)."""

    input_responses: types.InputResponses | None
    """The answers to the server's questions."""
    request_state: str | None
    """What the server sent with its questions, to be returned with the answers."""


class ReadOptions(RoundOptions, total=False):
    """What `read_resource` takes, too."""

    cache_mode: CacheMode
    """Whether the SDK's cache of results is used; see `mcp.client.caching`."""


class ToolOptions(RoundOptions, total=False):
    """What `call_tool` takes, too."""

    max_total_timeout: float | None
    """Each progress gives the call another `timeout` seconds, until it has taken so many in all. None: it does not."""
    read_timeout_seconds: float | None
    """Seconds that the SDK waits for the answer to one attempt."""
    progress_callback: ProgressFnT | None
    """Told of progress. Progress proves that the call was running."""


class SyncToolOptions(RoundOptions, total=False):
    """As `ToolOptions`, for plain functions."""

    max_total_timeout: float | None
    """Each progress gives the call another `timeout` seconds, until it has taken so many in all. None: it does not."""
    read_timeout_seconds: float | None
    """Seconds that the SDK waits for the answer to one attempt."""
    progress_callback: ProgressFnT | PlainProgress | None
    """Told of progress, in a worker thread if it is a plain function."""


class RequestOptions(CallOptions, total=False):
    """What `request` takes, too."""

    progress_callback: ProgressFnT | None
    """Told of progress."""
    before: Callable[[], Awaitable[None]] | None
    """Awaited each time immediately before the request is handed to the session."""
    rounds: bool
    """Answer a modern server's questions with the connection's callbacks."""


class SyncRequestOptions(CallOptions, total=False):
    """As `RequestOptions`, for plain functions."""

    progress_callback: ProgressFnT | PlainProgress | None
    """Told of progress, in a worker thread if it is a plain function."""
    before: Callable[[], Awaitable[None]] | None
    """Awaited each time immediately before the request is handed to the session."""
    rounds: bool
    """Answer a modern server's questions with the connection's callbacks."""


class ListenOptions(CallOptions, total=False):
    """What `listen` takes, too."""

    tools_list_changed: bool
    prompts_list_changed: bool
    resources_list_changed: bool
    resource_subscriptions: Sequence[str]
    """URIs of the resources to be told about."""


class _PlainClientOptions(TypedDict, total=False):
    client_info: types.Implementation | None
    """What the client calls itself in the handshake."""
    log_level: types.LoggingLevel | None
    """The level of the server's log messages."""
    sampling_capabilities: types.SamplingCapability | None
    """What `sampling_callback` can do beyond plain messages."""
    extensions: Sequence[ClientExtension] | None
    """Extensions of the protocol that the client speaks."""
    input_required_max_rounds: int
    """How often a server may answer one call with questions."""
    raise_exceptions: bool
    """Raise what a server in this process raises."""
    read_timeout_seconds: float | None
    """Seconds that the SDK waits for the answer to one attempt."""
    cache: CacheConfig | None
    """The SDK's cache of results."""
    mode: str
    """How to agree on a protocol version: `auto`, `legacy`, or a modern version. An entry's own goes before."""
    prior_discover: types.DiscoverResult | None
    """What is known of a server whose version `mode` names."""


if TYPE_CHECKING:
    SamplingCallback = Callable[
        [ConnectionContext, types.CreateMessageRequestParams],
        Awaitable[types.CreateMessageResult | types.CreateMessageResultWithTools | types.ErrorData],
    ]
    ElicitationCallback = Callable[
        [ConnectionContext, types.ElicitRequestParams], Awaitable[types.ElicitResult | types.ErrorData]
    ]


class ClientOptions(_PlainClientOptions, total=False):
    """What is passed to every `mcp.Client` of a connection."""

    sampling_callback: SamplingCallback | None
    """Samples from a language model for the server."""
    elicitation_callback: ElicitationCallback | None
    """Asks the user for the server."""
    list_roots_callback: Callable[[ConnectionContext], Awaitable[types.ListRootsResult | types.ErrorData]] | None
    """Tells the server which folders it may use."""
    logging_callback: Callable[[types.LoggingMessageNotificationParams], Awaitable[None]] | None
    """Told of the server's log messages."""
    message_handler: Callable[[IncomingMessage], Awaitable[None]] | None
    """Told of every notification."""


class SyncClientOptions(_PlainClientOptions, total=False):
    """As `ClientOptions`, for plain functions."""

    sampling_callback: PlainCallback | None
    elicitation_callback: PlainCallback | None
    list_roots_callback: PlainCallback | None
    logging_callback: PlainCallback | None
    message_handler: PlainCallback | None


class ManagerOptions(ClientOptions, total=False):
    """What `Manager.from_file` takes beside the file."""

    policy: Policy | None
    """Timeouts and limits for all servers."""
    rules: Iterable[Rule]
    """Rules of classification to be tried before the core's."""
    clock: Clock | None
    """Time and randomness, for tests."""


class SyncManagerOptions(SyncClientOptions, total=False):
    """What `SyncManager.from_file` takes beside the file."""

    policy: Policy | None
    """Timeouts and limits for all servers."""
    rules: Iterable[Rule]
    """Rules of classification to be tried before the core's."""
    backend: str
    """The event loop of the background thread: `asyncio` or `trio`."""
    backend_options: dict[str, Any] | None
    """Of `anyio.run`, such as `{"use_uvloop": True}`."""
