"""Whether the types that users see are as strict as `api.py` says. mypy reads that file with `make lint`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.node import find_modules

HERE = Path(__file__).parent
PYRIGHT = find_modules() / "pyright" / "index.js"


@pytest.mark.skipif(
    shutil.which("node") is None or not PYRIGHT.exists(), reason="pyright is a program for node; see .ci/run"
)
def test_pyright_reads_the_api_strictly() -> None:
    command = ["node", str(PYRIGHT), "--outputjson", "--pythonpath", sys.executable, "--project", str(HERE)]
    report = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=100).stdout)
    found = [f"{each['range']['start']['line'] + 1}: {each['message']}" for each in report["generalDiagnostics"]]
    assert report["summary"]["filesAnalyzed"] == 1
    assert found == []
