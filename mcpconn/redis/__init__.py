"""Redis or Valkey, as the stores of this package use it: a link that reconnects, and records changed by scripts.

`mcpconn.gateway.store.RedisStore` and `mcpconn.auth.RedisTokenStorage` are built on it. It needs the extra `redis`.
"""
