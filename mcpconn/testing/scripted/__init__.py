"""Scripted MCP servers: what they answer, what can go wrong, and how they are served. Imports nothing of mcpconn.

`script.Script` decides what a server answers, as steps (`steps`) that any transport can play. `http` serves it on a
real socket, `inproc` inside the process, `stdio_server` as a program, `sse` by the older HTTP+SSE transport, and
`proxy` stands between a client and any server. `faults`, `hostile`, `poison`, `refusals` and `expiries` define the
faults.
"""
