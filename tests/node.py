"""Programs for node that .ci/run installs; who needs one is skipped without."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NODE = 22
"""The oldest node that all of them run on. npm has it as the package `node`."""
PATIENCE = 60.0
"""Seconds for asking a node for its version."""


def find_modules() -> Path:
    """The folder of packages. MCPCONN_NODE_DIR names another than .node's."""
    return Path(os.environ.get("MCPCONN_NODE_DIR") or ROOT / ".node" / "node_modules")


def node_in(modules: Path) -> Path | None:
    """A node that is new enough: a package of its own, or the machine's."""
    for candidate in (modules / "node" / "bin" / "node", shutil.which("node")):
        if candidate is not None and _version(Path(candidate)) >= NODE:
            return Path(candidate)
    return None


def find_node(package: str) -> tuple[Path, Path]:
    """A node and the folder with a package; the test is skipped if one of them is missing."""
    modules = find_modules()
    node = node_in(modules)
    if not (modules / package / "package.json").is_file():
        pytest.skip(f"no {package} in {modules}; .ci/run installs it")
    if node is None:
        pytest.skip(f"{package} needs node {NODE}; .ci/run installs it")
    return node, modules


def _version(node: Path) -> int:
    try:
        said = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=PATIENCE, check=False).stdout
    except OSError:
        return 0
    found = re.match(r"v(\d+)\.", said)
    return int(found[1]) if found else 0
