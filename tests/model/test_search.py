"""What a search says when it finds something."""

from __future__ import annotations

from typing import Any

from mcpconn.core import Failure, may_replay
from tests.model.invariants import never_written_twice
from tests.model.model import Model
from tests.model.search import Counterexample, search


def replays_everything(failure: Failure, *, safe: bool, replays: int, **facts: Any) -> bool:
    """Once more, whether or not it is safe."""
    return may_replay(failure, safe=True, replays=replays, **facts)


MODEL = Model(safe=(False,), may_replay=replays_everything)


def found() -> Counterexample:
    """The mistake of `MODEL`."""
    counterexample = search(MODEL, [never_written_twice]).counterexample
    assert counterexample is not None
    return counterexample


def test_a_counterexample_is_shortest_and_in_words() -> None:
    assert str(found()).splitlines() == [
        f"never_written_twice does not hold: {never_written_twice.__doc__}",
        "  1. the connection is told to connect",
        "     -> connecting; A (not safe) new",
        "  2. a dial succeeds",
        "     -> ready; A (not safe) new",
        "  3. call A is made",
        "     -> ready; A (not safe) granted",
        "  4. call A is issued",
        "     -> ready; A (not safe) in flight, not written",
        "  5. call A is written",
        "     -> ready; A (not safe) in flight, written",
        "  6. call A fails: 503",
        "     -> ready and probed; A (not safe) granted",
        "  7. call A is issued",
        "     -> ready and probed; A (not safe) in flight, not written",
        "  8. call A is written",
        "     -> ready and probed; A (not safe) in flight, written",
    ]


def test_the_path_of_a_counterexample_can_be_walked_again() -> None:
    world = MODEL.start
    for step in found().path:
        assert step.after in [each.after for each in MODEL.steps(world) if each.words == step.words]
        world = MODEL.canonical(step.after)


def test_a_search_that_finds_nothing_says_how_far_it_went() -> None:
    result = search(Model(safe=()))
    assert result.counterexample is None
    assert 0 < result.worlds < result.steps
