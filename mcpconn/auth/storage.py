"""Tokens in a file: private, never half written, and shared between processes."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from anyio import to_thread
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

from mcpconn.auth.credentials import CredentialsRefused
from mcpconn.auth.filelock import FileLock


class TokenFileError(CredentialsRefused):
    """A token file that cannot be read. The text names the file and what to do about it."""


class FileTokenStorage:
    """The SDK's `TokenStorage`, as one JSON file for one server and one user.

    The file has mode 0600 and is replaced as a whole, so a reader sees the old tokens or the new ones, and a
    crash leaves the old. Beside the tokens it holds when they expire, which the SDK's token does not say, and
    the client's registration. Processes may share it; `OAuth` takes its `lock` around a refresh, so that a
    refresh token, which many servers accept but once, is spent by one process, and read anew by the others.

    A file that cannot be read is left as it is, and `TokenFileError` names it: it may hold the only copy of a
    registration that cannot be had again.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """
        Args:
            path: The file. It and its directory are made at the first write. A symbolic link is followed.
        """
        self.path = Path(os.path.realpath(os.path.expanduser(path)))
        self._lock = FileLock(self.path.with_name(f"{self.path.name}.lock"))

    @asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        """Keep other processes from refreshing and writing. The task that holds it may enter again.

        Raises:
            TokenFileError: the lock's file cannot be made.
        """
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            held = self._lock.held()
            await held.__aenter__()
        except OSError as error:
            raise TokenFileError(_hint(self._lock.path, "cannot be made or locked", error)) from None
        try:
            yield
        finally:
            await held.__aexit__(None, None, None)

    async def get_tokens(self) -> OAuthToken | None:
        """The tokens, `expires_in` counted from now.

        Raises:
            TokenFileError: the file cannot be read.
        """
        data = await to_thread.run_sync(self._read)
        if "tokens" not in data:
            return None
        tokens: OAuthToken = self._parsed(OAuthToken, data["tokens"])
        expires_at = data.get("expires_at")
        if isinstance(expires_at, (int, float)):
            tokens.expires_in = max(0, int(expires_at - time.time()))
        return tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """Replace the tokens."""
        expires_at = time.time() + int(tokens.expires_in) if tokens.expires_in is not None else None
        await self._update(tokens=tokens.model_dump(mode="json", exclude_none=True), expires_at=expires_at)

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """The client's registration.

        Raises:
            TokenFileError: the file cannot be read.
        """
        data = await to_thread.run_sync(self._read)
        return self._parsed(OAuthClientInformationFull, data["client"]) if "client" in data else None

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """Replace the registration."""
        await self._update(client=client_info.model_dump(mode="json", exclude_none=True))

    async def clear(self) -> None:
        """Forget the tokens, as after a logout. The registration stays."""
        await self._update(tokens=None, expires_at=None)

    async def _update(self, **changes: Any) -> None:
        async with self.lock():
            data = await to_thread.run_sync(self._read) | changes
            await to_thread.run_sync(self._write, {key: value for key, value in data.items() if value is not None})

    def _read(self) -> dict[str, Any]:
        try:
            data = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise TokenFileError(_hint(self.path, "cannot be read", error)) from None
        except ValueError:
            data = None
        if not isinstance(data, dict):
            raise self._damaged()
        return data

    def _parsed(self, model: Any, value: Any) -> Any:
        try:
            return model.model_validate(value)
        except ValueError:
            # What the validation says quotes the values: they are secrets.
            raise self._damaged() from None

    def _damaged(self) -> TokenFileError:
        return TokenFileError(f"{self.path} is not a token file, or damaged: restore it, or move it away")

    def _write(self, data: dict[str, Any]) -> None:
        # mkstemp makes files that only their owner can read.
        descriptor, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.", suffix=".tmp")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(data, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        _sync_directory(self.path.parent)

    def __repr__(self) -> str:
        return f"<FileTokenStorage {self.path}>"


def _hint(path: Path, what: str, error: OSError) -> str:
    return f"{path} {what} ({error.strerror or type(error).__name__})"


def _sync_directory(path: Path) -> None:
    """Have the new name survive a power cut, where the system can be asked to."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
