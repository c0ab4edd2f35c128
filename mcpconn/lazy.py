"""Public names that are imported on first use: most programs use no gateway, framework, thread or Redis.

Connections are among them, so that a program that only catches errors or classifies failures does not load what dials.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def first_use(package: str, where: Mapping[str, str]) -> Callable[[str], Any]:
    """Make the `__getattr__` of a package (PEP 562).

    A name that is kept back this way is also imported under `TYPE_CHECKING`, or a type checker takes it for `Any`.

    Args:
        package: Its name.
        where: By public name, the module that has it; a module that is itself public has its own name here.
    """

    def __getattr__(name: str) -> Any:
        if (module := where.get(name)) is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = import_module(module)
        return found if module == f"{package}.{name}" else getattr(found, name)

    # Interactive shells complete names from `dir`, which knows only what is loaded.
    module = sys.modules[package]
    vars(module)["__dir__"] = lambda: sorted({*vars(module), *where})
    return __getattr__
