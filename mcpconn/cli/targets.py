"""The servers of a command: names in a file, a URL, or a command line after `--`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mcpconn.auth import Login, token_file
from mcpconn.cli import config as configuration
from mcpconn.cli.failures import USAGE, CliError
from mcpconn.cli.hiding import know
from mcpconn.config import ServerConfig

FILES = (".json", ".jsonc", ".toml", ".yaml", ".yml")


@dataclass
class AdHoc:
    """The words after `--` on the command line."""

    command: list[str] | None = None


ad_hoc = AdHoc()


def is_address(word: str) -> bool:
    """Whether a word of the command line is the address of a server."""
    return word.startswith(("http://", "https://"))


def is_file(word: str) -> bool:
    """Whether a word names a configuration file, and not a server.

    A bare name of a folder is a server's: people call both "docs".
    """
    if is_address(word):
        return False
    return Path(word).suffix.lower() in FILES or word.startswith(".") or os.sep in word or Path(word).is_file()


def file_and_words(words: Sequence[str], config: Path | None) -> tuple[Path | None, list[str]]:
    """Which file is meant, and the words after it: the first word is the file if `--config` was not given.

    Args:
        words: The words of a command.
        config: `--config`.
    """
    if words and config is None and is_file(words[0]):
        return Path(words[0]), list(words[1:])
    return config, list(words)


def servers_of(words: Sequence[str], config: Path | None, *, strict: bool = False) -> dict[str, ServerConfig]:
    """The selected servers: all in the file if none is named.

    Args:
        words: A file first, perhaps; then names of servers in it, or addresses.
        config: `--config`.
        strict: Reject the whole file if one entry is invalid.

    Raises:
        CliError: there is no such server, or no such file.
        ConfigError: the file or the address cannot be used.
    """
    if ad_hoc.command is not None:
        if words or config is not None:
            raise CliError("give a command after --, or names of servers, not both", USAGE)
        return dict([started()])
    config, words = file_and_words(words, config)
    addresses = [word for word in words if is_address(word)]
    names = [word for word in words if not is_address(word)]
    found = dict(at(address) for address in addresses)
    if names or not addresses:
        found |= configuration.pick(configuration.load(config, strict=strict), names)
    return {name: with_login(each) for name, each in found.items()}


def server_of(
    words: Sequence[str], config: Path | None, *, least: int, example: str
) -> tuple[str, ServerConfig, list[str]]:
    """The selected server, its configuration, and the words after it.

    Args:
        words: A file first, perhaps; then a name or an address, unless a command stands after `--`; then the rest.
        config: `--config`.
        least: How many words the command needs after the server.
        example: Right words, for the error.

    Raises:
        CliError, ConfigError: as `servers_of`; or words are missing.
    """
    if ad_hoc.command is not None:
        if config is not None:
            raise CliError("give a command after --, or a file, not both", USAGE)
        words = ["", *words]
    else:
        config, words = file_and_words(words, config)
    if len(words) <= least:
        raise CliError(f"arguments are missing after the command; for example: {example}", USAGE)
    ((name, found),) = [started()] if ad_hoc.command is not None else servers_of(words[:1], config).items()
    return name, found, list(words[1:])


def at(address: str) -> tuple[str, ServerConfig]:
    """A server at an address, named after its host."""
    config = ServerConfig(name="it", url=address)
    return _known(config)


def started() -> tuple[str, ServerConfig]:
    """The server that the command after `--` starts, named after its program. It inherits the whole environment, as it
    would in this shell.

    Raises:
        CliError: there is no command.
    """
    if not ad_hoc.command:
        raise CliError("-- needs a command after it, such as: -- npx -y some-server", USAGE)
    program, *arguments = ad_hoc.command
    return _known(ServerConfig(name="it", command=program, args=arguments, inherit_env=True))


def _known(config: ServerConfig) -> tuple[str, ServerConfig]:
    config = replace(config, name=config.label)
    know(config.redactor)
    return config.name, config


def with_login(config: ServerConfig) -> ServerConfig:
    """The server, with the login that was made for it here, if it has no other credentials."""
    if config.problem is not None or config.url is None or config.auth is not None:
        return config
    has_token = any(name.lower() == "authorization" for name in config.request_headers)
    return config if has_token or not token_file(config.url).exists() else replace(config, auth=Login())
