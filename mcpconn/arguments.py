"""The arguments that a connection shares with `mcp.Client`, under the same names."""

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
    """Reads an argument: the given value, or else the SDK's default."""

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
    """The public fields of `mcp.Client`. They are read-only, because a connection copies them."""

    _arguments: tuple[Mapping[str, Any], Client]
    """The given arguments, and a client that has the defaults for the others."""

    server = _Argument[Any]()
    """The first argument."""
    mode = _Argument[str]()
    """How the protocol version is negotiated."""
    prior_discover = _Argument[types.DiscoverResult | None]()
    """What is known about a server whose version `mode` pins."""
    raise_exceptions = _Argument[bool]()
    """Whether a server in this process raises its exceptions here."""
    read_timeout_seconds = _Argument[float | None]()
    """Seconds that each request may take. The whole call has `Policy.call_timeout`."""
    sampling_callback = _Argument[SamplingFnT | None]()
    """Answers the server's sampling requests."""
    sampling_capabilities = _Argument[types.SamplingCapability | None]()
    """The sampling capabilities."""
    list_roots_callback = _Argument[ListRootsFnT | None]()
    """Answers the server's requests for roots."""
    logging_callback = _Argument[LoggingFnT | None]()
    """Receives the server's log messages."""
    log_level = _Argument[types.LoggingLevel | None]()
    """The log level requested from a modern server."""
    message_handler = _Argument[MessageHandlerFnT | None]()
    """Receives all notifications."""
    client_info = _Argument[types.Implementation | None]()
    """The name and version of this client."""
    elicitation_callback = _Argument[ElicitationFnT | None]()
    """Answers the server's elicitation requests."""
    input_required_max_rounds = _Argument[int]()
    """How many times the server may answer one call with questions."""
    extensions = _Argument[tuple[ClientExtension, ...] | None]()
    """Extensions of the protocol."""
    cache = _Argument[CacheConfig | None]()
    """How responses are cached."""

    @property
    def _response_cache(self) -> ClientResponseCache | None:
        """The cache of all sessions, under the name that `mcp.Client` uses, because tests access it there."""
        return response_cache(self._arguments[1])


@contextmanager
def argument_errors(config: ServerConfig) -> Iterator[None]:
    """Convert the SDK's errors about arguments to configuration errors with the same text."""
    try:
        yield
    except ConfigError:
        raise
    except TypeError as error:
        raise ArgumentError(str(error), server=config.name) from None
    except ValueError as error:
        raise ConfigError(str(error), server=config.name) from None
