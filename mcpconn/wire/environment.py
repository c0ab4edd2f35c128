"""The environment's settings for HTTP: proxies and certificates. An error names the wrong setting instead of blaming a
server."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from urllib.parse import urlsplit

import httpx2

from mcpconn.errors import ConfigError
from mcpconn.redact.places import redact_url, secrets_of_url
from mcpconn.sdk.http import ProxyMap

CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""Variables that name the certificates to trust, as OpenSSL has them. The first that is set is used."""


@dataclass(frozen=True)
class ProxySetting:
    """A proxy, and the source of the setting."""

    url: str
    """Its URL, userinfo included."""
    variable: str
    """The environment variable that names it, or the equivalent setting."""

    @property
    def secrets(self) -> set[str]:
        """The secrets in it."""
        return secrets_of_url(self.url)

    def __str__(self) -> str:
        return f"the proxy {redact_url(self.url)} ({self.variable})"

    __repr__ = __str__


class Environment:
    """The settings, read once: that takes half a millisecond."""

    @cached_property
    def _proxies(self) -> ProxyMap:
        return ProxyMap()

    def proxy_for(self, url: str) -> ProxySetting | None:
        """The proxy for requests to `url`: httpx2's rules for the variables, and for what NO_PROXY excepts.

        Raises:
            ConfigError: the setting is not a usable proxy.
        """
        found = self._proxies.find(url)
        if found is None:
            return None
        scheme, proxy = found
        # Surrounding spaces are never intended.
        setting = ProxySetting(proxy.strip(), _variable(f"{scheme}_proxy"))
        _check(setting)
        return setting

    def tls(self) -> ssl.SSLContext:
        """A TLS context with httpx2's defaults.

        Raises:
            ConfigError: the certificates that a variable names cannot be read.
        """
        if (
            not os.environ.get(CERTIFICATES[0])
            and (path := os.environ.get(CERTIFICATES[1]))
            and not os.path.isdir(path)
        ):
            # OpenSSL accepts this, and then trusts no certificate.
            raise ConfigError(
                f"{CERTIFICATES[1]}={path}: there is no such directory; correct the variable, or remove it",
                key=CERTIFICATES[1],
            )
        failed: str
        try:
            return httpx2.create_ssl_context()
        except (OSError, ValueError) as error:
            # ssl.SSLError is an OSError: a file without certificates in it.
            failed = getattr(error, "strerror", None) or type(error).__name__
        name = next((name for name in CERTIFICATES if os.environ.get(name)), None)
        if name is None:
            raise ConfigError(f"the system's certificates cannot be read: {failed}")
        path = os.environ[name]
        hint = "it does not exist" if not os.path.exists(path) else f"no certificates could be read from it ({failed})"
        raise ConfigError(f"{name}={path}: {hint}; correct the variable, or remove it", key=name)


def _check(setting: ProxySetting) -> None:
    fault: str | None = None
    try:
        # httpx2 does not check the host and the port before it connects.
        _ = urlsplit(setting.url).port
        proxy = httpx2.Proxy(setting.url)
        if not proxy.url.host:
            fault = "names no host"
        elif proxy.url.scheme.startswith("socks") and find_spec("socksio") is None:
            fault = "is a SOCKS proxy, which needs the package socksio: pip install socksio"
    except (ValueError, httpx2.InvalidURL):
        fault = "is not the URL of a proxy, such as http://host:port"
    if fault is not None:
        raise ConfigError(
            f"{setting.variable}={_shown(setting.url)} {fault}; correct the variable, or remove it",
            key=setting.variable,
        )


def _shown(url: str) -> str:
    try:
        return redact_url(url)
    except ValueError:
        return "***"


def _variable(name: str) -> str:
    """The name of the variable as it is set, because names of proxy variables may be in upper or lower case."""
    return next((each for each in (name, name.upper()) if os.environ.get(each)), "the system's proxy settings")
