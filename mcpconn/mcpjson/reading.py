"""From a file to data: JSON, TOML or YAML, in any encoding that editors and shells write."""

from __future__ import annotations

import codecs
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from mcpconn.errors import ConfigError
from mcpconn.mcpjson.jsonc import loads

LIMIT = 32 * 1024 * 1024
"""Bytes of a configuration file. Some hosts keep their history in it; one that is larger still is not meant."""
_ENCODINGS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
"""By the mark at the beginning. A file that PowerShell's `>` has written is UTF-16."""
TOML, YAML = (".toml",), (".yaml", ".yml")
EXTRA = "pip install '.[files]' in a clone of mcpconn"


def read(path: Path) -> Any:
    """The content of a configuration file.

    Raises:
        ConfigError: it cannot be read, or is not what its name says; the message says where.
    """
    text = _decode(path, _bytes(path))
    suffix = path.suffix.lower()
    try:
        if suffix in TOML:
            return _toml(text)
        return _yaml(text) if suffix in YAML else loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: line {error.lineno}, column {error.colno}: {error.msg}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except (ValueError, RecursionError) as error:
        # Of a number of a million digits, of nesting without end, of dates that there are not.
        said = "it is nested too deeply" if isinstance(error, RecursionError) else str(error).partition(";")[0]
        raise ConfigError(f"{path}: {said}") from None


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(LIMIT + 1)
    except (OSError, ValueError) as error:
        # A ValueError: there is a NUL in the path.
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > LIMIT:
        raise ConfigError(f"{path}: is larger than {LIMIT // 1024 // 1024} MiB")
    return data


def _decode(path: Path, data: bytes) -> str:
    encoding = next((encoding for mark, encoding in _ENCODINGS if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        kind = "UTF-8" if encoding.startswith("utf-8") else "UTF-16"
        raise ConfigError(f"{path}: is not {kind} text (byte {error.start})") from None


def _toml(text: str) -> Any:
    name = "tomllib" if sys.version_info >= (3, 11) else "tomli"
    try:
        reader = importlib.import_module(name)
    except ModuleNotFoundError:
        raise ConfigError(f"reading TOML on Python 3.10 needs tomli; {EXTRA}") from None
    return reader.loads(text)


def _yaml(text: str) -> Any:
    try:
        from ruamel.yaml import YAML as Reader
        from ruamel.yaml.error import YAMLError
    except ModuleNotFoundError:
        raise ConfigError(f"reading YAML needs ruamel.yaml; {EXTRA}") from None
    # YAML 1.2, as the hosts read it: `no` and `on` are strings there, and 1:30 is no number.
    reader = Reader(typ="safe", pure=True)
    try:
        return reader.load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        # The problem in words. The error's own text quotes the line, and that of a repeated key both values.
        what = str(getattr(error, "problem", None) or "this is not YAML").partition(" with value")[0]
        raise ConfigError(f"{where}{what}") from None
    except (AttributeError, TypeError, KeyError, IndexError):
        # Its constructors trust the shape of tagged nodes.
        raise ConfigError("this is not YAML that describes servers") from None
