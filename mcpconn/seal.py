"""Authenticated encryption for what the gateway hands out and takes back: session ids, states, cursors, stored values.

AES-256-GCM with a key for each purpose, derived from the ring's secrets with HKDF-SHA256 (RFC 5869). What is sealed for
one purpose or context cannot be opened for another: both are bound in, the first by the key, the second as associated
data. The first secret of the ring seals, every one of them opens: rotate with [old, new], then [new, old], each rolled
out to all processes before the next.
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
"""Bytes of a secret. An AES-256 key has as many."""
_FINGERPRINT = 4
"""Bytes that say which secret sealed. Not secret; they spare trying every secret of the ring."""
_NONCE = 12
"""Bytes of a random nonce, as GCM wants it (NIST SP 800-38D, 5.2.1.1)."""
_TAG = 16
"""Bytes of GCM's tag."""


class NotSealedHere(Exception):
    """The text was not sealed with this ring for this purpose and context, or was changed since.

    It says nothing more, so that an attacker learns nothing from it.
    """

    def __init__(self) -> None:
        super().__init__("not sealed here")


class KeyRing:
    """The secrets of a gateway. `repr` shows how many there are and nothing of them."""

    def __init__(self, secrets_: Sequence[bytes]) -> None:
        """
        Args:
            secrets_: Newest-sealing first; each at least `SHORTEST_SECRET` random bytes.

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
        """A ring that ends with the process: what it sealed is worth nothing afterwards."""
        return cls([secrets.token_bytes(SHORTEST_SECRET)])

    def sealer(self, purpose: str) -> Sealer:
        """Seals and opens for one purpose."""
        return Sealer(self._secrets, purpose)

    def derived(self, purpose: str) -> list[bytes]:
        """Keys of 32 bytes for another's use, one from each secret, in the ring's order."""
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
            content: What only this gateway is to read.
            context: What it belongs to, such as a principal; the same must be given to open it.
        """
        nonce = os.urandom(_NONCE)
        sealed = self._keys[self._sealing].encrypt(nonce, content, _bound(context))
        return base64.urlsafe_b64encode(self._sealing + nonce + sealed).rstrip(b"=").decode("ascii")

    def open(self, text: str, context: str = "") -> bytes:
        """What `seal` was given.

        Raises:
            NotSealedHere: in every other case.
        """
        try:
            raw = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        except ValueError:
            raise NotSealedHere from None
        # Only the one spelling that `seal` makes is taken: otherwise one id would have several texts, and a
        # deleted one would live on under another.
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
    """The ring of the secret kept in a file, which is made if it is missing.

    Args:
        path: The file: one secret in hexadecimal a line, readable by its owner alone.

    Returns:
        The ring, and whether the file was made now.

    Raises:
        ConfigError: the file cannot be read or made, others can read it, or it holds no usable secret.
    """
    made = False
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # O_EXCL: of two processes that start at once, one makes the file and both use it.
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
    """The ring of secrets that an operator keeps in a file, which is never made or changed here.

    The file may be another user's, readable by this process's group: that is how Kubernetes mounts a secret.

    Args:
        path: The file: secrets in hexadecimal, one a line; the first seals.

    Raises:
        ConfigError: the file cannot be read, others can read it, or it holds no usable secret.
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
    # Of another's file, the group's right to read may be ours; its right to write is nobody's business.
    if os.name == "posix" and found.st_mode & (0o037 if foreign else 0o077):
        raise ConfigError(f"{path}: others can read the sealing key; run: chmod 600 {path}", key="keys")
    try:
        return [bytes.fromhex(line) for line in lines]
    except ValueError:
        # Nothing of the line is shown: it is a secret with a typing error.
        raise ConfigError(f"{path}: a sealing key must be hexadecimal digits, one key a line", key="keys") from None


def _derive(secret: bytes, purpose: str) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=f"mcpconn/gateway/v1/{purpose}".encode()).derive(secret)


def _bound(context: str) -> bytes:
    return b"mcpconn/v1\0" + context.encode("utf-8", "surrogatepass")
