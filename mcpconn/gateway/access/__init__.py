"""Who may use the gateway, and how much: keys, tokens, rights and limits, in one ASGI layer before the endpoints."""

from mcpconn.gateway.access.config import AccessSettings, parse_access
from mcpconn.gateway.access.gate import Gate
from mcpconn.gateway.access.keys import KeyFile
from mcpconn.gateway.access.rights import EVERYTHING, Rights, rights_of

__all__ = ["EVERYTHING", "AccessSettings", "Gate", "KeyFile", "Rights", "parse_access", "rights_of"]
