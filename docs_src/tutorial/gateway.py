"""A gateway: the tools of many MCP servers behind one HTTP endpoint.

uvicorn gateway:app --port 9000
curl -X POST localhost:9000/shop/price -d '{"item": "apple"}'
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypedDict

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import mcpconn
from mcpconn import handlers

CONFIG = Path(__file__).with_name("mcp.json")


class Lifespan(TypedDict):
    manager: mcpconn.Manager


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[Lifespan]:
    async with mcpconn.Manager.from_file(CONFIG) as manager:
        yield {"manager": manager}


async def call(request: Request) -> Response:
    """Call a tool. The handler waits, replays where that is right, never raises."""
    server, tool = request.path_params["server"], request.path_params["tool"]
    manager: mcpconn.Manager = request.state.manager
    try:
        arguments = await request.json()
    except (ValueError, RecursionError) as error:
        return JSONResponse({"error": f"the body is no JSON: {error}"}, status_code=400)
    handler = handlers.call_tool(manager, server, tool, timeout=30)
    return Response(await handler(arguments), media_type="application/json")


async def health(request: Request) -> JSONResponse:
    """Which servers are ready; 503 while one is not."""
    manager: mcpconn.Manager = request.state.manager
    states = {name: connection.state.value for name, connection in manager.items()}
    return JSONResponse(
        states, status_code=200 if set(states.values()) == {"ready"} else 503
    )


app = Starlette(
    routes=[
        Route("/health", health),
        Route("/{server}/{tool}", call, methods=["POST"]),
    ],
    lifespan=lifespan,
)
