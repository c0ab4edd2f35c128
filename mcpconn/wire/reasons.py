"""Why a connection could not be made: a readable text, and a type for the classification rules.

The system and OpenSSL say what happened, but not where, and in obscure terms: "[SSL: WRONG_VERSION_NUMBER]
wrong version number (_ssl.c:1006)" means that the server does not speak TLS. Their texts contain no data of requests.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl

from mcpconn.core.failures import Trouble

NOT_TLS = frozenset(
    {
        "WRONG_VERSION_NUMBER",
        "RECORD_LAYER_FAILURE",
        "HTTP_REQUEST",
        "PACKET_LENGTH_TOO_LONG",
        "UNEXPECTED_MESSAGE",
        "BAD_RECORD_TYPE",
    }
)
"""OpenSSL's names for the first bytes of something that is not TLS. They differ between its versions."""
BINARY = "illegal request line"
"""h11's words for a response that begins with a control character. A TLS server answers so: its alert begins with
0x15 (RFC 8446, 5.1)."""
PLAIN_ON_TLS = (
    b"plain HTTP request was sent to HTTPS port",  # nginx
    b"speaking plain HTTP to an SSL-enabled server port",  # Apache
    b"HTTP request to an HTTPS server",  # Go
)
"""The texts of web servers for the same error, with status 400."""
USE_HTTPS = "the server seems to speak TLS at this port; is its URL https:// and not http:// ?"

UNKNOWN_NAME = frozenset(
    code for code in (getattr(socket, name, None) for name in ("EAI_NONAME", "EAI_NODATA")) if code is not None
)
"""The resolver's errors for a name that does not exist."""


class WrongScheme(Exception):
    """The server speaks TLS but the URL does not, or vice versa."""

    trouble = Trouble.WRONG_SCHEME


def place(host: str, port: int | None = None) -> str:
    """Host and port as in a URL."""
    name = f"[{host}]" if ":" in host else host
    return name if port is None else f"{name}:{port}"


def connect_reason(error: BaseException, host: str, port: int | None) -> tuple[str, Exception | None]:
    """Why no connection was made.

    Args:
        error: What was raised.
        host: The name or address.
        port: The port; None if it is not known, behind a proxy.

    Returns:
        The reason in words, and the error to be its cause where its type means more than "not reachable".
    """
    where = place(host, port)
    if isinstance(error, ssl.SSLCertVerificationError):
        text = f"{where}: the certificate is not trusted: {_certificate(error)}"
        # A copy whose text is ours: the rules quote the innermost one.
        return text, ssl.SSLCertVerificationError(1, text)
    if isinstance(error, ssl.SSLError):
        if error.reason in NOT_TLS:
            text = f"{where}: the server does not speak TLS at this port; is its URL http:// and not https:// ?"
            return text, WrongScheme(text)
        if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
            return f"{where}: the connection was closed during the TLS handshake; does the server speak TLS?", None
        return f"{where}: no TLS connection could be made: {_openssl(error)}", None
    if isinstance(error, socket.gaierror):
        if error.errno in UNKNOWN_NAME:
            return f"{host}: no such host; check the name in the URL, and whether DNS works here", None
        return f"{host}: the name could not be looked up: {_system(error)}", None
    if isinstance(error, TimeoutError):
        return f"{where}: no connection in time", None
    if isinstance(error, OSError):
        return f"{where}: {_system(error)}", None
    return f"{where}: the connection was closed before anything was sent", None


def protocol_reason(error: Exception) -> tuple[str, Exception | None]:
    """What is wrong with what is no HTTP, and the error to be its cause where its type means more.

    h11 quotes the line that it cannot read, or the header that it cannot send; both may hold anything.
    """
    text = str(error)
    if text == BINARY:
        return USE_HTTPS, WrongScheme(USE_HTTPS)
    return re.split(r"""[: ] ?(?:bytearray\()?b['"]""", text, maxsplit=1)[0], None


def _certificate(error: ssl.SSLCertVerificationError) -> str:
    """What is wrong with a certificate, in OpenSSL's words for it: `self-signed certificate`."""
    return (getattr(error, "verify_message", "") or _openssl(error)).rstrip(".")


def _openssl(error: ssl.SSLError) -> str:
    return (error.reason or "unknown error").replace("_", " ").lower()


def _system(error: OSError) -> str:
    """The system's words, without its number: `connection refused`."""
    if error.errno in (errno.ECONNRESET, errno.EPIPE):
        return "the connection was closed at once"
    # asyncio writes addresses of its own into `strerror`. The numbers of the resolver are none of the system's.
    number = None if isinstance(error, socket.gaierror) else error.errno
    text = (os.strerror(number) if number else "") or error.strerror or str(error)
    return text[:1].lower() + text[1:] if text else type(error).__name__
