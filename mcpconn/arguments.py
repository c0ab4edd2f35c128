"""The arguments of a connection that `mcp.Client` has, too, under the names that it has for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, TypeVar, overload

import mcp_types as types
from mcp import Client
from mcp.client.caching import CacheConfig, ClientResponseCache
from mcp.client.extension import ClientExtension
from mcp.client.session import ElicitationFnT, ListRootsFnT, LoggingFnT, MessageHandlerFnT, SamplingFnT
from typing_extensions import Self

from mcpconn.config import ServerConfig
from mcpconn.errors import ArgumentError, ConfigError
from mcpconn.sdk.client import response_cache

T = TypeVar("T")


class _Argument(Generic[T]):
    """Reads an argument: as it was given, or else the SDK's default."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Arguments, owner: type) -> T: ...
    def __get__(self, instance: Arguments | None, owner: type) -> Any:
        if instance is None:
            return self
        given, defaults = instance._arguments
        return given[self._name] if self._name in given else getattr(defaults, self._name)


class Arguments:
    """The public fields of `mcp.Client`. They are read only: a connection has made its copies."""

    _arguments: tuple[Mapping[str, Any], Client]
    """What was given, and a client that has the defaults of the rest."""

    server = _Argument[Any]()
    """What the first argument was."""
    mode = _Argument[str]()
    """How the protocol version is agreed on."""
    prior_discover = _Argument[types.DiscoverResult | None]()
    """What is known of a server whose version `mode` pins."""
    raise_exceptions = _Argument[bool]()
    """Whether a server in this process raises its exceptions here."""
    read_timeout_seconds = _Argument[float | None]()
    """Seconds that each request may take. The whole call has `Policy.call_timeout`."""
    sampling_callback = _Argument[SamplingFnT | None]()
    """Answers the server's requests for a completion."""
    sampling_capabilities = _Argument[types.SamplingCapability | None]()
    """What that can do."""
    list_roots_callback = _Argument[ListRootsFnT | None]()
    """Answers the server's requests for roots."""
    logging_callback = _Argument[LoggingFnT | None]()
    """Gets the server's log messages."""
    log_level = _Argument[types.LoggingLevel | None]()
    """The level of those that a modern server is asked for."""
    message_handler = _Argument[MessageHandlerFnT | None]()
    """Gets all notifications."""
    client_info = _Argument[types.Implementation | None]()
    """What this client calls itself."""
    elicitation_callback = _Argument[ElicitationFnT | None]()
    """Answers the server's questions to people."""
    input_required_max_rounds = _Argument[int]()
    """How often a call may be answered with questions."""
    extensions = _Argument[tuple[ClientExtension, ...] | None]()
    """Extensions of the protocol."""
    cache = _Argument[CacheConfig | None]()
    """How responses are cached."""

    @property
    def _response_cache(self) -> ClientResponseCache | None:
        """The cache of all sessions, under the name that it has in `mcp.Client`: tests look at it there."""
        return response_cache(self._arguments[1])


@contextmanager
def argument_errors(config: ServerConfig) -> Iterator[None]:
    """Have errors of the SDK about arguments be errors of the configuration, in the SDK's words."""
    try:
        yield
    except ConfigError:
        raise
    except TypeError as error:
        raise ArgumentError(str(error), server=config.name) from None
    except ValueError as error:
        raise ConfigError(str(error), server=config.name) from None
