"""Which tests are in which suite; that none is in none."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.suites import LONG, MATRICES, NAMES, ONCE, OPTIONAL, QUICK, SLOW, choose, cover, may_hold, suite_of

ROOT = Path(__file__).resolve().parent.parent


class Callspec:
    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params


class FakeItem:
    def __init__(self, nodeid: str, **params: Any) -> None:
        self.nodeid = nodeid
        self.callspec = Callspec(params)


def fakes(function: str, **dimensions: list[Any]) -> list[Any]:
    combined: list[dict[str, Any]] = [{}]
    for name, values in dimensions.items():
        combined = [{**each, name: value} for each in combined for value in values]
    return [FakeItem(f"{function}[{'-'.join(map(str, each.values()))}]", **each) for each in combined]


def ids(items: Any) -> set[str]:
    return {item.nodeid for item in items}


@pytest.mark.parametrize(
    "beginning", [*sorted(name for each in SLOW.values() for name in each), *ONCE, *LONG, *MATRICES]
)
def test_what_the_suites_name_exists(beginning: str) -> None:
    file, _, function = beginning.partition("::")
    if file in OPTIONAL and not (ROOT / file).exists():
        pytest.skip("not written yet")
    assert (ROOT / file).exists()
    assert f"def {function}(" in (ROOT / file).read_text() if function else True


@pytest.mark.parametrize("name", SLOW)
def test_each_slow_suite_has_a_target(name: str) -> None:
    (listed,) = re.findall(r"^SUITES := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert re.search(rf"\b{name}\b", listed)
    assert "make test-slow SHORT=1" in (ROOT / ".ci" / "run").read_text()


def test_every_test_is_in_a_suite_and_slow_files_are_not_imported() -> None:
    items = [
        *fakes("tests/core/test_table.py::test_a"),
        *fakes("tests/test_hostile.py::test_b", era=[1, 2]),
        *fakes("tests/test_faults.py::test_c", case=list(range(9)), era=[1, 2], engine=[1, 2]),
        *fakes("tests/simulation/test_day.py::test_d", seed=list(range(9))),
    ]
    assert ids(choose(items, NAMES, short=False)) == ids(items)
    quick, hostile = (ids(choose(items, [name], short=False)) for name in (QUICK, "hostile"))
    assert {each for each in quick if "faults" not in each} == {"tests/core/test_table.py::test_a[]"}
    assert hostile == {item.nodeid for item in items if "hostile" in item.nodeid or "faults" in item.nodeid}
    assert not may_hold("tests/test_hostile.py", [QUICK])
    assert may_hold("tests/test_faults.py", ["hostile"])
    assert may_hold("tests/core/test_model.py", ["chaos"])
    assert may_hold("tests/core/test_model.py", [QUICK])


def test_a_name_that_begins_alike_is_another() -> None:
    assert suite_of("tests/fire/test_bad_network.py::test_a") == "chaos"
    assert suite_of("tests/firewall/test_rules.py::test_a") == QUICK


@pytest.mark.parametrize("cases", [True, False])
def test_a_cover_shows_each_case_and_pair(cases: bool) -> None:
    items = fakes("f", case=list(range(40)), loop=["a", "t"], engine=["d", "h"], era=["l", "m"])
    found: list[Any] = list(cover(items, cases=cases))
    chosen = [item.callspec.params for item in found]
    for one, other in (("loop", "engine"), ("loop", "era"), ("engine", "era")):
        assert len({(each[one], each[other]) for each in chosen}) == 4
    if cases:
        assert {each["case"] for each in chosen} == set(range(40))
        # Not all cases with the same values of the others.
        assert len({(each["loop"], each["engine"]) for each in chosen[8:]}) == 4
    assert len(chosen) <= (48 if cases else 9)


def test_a_cover_of_a_test_without_parameters_is_the_test() -> None:
    (item,) = fakes("f")
    assert list(cover([item], cases=False)) == [item]
