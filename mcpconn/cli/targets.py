"""Which servers a command is for: names of a file, an address, or a command line after `--`."""

from __future__ import annotations

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
    """What followed `--` on the command line."""

    command: list[str] | None = None


ad_hoc = AdHoc()


def is_address(word: str) -> bool:
    """Whether a word of the command line is the address of a server."""
    return word.startswith(("http://", "https://"))


def is_file(word: str) -> bool:
    """Whether it names a configuration file."""
    return not is_address(word) and (Path(word).suffix.lower() in FILES or Path(word).is_file() or Path(word).is_dir())


def servers_of(words: Sequence[str], config: Path | None, *, strict: bool = False) -> dict[str, ServerConfig]:
    """The servers that are meant: all of the file if none is named.

    Args:
        words: A file first, perhaps; then names of servers in it, or addresses.
        config: `--config`.
        strict: Refuse the whole file for one entry that cannot be used.

    Raises:
        CliError: there is no such server, or no such file.
        ConfigError: the file or the address cannot be used.
    """
    if ad_hoc.command is not None:
        if words or config is not None:
            raise CliError("give a command after --, or names of servers, not both", USAGE)
        return dict([started()])
    words = list(words)
    if words and config is None and is_file(words[0]):
        config = Path(words.pop(0))
    addresses = [word for word in words if is_address(word)]
    names = [word for word in words if not is_address(word)]
    found = dict(at(address) for address in addresses)
    if names or not addresses:
        found |= configuration.pick(configuration.load(config, strict=strict), names)
    return {name: with_login(each) for name, each in found.items()}


def server_of(word: str, config: Path | None) -> tuple[str, ServerConfig]:
    """The one server that a word means.

    Raises:
        CliError, ConfigError: as `servers_of`.
    """
    ((name, found),) = servers_of([word], config).items()
    return name, found


def at(address: str) -> tuple[str, ServerConfig]:
    """A server at an address, named after its host."""
    config = ServerConfig(name="it", url=address)
    return _known(config)


def started() -> tuple[str, ServerConfig]:
    """The server that the command after `--` starts, named after its program. It gets the whole environment: it is
    what would run in this shell.

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
