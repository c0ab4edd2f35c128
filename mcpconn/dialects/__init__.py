"""How hosts write down a server, and what that is here. A host is recognized by its file, in `mcpconn.mcpjson`."""
