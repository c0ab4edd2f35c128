"""The runtime: the task that runs a connection, the gate in front of it, and the path of a call. Uses anyio only."""
