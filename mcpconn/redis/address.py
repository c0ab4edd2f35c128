"""The address of a store, from a URL: one Redis server, the primary of a Sentinel service, or a Cluster.

    redis://USER:PASSWORD@HOST:PORT/DB             one server; rediss:// with TLS
    redis+sentinel://HOST:PORT,HOST:PORT/SERVICE   the primary of a service; rediss+sentinel:// with TLS
    redis+cluster://HOST:PORT,HOST:PORT            any nodes of a cluster; rediss+cluster:// with TLS

After a question mark: `prefix` of all keys and channels, `password_file` instead of a password in the URL, `ca`,
`cert` and `key` (files) for TLS, `sentinel_user` and `sentinel_password_file` if the Sentinels ask for them.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from mcpconn.errors import ConfigError

PORT, SENTINEL_PORT = 6379, 26379
"""The registered port of Redis, and the one that Sentinel's documentation uses."""
PREFIX = "mcpconn"
OPTIONS = ("prefix", "password_file", "ca", "cert", "key", "sentinel_user", "sentinel_password_file")


@dataclass(frozen=True)
class Address:
    """The address of a store. `str` and `repr` show no password."""

    kind: str
    """`single`, `sentinel` or `cluster`."""
    hosts: tuple[tuple[str, int], ...]
    tls: bool = False
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0
    service: str = ""
    """The name of the primary's service at the Sentinels."""
    prefix: str = PREFIX
    """The prefix of all keys and channels, so that several gateways can share a server, and an ACL can name them."""
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    sentinel_user: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> Address:
        """Parse a URL.

        Raises:
            ConfigError: it is not such a URL, has an unknown option, or names a file that cannot be read. No password
            is quoted.
        """
        try:
            parts = urlsplit(url)
        except ValueError:
            raise _wrong("it is not a URL") from None
        scheme, _, kind = parts.scheme.partition("+")
        if scheme not in ("redis", "rediss") or kind not in ("", "sentinel", "cluster"):
            raise _wrong(f"the scheme {parts.scheme!r} is unknown; use redis://, redis+sentinel:// or redis+cluster://")
        account, _, hosts = parts.netloc.rpartition("@")
        user, _, password = account.partition(":")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        for name in options:
            if name not in OPTIONS:
                raise _wrong(f"unknown option {name!r}; known: {', '.join(OPTIONS)}")
        service, database = _path(kind, parts.path.strip("/"))
        prefix = options.get("prefix", PREFIX)
        if not prefix or set(prefix) & set("{}*?[] \t\r\n"):
            raise _wrong("prefix must be a text without blanks, braces, brackets, * and ?")
        return cls(
            kind=kind or "single",
            hosts=tuple(_host(each, SENTINEL_PORT if kind == "sentinel" else PORT) for each in hosts.split(",")),
            tls=scheme == "rediss",
            user=unquote(user) or None,
            password=_secret(options.get("password_file")) or unquote(password) or None,
            database=database,
            service=service,
            prefix=prefix,
            ca=options.get("ca"),
            cert=options.get("cert"),
            key=options.get("key"),
            sentinel_user=options.get("sentinel_user"),
            sentinel_password=_secret(options.get("sentinel_password_file")),
        )

    def ssl_context(self) -> ssl.SSLContext | None:
        """The TLS context, with the CA and client certificate of the URL; None without TLS.

        Raises:
            ConfigError: a certificate or key cannot be read.
        """
        if not self.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.cert is not None:
                context.load_cert_chain(self.cert, self.key)
        except (OSError, ssl.SSLError) as error:
            raise _wrong(f"its certificates cannot be used: {error}") from None
        return context

    def __str__(self) -> str:
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        return f"{self.service} by the Sentinels {hosts}" if self.service else f"redis at {hosts}"


def _path(kind: str, path: str) -> tuple[str, int]:
    """The service and the database that the path of a URL names."""
    service, _, database = path.partition("/") if kind == "sentinel" else ("", "", path)
    if kind == "sentinel" and not service:
        raise _wrong("name the service after the Sentinels: redis+sentinel://HOST:PORT/SERVICE")
    if kind == "cluster" and database not in ("", "0"):
        raise _wrong("a cluster has no database but 0")
    if not database.isdigit() and database:
        raise _wrong("the path must be the number of a database")
    return unquote(service), int(database or 0)


def _host(text: str, port: int) -> tuple[str, int]:
    host, _, number = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not host:
        host, number = text, ""
    if not host.strip("[]") or (number and not (number.isdigit() and 0 < int(number) < 65536)):
        raise _wrong("each host must be HOST or HOST:PORT")
    return host.strip("[]"), int(number or port)


def _secret(path: str | None) -> str | None:
    if path is None:
        return None
    try:
        return Path(path).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise _wrong(f"its password file {path} cannot be read: {reason}") from None


def _wrong(why: str) -> ConfigError:
    return ConfigError(f"the store's URL cannot be used: {why}", key="store")
