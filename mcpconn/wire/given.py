"""The user's transports: an object that is opened once, or a function that creates one for each session."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

from mcpconn.checks import is_transport
from mcpconn.config import ServerConfig


class GivenTransport:
    """The transport of a configuration, for one session after another."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self.spent = False
        """Whether it has been opened and there is no function to create another."""

    def take(self) -> AbstractAsyncContextManager[Any]:
        """A transport to open.

        Raises:
            ConfigError: there is none left, or the function has returned something else.
        """
        given = self._config.server
        if not is_transport(given):
            made: Any = given()
            if not is_transport(made):
                raise self._config.error(
                    f"the function made a {type(made).__name__}, which is not a transport", "server"
                )
            return made  # type: ignore[no-any-return]
        if self.spent:
            # contextlib's context managers can be entered only once. Others do not document whether they can be entered
            # again, and a partial transport is worse than none.
            raise self._config.error(
                "the transport has been opened, and its session is over. To connect again, give a function that "
                "returns a new transport, such as lambda: streamable_http_client(url)",
                "server",
            )
        self.spent = True
        return given  # type: ignore[no-any-return]
