"""Checks of the `gateway` section of a configuration file: which keys a mapping may have, and which values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcpconn.errors import ConfigError


@dataclass(frozen=True)
class Kind:
    """A kind of value."""

    fits: Callable[[Any], bool]
    what: str
    """What a value of another kind is told that it must be."""
    made: Callable[[Any], Any] = lambda value: value
    """Converts a value that fits."""

    def or_null(self) -> Kind:
        """The same, or null."""
        return Kind(
            lambda value: value is None or self.fits(value),
            self.what,
            lambda value: None if value is None else self.made(value),
        )


def path_kind(folder: Path, what: str = "must be the path of a file") -> Kind:
    """The path of a file; a relative one begins in `folder`."""
    return Kind(STRING.fits, what, lambda value: folder / Path(value).expanduser())


def number_kind(what: str, *, above: float = 0, most: float, whole: bool = False) -> Kind:
    """A number within limits; `most` is the largest."""
    types = (int,) if whole else (int, float)
    return Kind(
        lambda value: isinstance(value, types) and not isinstance(value, bool) and above < value <= most,
        what,
        int if whole else float,
    )


def _are_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


STRING = Kind(lambda value: isinstance(value, str) and value != "", "must be a string")
STRINGS = Kind(_are_strings, "must be a list of strings", tuple)
BOOL = Kind(lambda value: isinstance(value, bool), "must be true or false")
LIST = Kind(lambda value: isinstance(value, list), "must be a list")


class Section:
    """A mapping in the file, whose values are checked when they are read."""

    def __init__(self, where: str, value: Any, known: Collection[str], *, server: str | None = None) -> None:
        """
        Args:
            where: Its path in the file, such as `gateway.access`.
            value: What the file has there.
            known: The keys that it may have.
            server: The server that it belongs to.

        Raises:
            ConfigError: it is not a mapping, or has an unknown key.
        """
        self.where = where
        self._server = server
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} must be a mapping", server=server, key=where.rpartition(".")[2])
        self.entry = value
        for key in value:
            if key not in known:
                known_keys = ", ".join(known)
                raise ConfigError(f"{where}: unknown key {key!r}; known: {known_keys}", server=server, key=str(key))

    def get(self, key: str, kind: Kind, default: Any = None) -> Any:
        """A value; the default if it is missing.

        Raises:
            ConfigError: it is of another kind. The message names the key.
        """
        if key not in self.entry:
            return default
        return self.require(key, kind)

    def require(self, key: str, kind: Kind) -> Any:
        """A value that has to be there.

        Raises:
            ConfigError: it is missing, or of another kind. The message names the key.
        """
        value = self.entry.get(key)
        if not kind.fits(value):
            raise ConfigError(f"{self.where}.{key} {kind.what}", server=self._server, key=key)
        return kind.made(value)

    def values(self, kinds: Mapping[str, Kind]) -> dict[str, Any]:
        """All values that are there, by key.

        Raises:
            ConfigError: one is of another kind. The message names the key.
        """
        return {key: self.require(key, kinds[key]) for key in self.entry}
