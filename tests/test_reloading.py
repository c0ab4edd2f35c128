"""What a reload changes, worked out from the two sets of configurations."""

from __future__ import annotations

from mcpconn.config import ServerConfig
from mcpconn.reloading import difference


def configs(**urls: str) -> dict[str, ServerConfig]:
    return {name: ServerConfig.parse(name, {"url": url}) for name, url in urls.items()}


def test_each_name_is_in_one_list() -> None:
    present = configs(same="http://a/mcp", other="http://b/mcp", gone="http://c/mcp")
    found = difference(present, configs(same="http://a/mcp", other="http://b2/mcp", new="http://d/mcp"), keep=())
    assert found == {"added": ["new"], "removed": ["gone"], "changed": ["other"], "unchanged": ["same"]}


def test_a_disabled_server_is_as_one_that_is_not_there() -> None:
    off = {"srv": ServerConfig.parse("srv", {"url": "http://a/mcp", "disabled": True})}
    assert difference(configs(srv="http://a/mcp"), off, keep=())["removed"] == ["srv"]
    assert not any(difference({}, off, keep=()).values())


def test_connections_that_belong_to_no_file_are_kept() -> None:
    assert not any(difference(configs(user="http://a/mcp"), {}, keep={"user"}).values())
