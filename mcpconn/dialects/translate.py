"""Translates the entry of a host's file to the names of `ServerConfig`: keys, forms, units. A pure function of data."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from mcpconn.dialects.hosts import IGNORED, IN_CODE, REFUSED, RESTRICTIONS, SPELLINGS, ZED, Host
from mcpconn.dialects.logins import ELSEWHERE, asked, login_of
from mcpconn.dialects.unclear import Unclear
from mcpconn.redact.redactor import HIDDEN
from mcpconn.redact.tokens import looks_like_token
from mcpconn.validate import unknown_key

_CALL = ("timeout", "tool_timeout", "call_timeout", "request_timeout", "run_mcp_timeout")
_DIAL = ("startup_timeout", "connect_timeout", "connection_timeout", "init_timeout", "start_mcp_timeout")
_DURATION = re.compile(rf"(?P<what>{'|'.join((*_CALL, *_DIAL))})(?P<unit>_ms|_millis(?:econds)?|_secs?|_seconds|_s)?")
_MILLISECONDS_FROM = 1000
"""From this value on, a `timeout` of an unknown host is in milliseconds: timeouts of a quarter of an hour, or below a
second, are implausible."""


@dataclass
class Translated:
    """An entry in the names of `ServerConfig`."""

    values: dict[str, Any] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)
    """By the name here, the key it was written as."""
    notes: list[str] = field(default_factory=list)
    """Notes for users about how it was interpreted."""
    env_file: str | None = None
    env_headers: Mapping[str, Any] | None = None
    """Headers whose values are the names of environment variables."""
    token_variable: str | None = None
    """The environment variable that holds a bearer token."""


def snake(key: str) -> str:
    """`autoApprove` and `auto-approve` as `auto_approve`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).replace("-", "_").lower()


def is_comment(key: str) -> bool:
    """Whether a key is there for people: JSON has no comments, and some write `"_comment": ...` or `"//": ...`."""
    return key.startswith(("_", "//", "#", "$"))


def is_disabled(entry: Mapping[Any, Any]) -> bool:
    """Whether the entry is disabled. Checked first, because the rest of such an entry need not be valid."""
    off = any(entry.get(key) is True for key in ("disabled", "disable"))
    return off or any(entry.get(key) is False for key in ("enabled", "isActive", "active"))


def translate(
    entry: Mapping[Any, Any], host: Host, known: frozenset[str], expand: Callable[[Any, str], Any] | None = None
) -> Translated:
    """An entry of a host's file in the names of `ServerConfig`.

    Args:
        entry: What the file says.
        host: Whose file it is.
        known: The names of `ServerConfig` that an entry may give.
        expand: Replaces the variables in the value of a key. What is ignored may name variables that there are not.

    Raises:
        Unclear: an unknown key, a key that is given twice, or a value of an unsupported form.
    """
    reader = _Reader(Translated(), host, known, expand or _as_it_is)
    for key, value in entry.items():
        if not isinstance(key, str):
            raise Unclear(f"a key must be a string, not {type(key).__name__}")
        if not is_comment(key):
            reader.take(key, value)
    reader.finish()
    return reader.done


def _as_it_is(value: Any, key: str) -> Any:
    return value


class _Reader:
    """Takes the keys of one entry."""

    def __init__(self, done: Translated, host: Host, known: frozenset[str], expand: Callable[[Any, str], Any]) -> None:
        self.done = done
        self.host = host
        self.known = known
        self.expand = expand
        self.credentials: list[tuple[str, Any]] = []
        """Keys of credentials. What they mean depends on the others."""
        self.beside: dict[str, Any] = {}
        """What stands beside it in the entry, and belongs to it."""

    def take(self, key: str, value: Any) -> None:
        plain = snake(key)
        target = SPELLINGS.get(plain, plain)
        duration = _DURATION.fullmatch(plain)
        if plain in _CREDENTIALS:
            self.credentials.append((key, value))
        elif special := _SPECIAL.get(plain):
            special(self, key, self.expand(value, key))
        elif duration is not None and key not in self.known - {"timeout"}:
            self.duration(key, self.expand(value, key), duration["what"], duration["unit"] or "")
        elif target in self.known:
            self.put(target, key, self.expand(value, key))
        elif plain in RESTRICTIONS:
            if value and value != ["*"]:
                self.note(f"{key} is not applied here: the host that reads the file restricts the server by it")
        elif plain in REFUSED and value:
            raise Unclear(f"{key} {REFUSED[plain]}", key)
        elif plain in ELSEWHERE:
            self.beside[key] = self.expand(value, key)
        elif plain not in IGNORED and value is not None:
            shown = HIDDEN if looks_like_token(key) else key
            raise Unclear(unknown_key(shown, sorted({*self.known, *SPELLINGS, "enabled", "envFile"})), key)

    def finish(self) -> None:
        """Put together what several keys say."""
        values = self.done.values
        if self.host is not IN_CODE and "" in (values.get("url"), values.get("command")):
            # Forms of hosts leave the field of the other transport empty.
            for key in ("url", "command"):
                if values.get(key) == "" and values.get("url" if key == "command" else "command"):
                    del values[key]
        if self.host is ZED and not {"url", "command"} & values.keys():
            raise Unclear("it is an extension of Zed's, which only Zed can start")
        self._authenticate(values)

    def _authenticate(self, values: dict[str, Any]) -> None:
        headers = values.get("headers")
        has_token = isinstance(headers, Mapping) and any(str(name).lower() == "authorization" for name in headers)
        has_token = has_token or self.done.token_variable is not None
        login: dict[str, Any] | None = None
        for key, value in self.credentials:
            if has_token and isinstance(value, Mapping) and self.host is not IN_CODE:
                # Its variables may not even be set.
                self.note(f"{key} is not used, because there is also a token")
                continue
            found = asked(key, self.expand(value, key), snake, in_code=self.host is IN_CODE)
            self.put("auth", key, found.token)
            login = login if found.login is None else {**(login or {}), **found.login}
            self.done.notes += found.notes
        if has_token or "auth" in values or "url" not in values:
            return
        if login is not None or self.beside:
            values["auth"] = {**login_of(self.beside, "", snake), **(login or {})}

    def put(self, target: str, key: str, value: Any) -> None:
        """Note a value under its name here. `null` says no more than that there is none."""
        if value is None:
            return
        if target in self.done.values:
            raise Unclear(f"{target} is given twice, as {key!r} too", key)
        self.done.values[target] = value
        if key != target:
            self.done.written[target] = key

    def note(self, text: str) -> None:
        self.done.notes.append(text)

    def duration(self, key: str, value: Any, what: str, suffix: str) -> None:
        if isinstance(value, Mapping) and suffix == "" and what == "timeout":
            # opencode: {"startup": ..., "request": ...}.
            for inner, name in (("startup", "startup_timeout"), ("request", "request_timeout")):
                if inner in value:
                    self.duration(f"{key}.{inner}", value[inner], name, "")
            return
        target = "timeout" if what in _CALL else "connect_timeout"
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.put(target, key, value)
            return
        unit = self.host.unit if not suffix else 0.001 if suffix.startswith("_m") else 1
        try:
            if unit is None:
                unit = 0.001 if value >= _MILLISECONDS_FROM else 1
                if unit != 1:
                    self.note(f"{key}: {value:g} is read as milliseconds, as {value * unit:g} s")
            self.put(target, key, value if unit == 1 else value * unit)
        except OverflowError:
            raise Unclear(f"{key} is out of range", key) from None

    # -- keys that are more than another name

    def key_header(self, key: str, value: Any) -> None:
        """Mistral Vibe: how a token is sent, if not in the standard way."""
        if str(value).lower() not in ("authorization", "bearer {token}"):
            raise Unclear(f"{key} is not known here; give the header itself, in `headers`", key)

    def enabled(self, key: str, value: Any) -> None:
        if not isinstance(value, bool):
            raise Unclear(f"{key} must be true or false", key)
        if not value:
            self.done.values["disabled"] = True

    def disabled(self, key: str, value: Any) -> None:
        if value is not None and not isinstance(value, bool):
            raise Unclear(f"{key} must be true or false", key)
        if value:
            self.done.values["disabled"] = True

    def http_url(self, key: str, value: Any) -> None:
        self.put("url", key, value)
        self.done.values.setdefault("transport", "http")

    def command(self, key: str, value: Any) -> None:
        if isinstance(value, Mapping):
            # Zed: the program, its arguments and its environment in one.
            for inner, name in (("path", "command"), ("args", "args"), ("env", "env")):
                given = value.get(inner)
                if name == "env" and isinstance(given, Mapping):
                    given = {variable: _as_text(item) for variable, item in given.items()}
                self.put(name, f"{key}.{inner}", given)
        elif isinstance(value, list) and self.host.command_lists and value:
            self.put("command", key, value[0])
            self.put("args", key, value[1:])
        else:
            self.put("command", key, value)

    def texts(self, key: str, value: Any) -> None:
        """Names and values. In files, numbers and booleans are written where strings are meant; `null` unsets."""
        target = SPELLINGS.get(snake(key), snake(key))
        if isinstance(value, list) and self.host is not IN_CODE:
            value = _pairs(value)
        if isinstance(value, Mapping) and self.host is not IN_CODE:
            kept = {name: item for name, item in value.items() if item is not None or target != "env"}
            value = {name: _as_text(item) for name, item in kept.items()}
        self.put(target, key, value)

    def args(self, key: str, value: Any) -> None:
        if isinstance(value, list) and self.host is not IN_CODE:
            value = [_as_text(item) for item in value]
        self.put("args", key, value)

    def inherit(self, key: str, value: Any) -> None:
        if isinstance(value, list):
            # Codex: {"name": ..., "source": "local"}.
            value = [item.get("name") if isinstance(item, Mapping) else item for item in value]
        self.put("inherit_env", key, value)

    def env_file(self, key: str, value: Any) -> None:
        if value is not None and not isinstance(value, str):
            raise Unclear(f"{key} must be a string", key)
        self.done.env_file = value

    def env_headers(self, key: str, value: Any) -> None:
        if not isinstance(value, Mapping):
            raise Unclear(f"{key} must be a mapping of names to strings", key)
        self.done.env_headers = value

    def token_variable(self, key: str, value: Any) -> None:
        if not isinstance(value, str):
            raise Unclear(f"{key} must be a string", key)
        self.done.token_variable = value

    def request_options(self, key: str, value: Any) -> None:
        """Continue, and the SDK for TypeScript: what HTTP needs, in a mapping of its own."""
        if not isinstance(value, Mapping):
            raise Unclear(f"{key} must be a mapping", key)
        for inner, name in _REQUEST_OPTIONS.items():
            if inner == "headers" and inner in value:
                self.texts("headers", value[inner])
            elif inner in value:
                self.put(name, f"{key}.{inner}", value[inner])
        if isinstance(certificate := value.get("clientCertificate"), Mapping):
            for inner, name in (("cert", "client_cert"), ("key", "client_key"), ("passphrase", "client_key_password")):
                self.put(name, f"{key}.clientCertificate.{inner}", certificate.get(inner))
        if "timeout" in value:
            self.duration(f"{key}.timeout", value["timeout"], "timeout", "")


_CREDENTIALS = frozenset({"auth", "api_key", "bearer_token", "oauth", "auth_provider_type"})
_REQUEST_OPTIONS = {"headers": "headers", "verifySsl": "verify", "caBundlePath": "ca_file"}
_SPECIAL: Mapping[str, Callable[[_Reader, str, Any], None]] = {
    "active": _Reader.enabled,
    "api_key_env": _Reader.token_variable,
    "api_key_header": _Reader.key_header,
    "api_key_format": _Reader.key_header,
    "enabled": _Reader.enabled,
    "is_active": _Reader.enabled,
    "disabled": _Reader.disabled,
    "disable": _Reader.disabled,
    "http_url": _Reader.http_url,
    "command": _Reader.command,
    "env": _Reader.texts,
    "envs": _Reader.texts,
    "environment": _Reader.texts,
    "headers": _Reader.texts,
    "http_headers": _Reader.texts,
    "args": _Reader.args,
    "inherit_env": _Reader.inherit,
    "env_vars": _Reader.inherit,
    "env_keys": _Reader.inherit,
    "env_file": _Reader.env_file,
    "env_http_headers": _Reader.env_headers,
    "env_headers": _Reader.env_headers,
    "bearer_token_env_var": _Reader.token_variable,
    "request_options": _Reader.request_options,
    "request_init": _Reader.request_options,
}


def _pairs(given: list[Any]) -> Any:
    """Names and values in a list: `[{"name": ..., "value": ...}]`, or `["NAME=value"]`; anything else as it is."""
    found: dict[Any, Any] = {}
    for each in given:
        if isinstance(each, Mapping) and isinstance(each.get("name"), str):
            found[each["name"]] = each.get("value")
        elif isinstance(each, str) and "=" in each:
            name, _, found[name] = each.partition("=")
        else:
            return given
    return found


def _as_text(value: Any) -> Any:
    """A number, a boolean or a date (which YAML and TOML know) as the text that was meant."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, date):
        return value.isoformat()
    return str(value) if isinstance(value, (int, float)) else value
