"""The interface to systemd, or another supervisor with its protocols: socket activation and notifications.

A listening socket that the supervisor owns outlives the process: while one gateway ends and the next starts, the
kernel keeps new connections in the socket's queue, so none is refused (sd_listen_fds(3)). The gateway notifies the
supervisor when it is ready and when it is stopping (sd_notify(3)), so that it starts the next one, or waits, at the
right time.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

from mcpconn.errors import ConfigError

FIRST_PASSED = 3
"""The first file descriptor that is passed (SD_LISTEN_FDS_START)."""


def passed_socket(environment: MutableMapping[str, str] = os.environ) -> socket.socket | None:
    """The listening socket that was passed to this process; None if there is none.

    The variables are removed, so that no child of the gateway uses the socket.

    Raises:
        ConfigError: several were passed, or it is not a listening TCP socket.
    """
    process, count = environment.get("LISTEN_PID"), environment.get("LISTEN_FDS", "0")
    if process != str(os.getpid()) or not count.isdecimal() or int(count) == 0:
        return None
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        environment.pop(name, None)
    if int(count) > 1:
        raise ConfigError(
            f"{count} sockets were passed (LISTEN_FDS); the gateway serves one. Name one in the socket unit"
        )
    try:
        passed = socket.socket(fileno=FIRST_PASSED)
    except OSError as error:
        raise ConfigError(f"no socket was passed, although LISTEN_FDS says so: {error.strerror}") from None
    passed.set_inheritable(False)
    if passed.family not in (socket.AF_INET, socket.AF_INET6) or not _listens(passed):
        passed.detach()
        raise ConfigError("what was passed (LISTEN_FDS) is not a listening TCP socket; say ListenStream=9000")
    return passed


def _listens(passed: socket.socket) -> bool:
    try:
        return bool(passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False


def notify(state: str, environment: MutableMapping[str, str] = os.environ) -> None:
    """Notify the supervisor, if there is one.

    Args:
        state: As in sd_notify(3): `READY=1`, `STOPPING=1`.
        environment: Where the supervisor's address is: a datagram socket in NOTIFY_SOCKET.
    """
    address = environment.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    # A leading @ stands for the zero byte of an abstract address (unix(7)).
    where = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        try:
            told.sendto(state.encode(), where)
        except OSError:
            # The supervisor then waits for its own timeout; a serving gateway must not end because of it.
            return
