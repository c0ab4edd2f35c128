"""The frameworks, and an environment for each: `python -m tests.integrations.frameworks [NAME ...]`.

Each gets an environment of its own in `.integrations/`, because they do not agree on their dependencies; the versions
are pinned, because pip falls back to an ancient release of a framework rather than say that none fits. Then its agents
live through `scenarios.py`, and `docs/frameworks.md` gets the table. `make test-integrations` runs it for all.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = ROOT / ".integrations"
TABLE = ROOT / "docs" / "frameworks.md"
OURS = ("mcp==2.3.0", "transitions>=0.9.3,<0.10", "anyio>=4.10", "structlog>=24.1")
"""What mcpconn needs. It is not installed itself: its present source is run."""
MARK = "<!-- frameworks -->", "<!-- /frameworks -->"
PATIENCE = 300.0
"""Seconds for the scenarios of one framework; each starts a process or two, on a machine that may be busy."""


@dataclass(frozen=True)
class Framework:
    """A framework, as it is installed and tried."""

    name: str
    """Of our module and of its agent in `agents/`."""
    package: str
    version: str
    hook: str
    """What of ours takes the place of what of theirs."""
    more: tuple[str, ...] = ()
    """What its agents need besides."""

    @property
    def python(self) -> Path:
        """The interpreter of its environment."""
        return ENVIRONMENTS / self.name / "bin" / "python"

    @property
    def pins(self) -> list[str]:
        """What is installed."""
        return [f"{self.package}=={self.version}", *self.more, *OURS]

    @property
    def ready(self) -> bool:
        """Whether its environment is there, with these versions."""
        stamp = ENVIRONMENTS / self.name / "pins"
        return stamp.exists() and stamp.read_text().split("\n") == self.pins


FRAMEWORKS = (
    Framework("openai_agents", "openai-agents", "0.24.0", "`ConnectedServer`, an `MCPServer`"),
    Framework("pydantic_ai", "pydantic-ai-slim", "2.68.0", "`ManagedToolset`, an `AbstractToolset`"),
    Framework("fastmcp", "fastmcp", "4.2.3", "`ManagedTransport`, a `ClientTransport`"),
    Framework("agno", "agno", "3.1.10", "`toolkit()`, `MCPTools(session=)`", ("openai",)),
    Framework("google_adk", "google-adk", "2.13.0", "`ManagedToolset`, a `BaseToolset`"),
    Framework("llama_index", "llama-index-tools-mcp", "0.6.0", "`function_tools()`, `FunctionTool`"),
    Framework("agent_framework", "agent-framework-core", "1.23.0", "`function_tools()`, `FunctionTool`"),
    Framework("haystack", "mcp-haystack", "2.1.1", "`tools()`, `Tool`"),
    Framework("smolagents", "smolagents", "1.26.0", "`tools()`, `Tool`"),
    Framework("langchain", "langchain", "1.5.2", "`tools()`, `StructuredTool`", ("langgraph==1.2.24",)),
)
SHORT = ("openai_agents", "pydantic_ai")
"""What CI tries with every change: the two whose own toolsets say the most wrong thing of a call that may have run."""


def installed(framework: Framework) -> None:
    """Make its environment, unless it is there."""
    if framework.ready:
        return
    print(f"installing {framework.package} {framework.version} ...", file=sys.stderr)
    folder = ENVIRONMENTS / framework.name
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    pip = [str(framework.python), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"]
    subprocess.run([*pip, *framework.pins], check=True)
    (folder / "pins").write_text("\n".join(framework.pins))


def tried(framework: Framework) -> dict[str, str]:
    """What its agents lived through: by scenario, "ok" or what went wrong."""
    done = subprocess.run(
        [str(framework.python), "-m", "tests.integrations.scenarios", framework.name],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {"started": f"exit status {done.returncode}: {done.stderr.strip()[-2000:]}"}
    outcome: dict[str, str] = json.loads(lines[-1])
    if any(each not in ("ok",) and not each.startswith("not offered") for each in outcome.values()):
        print(done.stderr, file=sys.stderr)
    return outcome


def passed(outcome: dict[str, str]) -> bool:
    """Whether nothing went wrong."""
    return bool(outcome) and all(each == "ok" or each.startswith("not offered") for each in outcome.values())


def table(outcomes: dict[str, dict[str, str]]) -> str:
    """The table of `docs/frameworks.md`."""
    scenarios = next(iter(outcomes.values())).keys()
    head = ["framework", "hook", *(each.replace("_", " ") for each in scenarios)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for framework in FRAMEWORKS:
        if framework.name in outcomes:
            cells = [outcomes[framework.name].get(each, "not run") for each in scenarios]
            row = [f"{framework.package} {framework.version}", framework.hook, *cells]
            lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def main() -> None:
    """Install, try, and write the table if all were tried."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*(each.name for each in FRAMEWORKS), []], metavar="NAME")
    parser.add_argument("--short", action="store_true", help=f"only {' and '.join(SHORT)}")
    options = parser.parse_args()
    wanted = SHORT if options.short else tuple(options.names)
    outcomes: dict[str, dict[str, str]] = {}
    for framework in FRAMEWORKS:
        if wanted and framework.name not in wanted:
            continue
        installed(framework)
        outcomes[framework.name] = tried(framework)
        print(f"{framework.package} {framework.version}: {outcomes[framework.name]}")
    if not wanted and all(passed(each) for each in outcomes.values()):
        page = TABLE.read_text(encoding="utf-8")
        begin, end = MARK
        made = f"{begin}\n{table(outcomes)}\n{end}"
        TABLE.write_text(re.sub(f"{begin}.*{end}", lambda _: made, page, flags=re.DOTALL), encoding="utf-8")
    if not all(passed(each) for each in outcomes.values()):
        raise SystemExit("an agent was told something wrong, or did not live through a scenario: see above")


if __name__ == "__main__":
    main()
