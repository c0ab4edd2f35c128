"""Translates hosts' formats of a server's entry to mcpconn's. A host is recognized by its file, in
`mcpconn.mcpjson`."""
