"""`python tests/integrations/gateway_clients NAME URL`: calls twice; between the calls, a line is awaited on stdin."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any


def between() -> Any:
    """Say that the first call is done, and wait until the server has been killed."""
    print("between", flush=True)
    return sys.stdin.readline()


def main(name: str, url: str) -> None:
    """Run the client of this name."""
    # By its path, and under another name: the framework has the same.
    spec = importlib.util.spec_from_file_location(f"client_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    print(json.dumps(module.use(url, between)), flush=True)


if __name__ == "__main__":
    # Not this folder, whose files have the frameworks' names.
    sys.path.pop(0)
    main(*sys.argv[1:])
