"""The runtime: the task that owns a connection's life, the gate before it, and the path of a call. anyio only."""
