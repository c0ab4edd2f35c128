"""Keys of clients: created here, shown once, and stored as hashes in a file that can be edited while the gateway
runs."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mcpconn.errors import ConfigError
from mcpconn.gateway.access.credentials import Identity, Refused
from mcpconn.gateway.principals import Principal

PREFIX = "mck_"
"""Begins every key, so that people and secret scanners recognize one."""
LONGEST_NAME = 64


class KeyFile:
    """The keys of one file.

    A key is 32 random bytes. Storing its SHA-256 is sufficient: such a key cannot be guessed, so a slow hash has no
    benefit.
    """

    def __init__(self, path: Path, *, wall: Callable[[], float] = time.time) -> None:
        """
        Args:
            path: The file. It need not exist; then there are no keys.
            wall: Seconds since 1970, for the date of a new key.
        """
        self.path = path
        self._wall = wall
        self._stamp: tuple[int, int, int] | None = None
        self._names: dict[str, str] = {}

    def identify(self, key: str) -> Identity:
        """The holder of the key.

        Raises:
            Refused: the key is unknown, or was revoked.
            ConfigError: the file has become unreadable. The keys that were in it before open nothing.
        """
        self.refresh()
        name = self._names.get(hash_of(key))
        if name is None:
            raise Refused("the key is unknown or was removed")
        return Identity(principal_of_key(name))

    def hashes(self) -> dict[str, str]:
        """The name of each key, by its hash."""
        self.refresh()
        return dict(self._names)

    def names(self) -> list[str]:
        """Names of all keys, in the order in which they were added."""
        self.refresh()
        return list(self._names.values())

    def add(self, name: str) -> str:
        """Create a key. It is returned and not stored.

        Raises:
            ConfigError: the name is taken or cannot be used, or the file cannot be written.
        """
        if not 0 < len(name) <= LONGEST_NAME or not all(each.isalnum() or each in "-_.@" for each in name):
            raise ConfigError(f"key {name!r}: a name has up to {LONGEST_NAME} letters, digits and - _ . @", key="name")
        entries = self._read()
        if any(entry["name"] == name for entry in entries):
            raise ConfigError(f"key {name!r}: a key with this name exists already; remove it first", key="name")
        key = PREFIX + secrets.token_urlsafe(32)
        made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._wall()))
        self._write([*entries, {"name": name, "sha256": hash_of(key), "made": made}])
        return key

    def remove(self, name: str) -> None:
        """Revoke a key. A running gateway refuses it within a second.

        Raises:
            ConfigError: there is none of this name, or the file cannot be written.
        """
        entries = self._read()
        kept = [entry for entry in entries if entry["name"] != name]
        if len(kept) == len(entries):
            known = ", ".join(entry["name"] for entry in entries) or "none"
            raise ConfigError(f"key {name!r}: no key has this name; known: {known}", key="name")
        self._write(kept)

    def refresh(self) -> None:
        """Read the file again if it has changed.

        Raises:
            ConfigError: it cannot be used.
        """
        try:
            found = self.path.stat()
        except FileNotFoundError:
            self._stamp, self._names = None, {}
            return
        except OSError as error:
            raise ConfigError(f"{self.path}: {error.strerror}", key="keys") from None
        # A replaced file has another inode, even within the resolution of the clock.
        stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
        if stamp != self._stamp:
            self._names = {entry["sha256"]: entry["name"] for entry in self._read()}
            self._stamp = stamp

    def _read(self) -> list[dict[str, Any]]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        except (OSError, ValueError, RecursionError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not JSON"
            raise ConfigError(f"{self.path}: the keys cannot be read: {reason}", key="keys") from None
        entries = content.get("keys") if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(
            isinstance(entry, dict) and all(isinstance(entry.get(each), str) for each in ("name", "sha256"))
            for entry in entries
        ):
            raise ConfigError(f'{self.path}: it must hold {{"keys": [{{"name": ..., "sha256": ...}}]}}', key="keys")
        return entries

    def _write(self, entries: list[dict[str, Any]]) -> None:
        """Replace the file in one step: a gateway that reads it meanwhile sees the old one or the new one."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # mkstemp makes the file with mode 0600.
            descriptor, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump({"keys": entries}, file, indent=2)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self.path)
        except OSError as error:
            raise ConfigError(f"{self.path}: the keys cannot be written: {error.strerror}", key="keys") from None


def principal_of_key(name: str) -> Principal:
    """The principal that the holder of a key is."""
    return Principal(f"key:{name}")


def hash_of(key: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
