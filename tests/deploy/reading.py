"""Reads what is in `deploy/`: YAML, a Dockerfile, units, and which metrics a query uses."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


def documents(path: Path) -> list[Any]:
    """All documents of a YAML file, by version 1.2: repeated keys are errors."""
    return list(YAML(typ="safe", pure=True).load_all(path.read_text(encoding="utf-8")))


class Instruction(NamedTuple):
    """A line of a Dockerfile, with its continuations."""

    name: str
    rest: str

    @property
    def words(self) -> list[str]:
        """Its arguments: of the JSON form, or as a shell would split them."""
        words: list[str] = json.loads(self.rest) if self.rest.startswith("[") else shlex.split(self.rest)
        return words


def instructions(path: Path) -> list[Instruction]:
    """A Dockerfile's instructions, in their order."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    whole = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [Instruction(*line.split(maxsplit=1)) for line in whole.splitlines() if line.strip()]


def unit(path: Path) -> dict[str, dict[str, list[str]]]:
    """The sections of a unit: each key's values, in their order."""
    sections: dict[str, dict[str, list[str]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            section.setdefault(key, []).append(value)
    return sections


class Use(NamedTuple):
    """A metric in a query, and what is asked of its labels."""

    metric: str
    matchers: dict[str, str]


WORD = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(?:\{([^}]*)\})?(?!\s*\()")
MATCHER = re.compile(r'([a-zA-Z_]\w*)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
GROUPING = re.compile(r"\b(by|without|on|ignoring)\s*\(([^)]*)\)")
OPERATORS = frozenset({"and", "or", "unless", "bool", "offset"})


def uses(query: str) -> list[Use]:
    """Which metrics a PromQL query uses."""
    # A function, or an aggregation before its grouping, is followed by a parenthesis once the grouping is gone.
    plain = GROUPING.sub("", query)
    plain = re.sub(r"\[[^\]]*\]", "", plain)
    found = []
    for match in SELECTOR.finditer(plain):
        inside_braces = plain[: match.start()].count("{") > plain[: match.start()].count("}")
        before = plain[match.start() - 1] if match.start() else " "
        partial = re.match(r"[\w:]*\s*\(", plain[match.end() :]) is not None and match[2] is None
        if inside_braces or partial or match[1] in OPERATORS or before.isalnum():
            continue
        found.append(Use(match[1], dict(MATCHER.findall(match[2] or ""))))
    return found


def groupings(query: str) -> set[str]:
    """The labels that a query groups by."""
    return {label.strip() for match in GROUPING.finditer(query) for label in match[2].split(",") if label.strip()}
