"""One connection, one call."""

import anyio

import mcpconn

URL = "http://127.0.0.1:8000/mcp"


async def main(url: str = URL) -> None:
    async with mcpconn.Connection(url) as connection:
        result = await connection.call_tool("price", {"item": "apple"})
        print(result.structured_content)


if __name__ == "__main__":
    anyio.run(main)
