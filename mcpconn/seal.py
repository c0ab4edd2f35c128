"""Authenticated encryption for data that the gateway gives to clients and accepts back: session ids, states, cursors,
stored values.

AES-256-GCM with a key for each purpose, derived from the ring's secrets with HKDF-SHA256 (RFC 5869). Data sealed for
one purpose or context cannot be opened for another: the purpose is bound by the key, the context as associated data.
The ring seals with its first secret and opens with any of them. To rotate secrets, roll out [old, new] to all
processes, and then [new, old].
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mcpconn.errors import ConfigError

SHORTEST_SECRET = 32
"""Bytes of a secret: the length of an AES-256 key."""
_FINGERPRINT = 4
"""Bytes that identify the secret used. They are not secret, and avoid trying every secret of the ring."""
_NONCE = 12
"""Bytes of a random nonce, as GCM requires (NIST SP 800-38D, 5.2.1.1)."""
_TAG = 16
"""Bytes of GCM's tag."""


class NotSealedHere(Exception):
    """The text was not sealed with this ring for this purpose and context, or was changed since.

    It says nothing more, so that an attacker learns nothing from it.
    """

    def __init__(self) -> None:
        super().__init__("not sealed here")


class KeyRing:
    """The secrets of a gateway. `repr` shows only their number."""

    def __init__(self, secrets_: Sequence[bytes]) -> None:
        """
        Args:
            secrets_: The sealing one first; each at least `SHORTEST_SECRET` random bytes.

        Raises:
            ConfigError: there is none, one is too short, or one is given twice.
        """
        if not secrets_:
            raise ConfigError("the gateway needs at least one sealing key", key="keys")
        for position, secret in enumerate(secrets_):
            if len(secret) < SHORTEST_SECRET:
                raise ConfigError(
                    f"sealing key {position + 1} has {len(secret)} bytes; it needs {SHORTEST_SECRET} random ones. "
                    "Make one with: openssl rand -hex 32",
                    key="keys",
                )
        if len(set(secrets_)) != len(secrets_):
            raise ConfigError("a sealing key is given twice", key="keys")
        self._secrets = tuple(secrets_)

    @classmethod
    def ephemeral(cls) -> KeyRing:
        """A ring that exists only in this process: nothing that it sealed can be opened afterwards."""
        return cls([secrets.token_bytes(SHORTEST_SECRET)])

    def sealer(self, purpose: str) -> Sealer:
        """Seals and opens for one purpose."""
        return Sealer(self._secrets, purpose)

    def derived(self, purpose: str) -> list[bytes]:
        """Keys of 32 bytes for other uses, one derived from each secret, in the ring's order."""
        return [_derive(secret, purpose) for secret in self._secrets]

    def __repr__(self) -> str:
        return f"<KeyRing of {len(self._secrets)}>"


class Sealer:
    """Seals bytes into URL-safe text, and opens it again."""

    def __init__(self, ring: Sequence[bytes], purpose: str) -> None:
        self._keys: dict[bytes, AESGCM] = {}
        for secret in ring:
            key = _derive(secret, purpose)
            self._keys.setdefault(hashlib.sha256(key).digest()[:_FINGERPRINT], AESGCM(key))
        self._sealing = next(iter(self._keys))

    def seal(self, content: bytes, context: str = "") -> str:
        """Seal `content`.

        Args:
            content: Data that only this gateway may read.
            context: The owner of the data, such as a principal; opening requires the same context.
        """
        nonce = os.urandom(_NONCE)
        sealed = self._keys[self._sealing].encrypt(nonce, content, _bound(context))
        return base64.urlsafe_b64encode(self._sealing + nonce + sealed).rstrip(b"=").decode("ascii")

    def open(self, text: str, context: str = "") -> bytes:
        """The content that was passed to `seal`.

        Raises:
            NotSealedHere: in every other case.
        """
        try:
            raw = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        except ValueError:
            raise NotSealedHere from None
        # Only the exact spelling that `seal` produces is accepted. Otherwise one id would have several texts, and a
        # deleted id would remain valid under another text.
        if len(raw) < _FINGERPRINT + _NONCE + _TAG or base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != text:
            raise NotSealedHere
        key = self._keys.get(raw[:_FINGERPRINT])
        if key is None:
            raise NotSealedHere
        nonce, sealed = raw[_FINGERPRINT : _FINGERPRINT + _NONCE], raw[_FINGERPRINT + _NONCE :]
        try:
            return key.decrypt(nonce, sealed, _bound(context))
        except InvalidTag:
            raise NotSealedHere from None


def kept_ring(path: Path) -> tuple[KeyRing, bool]:
    """The ring of the secret in a file, which is created if it is missing.

    Args:
        path: The file: one secret in hexadecimal per line, readable only by its owner.

    Returns:
        The ring, and whether the file was created by this call.

    Raises:
        ConfigError: the file cannot be read or created, others can read it, or it contains no valid secret.
    """
    made = False
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # O_EXCL: if two processes start at once, one creates the file and both use it.
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigError(f"{path}: the sealing key cannot be made: {error.strerror}", key="keys") from None
    else:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(SHORTEST_SECRET) + "\n")
        made = True
    return KeyRing(_read_secrets(path)), made


def given_ring(path: Path) -> KeyRing:
    """The ring of secrets in an operator's file, which mcpconn never creates or changes.

    The file may be another user's, readable by this process's group: that is how Kubernetes mounts a secret.

    Args:
        path: The file: secrets in hexadecimal, one a line; the first seals.

    Raises:
        ConfigError: the file cannot be read, others can read it, or it contains no valid secret.
    """
    return KeyRing(_read_secrets(path, given=True))


def _read_secrets(path: Path, *, given: bool = False) -> list[bytes]:
    try:
        found = path.stat()
        lines = path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not hexadecimal text"
        raise ConfigError(f"{path}: the sealing key cannot be read: {reason}", key="keys") from None
    foreign = given and os.name == "posix" and found.st_uid != os.geteuid()
    # If the file belongs to another user, this process may need the group's read permission. Group write permission is
    # never acceptable.
    if os.name == "posix" and found.st_mode & (0o037 if foreign else 0o077):
        raise ConfigError(f"{path}: others can read the sealing key; run: chmod 600 {path}", key="keys")
    try:
        return [bytes.fromhex(line) for line in lines]
    except ValueError:
        # The line is not shown, because it is a secret with a typing error.
        raise ConfigError(f"{path}: a sealing key must be hexadecimal digits, one key a line", key="keys") from None


def _derive(secret: bytes, purpose: str) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=f"mcpconn/gateway/v1/{purpose}".encode()).derive(secret)


def _bound(context: str) -> bytes:
    return b"mcpconn/v1\0" + context.encode("utf-8", "surrogatepass")
