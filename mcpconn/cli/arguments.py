"""The arguments of a tool or a prompt on a command line."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mcpconn.cli.failures import USAGE, CliError

EXAMPLE = """; write item=pen count=3, or a JSON object in single quotes: '{"item": "pen"}'"""
_PAIR = re.compile(r"(?P<key>[^=:{\s][^=:]*)(?P<kind>:?=)(?P<value>.*)", re.DOTALL)


def arguments_of(words: Iterable[str]) -> dict[str, Any]:
    """Parse words into arguments; later words override earlier ones.

    The value in `key=value` is JSON if it is valid JSON (`3`, `true`, `["a"]`), and otherwise a string. `key:=value`
    must be JSON, and `key=@file` is the content of a file. A word that is a JSON object gives several; `@file` reads
    one from a file, and `-` from standard input.

    Raises:
        CliError: a word is none of these.
    """
    found: dict[str, Any] = {}
    for word in words:
        if word == "-":
            found |= _object(sys.stdin.read(), "standard input")
        elif word.startswith("@"):
            found |= _object(_read(word[1:]), word[1:])
        elif (pair := _PAIR.fullmatch(word)) is not None:
            found[pair["key"]] = _value(pair["key"], pair["value"], strict=pair["kind"] == ":=")
        else:
            found |= _object(word, "ARGUMENT")
    return found


def texts_of(words: Iterable[str]) -> dict[str, str]:
    """The arguments of a prompt, all of which are strings.

    Raises:
        CliError: as `arguments_of`.
    """
    found = {}
    for word in words:
        pair = _PAIR.fullmatch(word)
        if pair is not None and pair["kind"] == "=" and not pair["value"].startswith("@"):
            found[pair["key"]] = pair["value"]
        else:
            given = arguments_of([word])
            found |= {key: each if isinstance(each, str) else json.dumps(each) for key, each in given.items()}
    return found


def _value(key: str, text: str, *, strict: bool) -> Any:
    if text.startswith("@") and not strict:
        return _read(text[1:])
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        if strict:
            raise CliError(f"{key}:= needs JSON after it; {key}= takes any text", USAGE) from None
        return text


def _object(text: str, source: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise CliError(f"{source} is not JSON ({error.msg} at character {error.pos + 1}){EXAMPLE}", USAGE) from None
    except RecursionError:
        raise CliError(f"{source} is nested too deeply", USAGE) from None
    if not isinstance(value, dict):
        raise CliError(f"{source} is JSON, but not an object{EXAMPLE}", USAGE)
    return value


def _read(path: str) -> str:
    try:
        return Path(path).expanduser().read_text("utf-8")
    except UnicodeDecodeError:
        raise CliError(f"{path} is not UTF-8 text", USAGE) from None
    except (OSError, ValueError) as error:
        raise CliError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}", USAGE) from None


def _no_number(name: str) -> float:
    raise ValueError(name)
