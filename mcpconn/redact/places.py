"""Finds the secrets in a configuration, by their place (userinfo, headers, env, named options) or by their form.

Other values stay readable: "No module named ***" would not help.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import unquote, urlsplit

from mcpconn.redact.contents import fields_of_json, lines_of_pem
from mcpconn.redact.redactor import HIDDEN
from mcpconn.redact.tokens import looks_like_token, tokens_in

_SECRET_NAME = re.compile(r"token|key|secret|pass|auth|cred|jwt|bearer|cookie|_pwd|pwd_", re.IGNORECASE)
"""Names of variables, headers, options, query parameters and JSON fields whose values are secret."""
_COUNTED_NAME = re.compile(r"tokens|keys|keyboard|author(?!iz)", re.IGNORECASE)
"""Options that contain such a word and mean something else: `--max-tokens`, `--author`."""
_PUBLIC_HEADERS = frozenset(
    {
        "accept",
        "accept-charset",
        "accept-encoding",
        "accept-language",
        "cache-control",
        "connection",
        "content-type",
        "host",
        "origin",
        "user-agent",
    }
)
_PATH_TOKEN = re.compile(r"(?=[^/]*\d)(?=[^/]*[A-Za-z])[A-Za-z0-9_\-.~%]{16,}")
"""A segment of a URL's path that may be a token: sixteen or more characters, letters and digits mixed. Several hosts
put the credential into the path (https://host/s/TOKEN/mcp)."""
_ASSIGNMENT = re.compile(r"(?P<name>-{0,2}[A-Za-z_][\w.-]*)=(?P<value>.*)", re.DOTALL)
_OPTION = re.compile(r"--?[A-Za-z][\w.-]*")
_HEADER_OPTIONS = frozenset({"-H", "--header", "--headers"})
_ENV_OPTIONS = frozenset({"-e", "--env"})
_HEADER = re.compile(r"(?P<name>[\w-]+)\s*:\s*(?P<value>.*)", re.DOTALL)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")
_WORD = re.compile(r"[a-z]+")
_BOOLEANS = frozenset({"true", "false", "yes", "no", "on", "off"})


def named_secret(name: str) -> bool:
    """Whether a value with this name is secret."""
    return bool(_SECRET_NAME.search(name))


def is_secret_value(name: str, value: str) -> bool:
    """Whether the value of an environment variable, or of something like it, may be secret.

    It may, unless its name has no word for a secret in it and the value is one of the things that are none: a
    number, a boolean, one lower-case word, a URL without credentials, an existing path.
    """
    if named_secret(name):
        return True
    plain = _NUMBER.fullmatch(value) or value.lower() in _BOOLEANS or _WORD.fullmatch(value)
    return not (plain or (_URL.fullmatch(value) and not secrets_of_url(value)) or _is_path(value))


def _is_path(value: str) -> bool:
    looks = "/" in value or "\\" in value or value in (".", "..", "~")
    try:
        return looks and os.path.exists(os.path.expanduser(value))
    except (OSError, ValueError):
        return False


# -- URLs


def redact_url(url: str) -> str:
    """`url` without userinfo, query and fragment, and without path segments that look like tokens."""
    parts = urlsplit(url)
    path = "/".join(HIDDEN if _PATH_TOKEN.fullmatch(segment) else segment for segment in parts.path.split("/"))
    query = f"?{HIDDEN}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{path}{query}"


def secrets_of_url(url: str) -> set[str]:
    """The parts of `url` that may be secret: userinfo, values of the query, token-like segments of the path."""
    try:
        parts = urlsplit(url)
        user, password = parts.username or "", parts.password or ""
    except ValueError:
        return set(tokens_in(url))
    found = {password, f"{user}:{password}" if password else ""}
    if not password or not _WORD.fullmatch(user):
        # A user without a password is a token (https://TOKEN@host); one with it is secret unless it is a plain word.
        found.add(user)
    values = set()
    for piece in re.split("[&;]", parts.query) if parts.query else ():
        name, separator, value = piece.partition("=")
        name, value = (name, value) if separator else ("", name)
        if value and is_secret_value(unquote(name), unquote(value)):
            values.add(value)
    if values:
        found |= {*values, parts.query}
    found.update(segment for segment in parts.path.split("/") if _PATH_TOKEN.fullmatch(segment))
    found.update(tokens_in(parts.fragment))
    return {value for text in found if text for value in (text, unquote(text))}


# -- environments and headers


def secrets_of_env(env: Mapping[str, str]) -> set[str]:
    """What is secret in the environment that a configuration gives to a child."""
    return {secret for name, value in env.items() for secret in _of_value(name, value)}


def secrets_of_inherited(env: Mapping[str, str]) -> set[str]:
    """What is secret in an environment that is handed on as it is.

    Most of it is no secret at all, and would be hidden from every message: only what is named or looks like one is.
    """
    return {
        secret
        for name, value in env.items()
        if named_secret(name) or looks_like_token(value) or "://" in value
        for secret in (_of_value(name, value) if named_secret(name) else _by_form(value))
        if not _is_path(secret)
    }


def _of_value(name: str, value: str) -> Iterator[str]:
    if not is_secret_value(name, value):
        return
    yield value
    yield from _parts(value)


def _parts(value: str) -> Iterator[str]:
    """What is secret by itself in a value: fields of JSON, lines of a PEM, the credentials of a URL, tokens."""
    fields = list(fields_of_json(value))
    for name, field in fields:
        if named_secret(name):
            yield field
        yield from _by_form(field)
        yield from lines_of_pem(field)
    if not fields:
        yield from _by_form(value)
        yield from lines_of_pem(value)


def _by_form(value: str) -> Iterator[str]:
    for match in _URL.finditer(value):
        yield from secrets_of_url(match.group())
    yield from tokens_in(value)


def secrets_of_headers(headers: Mapping[str, str]) -> set[str]:
    """What is secret in HTTP headers: all values but those of a few that never are, and of plain words and numbers."""
    found: set[str] = set()
    for name, value in headers.items():
        if name.lower() in _PUBLIC_HEADERS or not is_secret_value(name, value):
            continue
        if name.lower() in ("cookie", "set-cookie"):
            found |= secrets_of_cookies(value)
        found |= {value, *_parts(value)}
    return found


def secrets_of_cookies(value: str) -> set[str]:
    """The values of a Cookie header, each by itself."""
    values = (piece.partition("=")[2].strip().strip('"') for piece in value.split(";"))
    return {cookie for cookie in values if cookie and not _WORD.fullmatch(cookie)}


# -- arguments


def secrets_of_args(args: Sequence[str]) -> set[str]:
    """What is secret in the arguments of a command: values of options named so, credentials in URLs, tokens."""
    found: set[str] = set()
    option = ""
    for arg in args:
        found |= set(_of_argument(option, arg))
        option = arg if _OPTION.fullmatch(arg) else ""
    return {secret for secret in found if not _is_path(secret)}


def _of_argument(option: str, arg: str) -> Iterator[str]:
    """Of one argument, which follows `option`."""
    yield from _parts(arg) if not looks_like_token(arg) else (arg,)
    if option in _HEADER_OPTIONS and (header := _HEADER.fullmatch(arg)):
        yield from secrets_of_headers({header["name"]: header["value"]})
    elif option and not arg.startswith("-") and _option_is_secret(option, arg):
        yield arg
    assignment = _ASSIGNMENT.fullmatch(arg)
    if assignment is None:
        return
    name, value = assignment["name"], assignment["value"]
    if name in _HEADER_OPTIONS and (header := _HEADER.fullmatch(value)):
        yield from secrets_of_headers({header["name"]: header["value"]})
    elif option in _ENV_OPTIONS:
        yield from _of_value(name, value)
    elif name in _ENV_OPTIONS:
        yield from _of_argument(name, value)
    else:
        yield from _parts(value)
        if _option_is_secret(name, value):
            yield value


def _option_is_secret(name: str, value: str) -> bool:
    if not named_secret(name) or value.lower() in _BOOLEANS:
        return False
    return not (_COUNTED_NAME.search(name) or (_NUMBER.fullmatch(value) and "pass" not in name.lower()))
