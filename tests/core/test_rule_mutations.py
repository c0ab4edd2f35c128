"""Every rule of `classify` changed in every small way: each change is noticed by some witness.

mutmut changes what stands in functions. The rules are data, and their conditions are lambdas in a table, where
it never looks; so they are changed here.
"""

from __future__ import annotations

import ast
import copy
import inspect
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mcpconn.core import DEFAULT_RULES, Delivery, FailureKind, Rule
from mcpconn.core import conditions as named_conditions
from mcpconn.core.seen import Seen
from tests.core.witnesses import WITNESSES

NAMES = DEFAULT_RULES[0].matches.__globals__
"""What the conditions can name."""
SEEN = [(Seen(witness.evidence), witness) for witness in WITNESSES]


def noticed(rules: tuple[Rule, ...]) -> bool:
    """Whether some witness says that these rules are wrong."""
    for seen, witness in SEEN:
        rule = next((rule for rule in rules if rule.matches(seen)), None)
        expected = (witness.kind, witness.delivery, witness.proof, witness.because)
        if rule is None or (rule.kind, rule.delivery, rule.proof, rule.because) != expected:
            return True
    return False


def changed(i: int, rule: Rule) -> tuple[Rule, ...]:
    """The rules with that one in place of rule number `i`."""
    return (*DEFAULT_RULES[:i], rule, *DEFAULT_RULES[i + 1 :])


RULES = [pytest.param(i, rule, id=f"{i} {rule.because}") for i, rule in enumerate(DEFAULT_RULES)]


def test_the_rules_as_they_are_are_right() -> None:
    assert not noticed(DEFAULT_RULES)


@pytest.mark.parametrize(("i", "rule"), RULES)
def test_a_rule_that_is_missing_or_concludes_something_else_is_noticed(i: int, rule: Rule) -> None:
    assert noticed(DEFAULT_RULES[:i] + DEFAULT_RULES[i + 1 :])
    assert noticed(changed(i, replace(rule, proof=not rule.proof)))
    assert noticed(changed(i, replace(rule, because=f"{rule.because}!")))
    for kind in set(FailureKind) - {rule.kind}:
        assert noticed(changed(i, replace(rule, kind=kind)))
    for delivery in set(Delivery) - {rule.delivery}:
        assert noticed(changed(i, replace(rule, delivery=delivery)))
    assert noticed(changed(i, replace(rule, matches=lambda seen: False)))
    if i < len(DEFAULT_RULES) - 1:
        assert noticed(changed(i, replace(rule, matches=lambda seen: True)))


@pytest.mark.parametrize("i", range(len(DEFAULT_RULES) - 1))
def test_rules_that_change_places_are_noticed_or_have_nothing_in_common(i: int) -> None:
    first, second = DEFAULT_RULES[i], DEFAULT_RULES[i + 1]
    swapped = (*DEFAULT_RULES[:i], second, first, *DEFAULT_RULES[i + 2 :])
    both = [str(witness) for seen, witness in SEEN if first.matches(seen) and second.matches(seen)]
    assert noticed(swapped) == bool(both and decided_here(i, both)), both


def decided_here(i: int, both: list[str]) -> bool:
    """Whether rule `i` is the first to match one of those."""
    first = {
        str(witness): next(n for n, rule in enumerate(DEFAULT_RULES) if rule.matches(seen)) for seen, witness in SEEN
    }
    return any(first[each] == i for each in both)


# -- lists of names


LISTS = [
    *((NAMES, name) for name in ("OAUTH_WORDS", "NOT_SENT_ERRORS", "CUT_ERRORS", "ENDED_ERRORS")),
    (NAMES, "PROTOCOL_CODES"),
    (NAMES, "NOT_PROCESSED"),
    (vars(named_conditions), "OWN_CODES"),
    (vars(named_conditions), "HANDSHAKE_REFUSALS"),
]


@pytest.mark.parametrize(("names", "name"), LISTS, ids=[name for _, name in LISTS])
def test_a_name_missing_in_a_list_is_noticed(names: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = names[name]
    for each in whole:
        monkeypatch.setitem(names, name, tuple(other for other in whole if other is not each))
        assert noticed(DEFAULT_RULES), each


# -- conditions

SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


def variants(node: Any) -> Iterator[ast.AST]:
    """The small changes of one node itself."""
    if isinstance(node, ast.Compare):
        for n, op in enumerate(node.ops):
            yield twin(node, ops=[*node.ops[:n], SWAPS[type(op)](), *node.ops[n + 1 :]])
    elif isinstance(node, ast.BoolOp):
        yield twin(node, op=SWAPS[type(node.op)]())
        for rest in shorter(node.values):
            yield twin(node, values=rest) if len(rest) > 1 else rest[0]
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.Tuple):
        for rest in shorter(node.elts):
            yield twin(node, elts=rest)
    elif isinstance(node, ast.Call):
        for rest in shorter(node.args):
            yield twin(node, args=rest)
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield ast.Constant(not node.value)
        elif isinstance(node.value, int):
            yield ast.Constant(node.value + 1)
            yield ast.Constant(node.value - 1)
        elif isinstance(node.value, str):
            yield ast.Constant(f"x{node.value}x")
            yield ast.Constant(node.value.upper())


def twin(node: Any, **fields: Any) -> Any:
    """The same node, but for these fields."""
    other = copy.copy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    return other


def shorter(nodes: list[Any]) -> Iterator[list[Any]]:
    """The list without one of them."""
    for n in range(len(nodes)):
        yield [*nodes[:n], *nodes[n + 1 :]]


class Replace(ast.NodeTransformer):
    """Puts one node in the place of another."""

    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> Any:
        return self.new if node is self.old else super().visit(node)


def mutants(condition: ast.Lambda) -> Iterator[ast.Lambda]:
    """The condition with one small change somewhere in it."""
    original = ast.dump(condition)
    for place, node in enumerate(ast.walk(condition)):
        for variant in variants(node):
            whole = copy.deepcopy(condition)
            mutant = Replace(list(ast.walk(whole))[place], variant).visit(whole)
            if ast.dump(mutant) != original:
                yield mutant


def conditions() -> list[ast.Lambda]:
    """The lambdas of the table, in its order."""
    module = inspect.getsourcefile(DEFAULT_RULES[0].matches)
    assert module is not None
    found: list[ast.Lambda] = []
    for node in ast.walk(ast.parse(Path(module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("proof", "suspicion"):
            found += [
                each for each in (*node.args, *(key.value for key in node.keywords)) if isinstance(each, ast.Lambda)
            ]
    return sorted(found, key=lambda node: node.lineno)


EQUIVALENT = {
    4: ("seen.status >= 499",),  # a 499 that refuses a session names it, too
    18: ("seen.status <= 500 and seen.code", "seen.status < 501 and seen.code"),  # a 500 with any code is there already
    24: ("seen.status >= 399",),  # 300 to 399 are redirects, above
    25: ("seen.status >= 399",),  # likewise
    26: ("seen.status <= 300", "seen.status < 301"),  # likewise
}
"""Changes that change nothing, by rule, and why."""


def compiled(condition: ast.Lambda) -> Any:
    """The function that it says."""
    expression = ast.fix_missing_locations(ast.Expression(condition))
    return eval(compile(expression, "a changed condition", "eval"), NAMES)


def test_changed_conditions_are_noticed() -> None:
    by_line = {rule.matches.__code__.co_firstlineno: i for i, rule in enumerate(DEFAULT_RULES)}
    found = [condition for condition in conditions() if condition.lineno in by_line]
    # The others are functions with names, where mutmut does look.
    assert len(found) == len([rule for rule in DEFAULT_RULES if rule.matches.__name__ == "<lambda>"])
    survivors = []
    for condition in found:
        i = by_line[condition.lineno]
        for mutant in mutants(condition):
            rule = replace(DEFAULT_RULES[i], matches=compiled(mutant))
            try:
                caught = noticed(changed(i, rule))
            except (TypeError, AttributeError):
                caught = True
            text = ast.unparse(mutant)
            if not caught and not any(each in text for each in EQUIVALENT.get(i, ())):
                survivors.append(f"{i}: {text}")
    assert not survivors, "\n".join(survivors)
