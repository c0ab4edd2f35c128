"""The `access` part of the `gateway` section."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mcpconn.errors import ConfigError
from mcpconn.gateway.access.keys import KeyFile
from mcpconn.gateway.access.rights import EVERYTHING, Rights
from mcpconn.gateway.access.tokens import ALGORITHMS, Issuer, Tokens
from mcpconn.gateway.sections import LIST, STRING, STRINGS, Section, number_kind, path_kind

KEYS = ("keys", "issuers", "rules")
KEY_FILE = "must be the path of a file; `mcpconn key add NAME` writes it"
ISSUER_KEYS = ("issuer", "audience", "jwks", "algorithms")
_COUNT = number_kind("must be a whole number from 1", most=1_000_000, whole=True)
RULE = {
    **dict.fromkeys(("who", "views", "servers", "allow", "deny"), STRINGS),
    "rate": number_kind("must be a number of requests a second above 0", most=1e6),
    "burst": _COUNT,
    "concurrent": _COUNT,
}


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
    given = Section("gateway.access", section, KEYS)
    keys = given.get("keys", path_kind(folder, KEY_FILE).or_null())
    rules = given.get("rules", LIST.or_null())
    issuers = given.get("issuers", LIST, [])
    found = tuple(_issuer(f"gateway.access.issuers[{index}]", each) for index, each in enumerate(issuers))
    if len({each.issuer for each in found}) < len(found):
        raise ConfigError("gateway.access.issuers: an issuer is named twice", key="issuers")
    return AccessSettings(
        None if keys is None else KeyFile(keys),
        found,
        (EVERYTHING,)
        if rules is None
        else tuple(
            Rights(**Section(f"gateway.access.rules[{index}]", each, RULE).values(RULE))
            for index, each in enumerate(rules)
        ),
    )


def _issuer(where: str, entry: Any) -> Issuer:
    given = Section(where, entry, ISSUER_KEYS)
    issuer, audience, jwks = (given.require(key, STRING) for key in ("issuer", "audience", "jwks"))
    algorithms = given.get("algorithms", STRINGS.or_null())
    return Issuer(issuer, audience=audience, jwks=jwks, algorithms=ALGORITHMS if algorithms is None else algorithms)
