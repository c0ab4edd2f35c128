"""The classification rules as a table: the statuses, codes and phrases by which each one decides.

The rules are functions, so statuses and codes are found by trying them: every status, in every situation that the rules
distinguish, is passed to the rules in order, and assigned to the one that decides. Phrases and exceptions are the
constants in a rule's code.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import product
from types import CodeType, FunctionType
from typing import Any, cast

from mcpconn.core.failures import Evidence, Phase
from mcpconn.core.rule import Rule
from mcpconn.core.rules import CANCELLATION, HTTP, JSONRPC, LOCAL
from mcpconn.core.seen import Seen
from mcpconn.diagram.render import table

STATUSES = (
    *(200, 202, 204, 300, 301, 302, 303, 304, 307, 308),
    *(400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 413, 415, 421, 422, 425, 429, 431, 499),
    *(500, 501, 502, 503, 504, 520, 529),
)
"""The statuses that servers and proxies use."""
CODES = (-32700, -32600, -32601, -32602, -32603, -32000, -32001, -32002, -32020, -32021, -32022, -32042, 408, 1)
"""The codes of JSON-RPC, MCP and the SDKs, and one of an application."""
_OVER_HTTP = (-32600, -32601, -32602, -32603, -32000, -32022, 1)
"""The codes that are tried with every status."""
SESSION = "session not found"
_TEXTS = ("", SESSION, "something else", "we lost it: session expired, sorry")
_PHASES: tuple[Phase, ...] = ("dial", "call")
_SESSION_WORDS = frozenset({"names_session", "refuses_session", "is_lost_by_status"})
_INTERNAL = frozenset({"dial", "call", "probe", "idle", "legacy", "modern", "", ", ", "\n"})


def rules_table() -> str:
    """Every rule of `classify`, in the order in which they are tried."""
    parts = (("cancellation", CANCELLATION), ("HTTP", HTTP), ("JSON-RPC", JSONRPC), ("local", LOCAL))
    statuses, http_codes = _decided_http()
    codes = _decided_codes()
    rows = [
        [
            name,
            _classes(statuses[id(rule)]) if rules is HTTP else "",
            _codes(rules, http_codes[id(rule)], codes[id(rule)]),
            "; ".join(_words(rule)),
            rule.because,
            f"`{rule.kind.value}`",
            f"`{rule.delivery.value}`",
            "proof" if rule.proof else "suspicion",
        ]
        for name, rules in parts
        for rule in rules
    ]
    return table(["seen in", "status", "code", "words, or exception", "it means", "kind", "delivery", "it is"], rows)


def _codes(rules: tuple[Rule, ...], http: set[int | None], jsonrpc: set[int]) -> str:
    if rules is JSONRPC:
        return _listed(jsonrpc, CODES)
    # Most HTTP rules decide regardless of the code.
    return "" if rules is not HTTP or None in http else _listed({code for code in http if code is not None}, _OVER_HTTP)


@cache
def _decided_http() -> tuple[dict[int, set[int]], dict[int, set[int | None]]]:
    """By rule: the statuses and codes for which it decides at least one case."""
    statuses: dict[int, set[int]] = defaultdict(set)
    codes: dict[int, set[int | None]] = defaultdict(set)
    said = (*_TEXTS, *(word for rule in HTTP for word in _texts(rule)[:1]))
    media = ("", "application/json", "text/html")
    for status, sent, phase, code, kind, text in product(
        STATUSES, (True, False), _PHASES, (None, *_OVER_HTTP), media, said
    ):
        evidence = Evidence(
            http_status=status,
            session_sent=sent,
            phase=phase,
            code=code,
            content_type=kind,
            message=text,
            from_wire=True,
        )
        rule = _decides(evidence, HTTP)
        statuses[rule].add(status)
        codes[rule].add(code)
    return statuses, codes


@cache
def _decided_codes() -> dict[int, set[int]]:
    """By rule: the codes for which it decides at least one error."""
    found: dict[int, set[int]] = defaultdict(set)
    said = (*_TEXTS, *(word for rule in JSONRPC for word in _texts(rule)[-1:]))
    for code, wire, phase, text in product(CODES, (True, False), _PHASES, said):
        found[_decides(Evidence(code=code, message=text, from_wire=wire, phase=phase), JSONRPC)].add(code)
    return found


def _decides(evidence: Evidence, rules: Iterable[Rule]) -> int:
    seen = Seen(evidence)
    return next((id(rule) for rule in rules if rule.matches(seen)), 0)


def _classes(statuses: set[int]) -> str:
    """Statuses, with `5xx` for a whole class: `4xx except 404, 429`."""
    pieces = []
    for first in range(2, 6):
        members = [status for status in STATUSES if status // 100 == first]
        inside = [status for status in members if status in statuses]
        missing = [status for status in members if status not in statuses]
        if not missing:
            pieces.append(f"{first}xx")
        elif len(inside) > 8:
            pieces.append(f"{first}xx except {', '.join(map(str, missing))}")
        else:
            pieces += map(str, inside)
    return ", ".join(pieces)


def _listed(codes: set[int], tried: tuple[int, ...]) -> str:
    missing = [code for code in tried if code not in codes]
    if not missing:
        return "any"
    if len(missing) < len(codes):
        return f"any except {', '.join(map(str, missing))}"
    return ", ".join(map(str, (code for code in tried if code in codes)))


# -- words


def _texts(rule: Rule) -> list[str]:
    """Phrases that a rule searches for, to be tried on all rules."""
    return [word for word, kind in _constants(rule) if kind == "words"]


def _words(rule: Rule) -> list[str]:
    # If a rule about content types decides for a web page, it lists the types that it excludes.
    but = "not " if rule.matches(Seen(Evidence(http_status=200, content_type="text/html"))) else ""
    shown = {"words": '"{}"', "exception": "`{}`", "content type": but + "`{}`"}
    words = [shown[kind].format(word.strip()) for word, kind in _constants(rule)]
    if _SESSION_WORDS & set(_names(_code(rule))):
        words.insert(0, "a lost session")
    return list(dict.fromkeys(words))


def _constants(rule: Rule) -> Iterator[tuple[str, str]]:
    """The constants in a rule's code: phrases, names of exceptions, content types."""
    code = _code(rule)
    names = set(_names(code))
    namespace: dict[str, Any] = cast(FunctionType, rule.matches).__globals__
    given = [*_strings(code), *(each for name in names for each in _flat(namespace.get(name)))]
    for each in given:
        if each in _INTERNAL or ("told" in names and not each[:1].isupper()):
            # The `trouble` of mcpconn's own exceptions is not the name of an exception.
            continue
        if each[:1].isupper() or each == "gaierror":
            yield each, "exception"
        elif "media_type" in names and ("/" in each or each == "json"):
            yield each, "content type"
        else:
            yield each, "words"


def _code(rule: Rule) -> CodeType:
    return cast(FunctionType, rule.matches).__code__


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    if code.co_name.startswith("is_"):
        yield code.co_name
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _names(each)


def _strings(code: CodeType) -> Iterator[str]:
    # The first constant of a function with a docstring is the docstring.
    for index, each in enumerate(code.co_consts):
        if isinstance(each, CodeType):
            yield from _strings(each)
        elif not (index == 0 and not code.co_name.startswith("<") and isinstance(each, str)):
            yield from _flat(each)


def _flat(value: Any) -> Iterator[str]:
    if isinstance(value, str) and "." not in value[:1] and "<" not in value:
        yield value
    elif isinstance(value, (tuple, frozenset)):
        for each in value:
            yield from _flat(each)
