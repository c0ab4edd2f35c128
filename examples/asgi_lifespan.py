"""A web application with a manager in its lifespan, here FastAPI; Starlette and others take the same function.

MCP_CONFIG=mcp.json uvicorn --app-dir examples asgi_lifespan:app --port 9000
curl -X POST localhost:9000/sums -H 'content-type: application/json' -d '{"a": 1, "b": 2}'
"""

import math
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypedDict

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

import mcpconn


class State(TypedDict):
    manager: mcpconn.Manager


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[State]:
    """Connections open with the application and close with it. Servers that are down do not keep it from starting."""
    async with mcpconn.Manager.from_file(os.environ.get("MCP_CONFIG", "mcp.json")) as manager:
        yield {"manager": manager}


app = FastAPI(lifespan=lifespan)


class Sum(BaseModel):
    a: float
    b: float


@app.post("/sums")
async def add(numbers: Sum, request: Request) -> dict[str, Any]:
    """Have a tool do it. Below the timeout of whatever stands before this application."""
    manager: mcpconn.Manager = request.state.manager
    result = await manager.call_tool("shop", "add", numbers.model_dump(), timeout=20)
    return {"answer": result.model_dump(mode="json", by_alias=True, include={"content", "is_error"})}


@app.exception_handler(mcpconn.CallFailed)
async def failed(request: Request, error: mcpconn.CallFailed) -> JSONResponse:
    """No answer came. 503: nothing was done, and the request may be retried. 504: the outcome is unknown."""
    wait = {} if error.retry_in is None else {"Retry-After": str(math.ceil(error.retry_in))}
    body = {"error": str(error), "kind": error.failure.kind.value, "outcome": error.outcome}
    return JSONResponse(body, status_code=503 if error.outcome == "not_run" else 504, headers=wait)


@app.get("/ready")
async def ready(request: Request) -> JSONResponse:
    """For the platform: 503 as long as a server is not ready."""
    manager: mcpconn.Manager = request.state.manager
    states = {name: connection.state.value for name, connection in manager.items()}
    return JSONResponse(states, status_code=200 if set(states.values()) == {"ready"} else 503)


@app.get("/status")
async def status(request: Request) -> dict[str, Any]:
    """For an operator: no secrets are in it."""
    manager: mcpconn.Manager = request.state.manager
    return manager.status()
