"""Only one of two servers may ask the user."""

from typing import Any

from mcpconn import Manager, ServerConfig


def two(elicit: Any) -> Manager:
    return Manager(
        {
            "shop": ServerConfig(
                url="http://127.0.0.1:8000/mcp",
                options={"elicitation_callback": elicit},
            ),
            "news": {"url": "http://127.0.0.1:8001/mcp"},
        }
    )
