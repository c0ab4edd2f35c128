"""The gateway in an application of your own: MCP at /mcp, and whatever else it serves.

uvicorn embed_gateway:app --port 9000
"""

from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from mcpconn.gateway import App

gateway = App(Path(__file__).with_name("mcp.json"))


async def health(request: Request) -> JSONResponse:
    """The state of each server. One that is away is information: the others serve."""
    states = {name: gateway.manager[name].state.value for name in gateway.servers}
    return JSONResponse(states)


app = Starlette(
    routes=[Route("/health", health), Mount("/", gateway)],
    lifespan=gateway.lifespan,
)
