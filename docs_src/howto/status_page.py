"""A host that shows its connections on a page of its own."""

import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Mount

from mcpconn import Manager
from mcpconn.asgi import Access, status_app


def application(servers: Mapping[str, Any]) -> Starlette:
    """Serve it with any ASGI server: `uvicorn --factory myhost:application`."""
    manager = Manager(servers)
    page = status_app(
        manager,
        access=Access(
            read_key=os.environ.get("PAGE_READ_KEY"),
            act_key=os.environ.get("PAGE_ACT_KEY"),
        ),
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with manager:
            yield

    return Starlette(routes=[Mount("/connections", page)], lifespan=lifespan)
