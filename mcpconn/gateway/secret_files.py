"""Secrets in files. Configurations are shared, so they name a file instead of containing the secret."""

from __future__ import annotations

from pathlib import Path

from mcpconn.errors import ConfigError


def read_secret(path: str, *, where: str, key: str, folder: Path) -> str:
    """The content of a file, without the space around it.

    Args:
        path: The file.
        where: The key's whole path in the configuration, for errors.
        key: The key.
        folder: A relative path begins here.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        return (folder / Path(path).expanduser()).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(f"{where}: {path}: {reason}", key=key) from None
