"""The `access` part of the `gateway` section."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mcpconn.errors import ConfigError
from mcpconn.gateway.access.keys import KeyFile
from mcpconn.gateway.access.rights import EVERYTHING, Rights
from mcpconn.gateway.access.tokens import ALGORITHMS, Issuer, Tokens

KEYS = ("keys", "issuers", "rules")
ISSUER_KEYS = ("issuer", "audience", "jwks", "algorithms")


@dataclass(frozen=True)
class AccessSettings:
    """The access settings."""

    keys: KeyFile | None = None
    issuers: tuple[Issuer, ...] = ()
    rules: tuple[Rights, ...] = (EVERYTHING,)

    @cached_property
    def tokens(self) -> Tokens:
        """The tokens of all issuers."""
        return Tokens(self.issuers)

    @property
    def asks(self) -> bool:
        """Whether a credential is required."""
        return self.keys is not None or bool(self.issuers)


def parse_access(section: Any, *, folder: Path) -> AccessSettings:
    """The settings in an `access` section.

    Args:
        section: Its value; None if there is none.
        folder: Relative paths begin here: the folder of the configuration file.

    Raises:
        ConfigError: names the key and the fix.
    """
    if section is None:
        return AccessSettings()
    _check("gateway.access", section, KEYS)
    keys = section.get("keys")
    if keys is not None and (not isinstance(keys, str) or not keys):
        raise ConfigError(
            "gateway.access.keys must be the path of a file; `mcpconn key add NAME` writes it", key="keys"
        )
    rules = section.get("rules")
    if rules is not None and not isinstance(rules, list):
        raise ConfigError("gateway.access.rules must be a list", key="rules")
    issuers = section.get("issuers", [])
    if not isinstance(issuers, list):
        raise ConfigError("gateway.access.issuers must be a list", key="issuers")
    found = tuple(_issuer(f"gateway.access.issuers[{index}]", each) for index, each in enumerate(issuers))
    if len({each.issuer for each in found}) < len(found):
        raise ConfigError("gateway.access.issuers: an issuer is named twice", key="issuers")
    return AccessSettings(
        None if keys is None else KeyFile(folder / Path(keys).expanduser()),
        found,
        (EVERYTHING,)
        if rules is None
        else tuple(_rule(f"gateway.access.rules[{index}]", each) for index, each in enumerate(rules)),
    )


def _issuer(where: str, entry: Any) -> Issuer:
    _check(where, entry, ISSUER_KEYS)
    for key in ("issuer", "audience", "jwks"):
        if not isinstance(entry.get(key), str) or not entry[key]:
            raise ConfigError(f"{where}.{key} must be a string", key=key)
    algorithms = entry.get("algorithms")
    return Issuer(
        entry["issuer"],
        audience=entry["audience"],
        jwks=entry["jwks"],
        algorithms=ALGORITHMS if algorithms is None else _texts(f"{where}.algorithms", algorithms),
    )


def _rule(where: str, entry: Any) -> Rights:
    parsers: dict[str, Callable[[str, Any], Any]] = {
        **dict.fromkeys(("who", "views", "servers", "allow", "deny"), _texts),
        "rate": _number,
        "burst": _count,
        "concurrent": _count,
    }
    _check(where, entry, tuple(parsers))
    return Rights(**{key: parsers[key](f"{where}.{key}", value) for key, value in entry.items()})


def _check(where: str, entry: Any, known: tuple[str, ...]) -> None:
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where} must be a mapping", key=where.rpartition(".")[2])
    for key in entry:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r}; known: {', '.join(known)}", key=str(key))


def _texts(where: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ConfigError(f"{where} must be a list of strings", key=where.rpartition(".")[2])
    return tuple(value)


def _number(where: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1e6:
        raise ConfigError(f"{where} must be a number of requests a second above 0", key=where.rpartition(".")[2])
    return float(value)


def _count(where: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1_000_000:
        raise ConfigError(f"{where} must be a whole number from 1", key=where.rpartition(".")[2])
    return value
