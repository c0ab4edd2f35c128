"""An agent's tools, kept up to date while its servers come and go."""

from typing import Any

import mcpconn
from mcpconn import CatalogChange


class Toolbox:
    """The tools of one server, by name, as the agent knows them."""

    def __init__(self) -> None:
        self.tools: set[str] = set()

    def follow(self, change: CatalogChange) -> None:
        if change.kind == "tools":
            self.tools |= set(change.added)
            self.tools -= set(change.removed)


async def main(server: Any) -> set[str]:
    toolbox = Toolbox()
    async with mcpconn.Connection(server) as connection:
        connection.catalog.subscribe(toolbox.follow)
        # Lists what is not known yet. False: something could not be listed.
        assert await connection.catalog.ensure(["tools"])
        assert toolbox.tools == set(connection.catalog.tools)
    return toolbox.tools
