"""Raises on import if another project's files are in the same folder.

The package index has a project called `mcpconn`, which is unrelated but has the same import name. This
one is distributed as `mcp-connection-manager`. Installed into one environment, each overwrites some of the other's
files, and the result is a mixture of both, which fails in an unrelated place. `mcpconn/__init__.py` imports this module
first, so that the error names the actual cause. (If the other project was installed last, that file is the other
project's, and this module does not run.)
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path, PurePath

OTHER = "mcpconn"
"""The name of the other project."""
MIXED = (
    "two projects that share the import name 'mcpconn' are installed here, and their files are mixed: 'mcpconn' and "
    "'mcp-connection-manager'. Run 'pip uninstall mcpconn mcp-connection-manager', then install the one you want"
)


def check(folder: Path) -> None:
    """Look for the other project's files. Costs less than a millisecond when it is not installed.

    Args:
        folder: The folder of this package.

    Raises:
        ImportError: the other project has files there; the message says what to run.
    """
    try:
        other = distribution(OTHER)
    except PackageNotFoundError:
        return
    if not any(PurePath(file).parts[:1] == (folder.name,) for file in other.files or ()):
        return  # an editable install, or the other project has changed its import name
    if Path(str(other.locate_file(folder.name))).resolve() == folder.resolve():
        raise ImportError(MIXED)


check(Path(__file__).parent)
