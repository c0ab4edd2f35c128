"""Access control of the gateway: keys, tokens, rights and limits, in one ASGI layer in front of the endpoints."""
