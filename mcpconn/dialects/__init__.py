"""How hosts write down a server, and what that is here. A host is recognized by its file, in `mcpconn.mcpjson`."""

from mcpconn.dialects.hosts import IN_CODE, UNKNOWN, Host
from mcpconn.dialects.outside import complete
from mcpconn.dialects.translate import Translated, is_disabled, snake, translate
from mcpconn.dialects.unclear import Unclear

__all__ = ["IN_CODE", "UNKNOWN", "Host", "Translated", "Unclear", "complete", "is_disabled", "snake", "translate"]
