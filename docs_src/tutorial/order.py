"""A call that must not be made twice."""

import anyio

import mcpconn

URL = "http://127.0.0.1:8000/mcp"


async def main(url: str = URL) -> None:
    async with mcpconn.Connection(url, name="shop") as connection:
        try:
            result = await connection.call_tool("order", {"item": "pear"})
        except mcpconn.OutcomeUnknown as error:
            print("Perhaps it was ordered, perhaps not:", error)
        except mcpconn.CallFailed as error:
            print("It was not ordered:", error)
        else:
            print(result.structured_content)
        # Whatever became of the call, the connection is healing already.
        result = await connection.call_tool("price", {"item": "pear"})
        print(result.structured_content)


if __name__ == "__main__":
    anyio.run(main)
