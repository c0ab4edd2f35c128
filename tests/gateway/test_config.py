"""The gateway's section is read from every file that the servers are read from."""

import pytest

from mcpconn.gateway import parse_settings
from mcpconn.gateway.config import read_section

JSON = '{"mcpServers": {"fs": {"command": "x"}}, "gateway": {"views": {"calm": {"deny": ["fs/*"]}}}}'
COMMENTED = '{ // ours\n"mcpServers": {"fs": {"command": "x"}},\n"gateway": {"views": {"calm": {"deny": ["fs/*"],}}}}'


@pytest.mark.parametrize("text", [JSON, COMMENTED], ids=["plain", "with comments"])
def test_what_a_view_denies_is_read(tmp_path, text):
    path = tmp_path / "mcp.json"
    path.write_text(text)
    settings = parse_settings(read_section(path), ("fs",))
    assert not settings.views["calm"].shows("fs", "delete")


def test_a_file_without_the_section_has_one_view(tmp_path):
    path = tmp_path / "mcp.json"
    path.write_text('{"mcpServers": {}}')
    assert list(parse_settings(read_section(path), ()).views) == [""]
