"""Names of the package that are loaded when first used: most programs need no gateway and no framework."""

from __future__ import annotations

from importlib import import_module
from typing import Any

WHERE = {
    "as_server": ("mcpconn.integrations", "as_server"),
    "integrations": ("mcpconn.integrations", None),
}
"""By name: the module, and the name in it; None is the module itself."""


def __getattr__(name: str) -> Any:
    found = WHERE.get(name)
    if found is None:
        raise AttributeError(f"module 'mcpconn' has no attribute {name!r}")
    module = import_module(found[0])
    return module if found[1] is None else getattr(module, found[1])
