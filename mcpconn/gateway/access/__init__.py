"""Who may use the gateway, and how much: keys, tokens, rights and limits, in one ASGI layer before the endpoints."""
