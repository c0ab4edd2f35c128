"""TLS settings of one server: its own CA, a client certificate, or no verification."""

from __future__ import annotations

import os
import ssl
from contextlib import suppress
from dataclasses import dataclass

import httpx2


@dataclass(frozen=True)
class TlsSettings:
    """The settings in which an entry differs from the rest of the program."""

    verify: bool = True
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    client_key_password: str | None = None

    def context(self) -> ssl.SSLContext:
        """A context with these settings.

        Raises:
            ValueError: a file cannot be read, or has the wrong content. The text names the file.
        """
        if not self.verify:
            context = httpx2.create_ssl_context(verify=False)
        elif self.ca_file is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self._load_ca(context)
        else:
            context = httpx2.create_ssl_context()
        self._load_client(context)
        return context

    def check(self) -> None:
        """Raises ValueError as `context` does, without the cost of loading the system's certificates."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._load_ca(context)
        self._load_client(context)

    def _load_ca(self, context: ssl.SSLContext) -> None:
        if self.ca_file is None:
            return
        try:
            context.load_verify_locations(cafile=self.ca_file)
        except OSError as error:
            # An ssl.SSLError is an OSError too, and its text is not meant for people.
            raise ValueError(f"ca_file {self.ca_file}: {_why(error, 'not a file of certificates in PEM')}") from None

    def _load_client(self, context: ssl.SSLContext) -> None:
        if self.client_cert is None:
            return
        try:
            # Without a password OpenSSL would ask for one at the terminal.
            context.load_cert_chain(self.client_cert, self.client_key, self.client_key_password or "")
        except OSError as error:
            files = self.client_cert if self.client_key is None else f"{self.client_cert} and {self.client_key}"
            what = "not a certificate and its private key in PEM, or the password of the key is wrong"
            raise ValueError(f"client_cert {files}: {_why(error, what)}") from None


def _why(error: OSError, otherwise: str) -> str:
    return otherwise if isinstance(error, ssl.SSLError) else error.strerror or otherwise


class OwnContext:
    """The context of one connection. Files that have been replaced since the last connect are reread: a client
    certificate that is valid for an hour is replaced many times during a connection."""

    def __init__(self, settings: TlsSettings) -> None:
        self._settings = settings
        self._context: ssl.SSLContext | None = None
        self._seen: tuple[float | None, ...] = ()

    def __call__(self) -> ssl.SSLContext:
        """The context for the next connect.

        Raises:
            ValueError: as `TlsSettings.context`, the first time. Later, unreadable files are assumed to be in the
                process of being replaced, and the previous content is used.
        """
        settings = self._settings
        seen = tuple(_modified(path) for path in (settings.ca_file, settings.client_cert, settings.client_key))
        if self._context is None:
            self._context = settings.context()
        elif seen != self._seen:
            with suppress(ValueError):
                # Load them into the existing context, because an HTTP library may hold a reference to it.
                settings._load_ca(self._context)
                settings._load_client(self._context)
        self._seen = seen
        return self._context


def _modified(path: str | None) -> float | None:
    if path is None:
        return None
    with suppress(OSError):
        return os.stat(path).st_mtime
    return None
