"""What a store can be trusted with, from what it says of itself."""

from __future__ import annotations

import time

import pytest

from mcpconn.redis.standing import FINE, Facts, Standing

GOOD = {
    "aof_enabled": "1",
    "appendfsync": "always",
    "maxmemory": "0",
    "maxmemory_policy": "noeviction",
    "connected_slaves": "0",
    "master_replid": "a",
}


@pytest.mark.parametrize(
    ("said", "unfit", "safe"),
    [
        ({}, None, True),
        ({"appendfsync": "everysec"}, None, False),
        ({"connected_slaves": "1"}, None, False),
        ({"aof_enabled": "0"}, "appendonly", False),
        ({"maxmemory": "100", "maxmemory_policy": "volatile-lru"}, "noeviction", False),
        ({"maxmemory": "100", "maxmemory-policy": "allkeys-lru"}, "noeviction", False),
        ({"maxmemory": "0", "maxmemory-policy": "allkeys-lru"}, None, True),
        ({"maxmemory": "100"}, None, True),
    ],
)
def test_a_server_is_judged_by_its_settings(said, unfit, safe):
    facts = Facts.of([GOOD | said])
    assert (unfit is None) == (facts.unfit is None)
    assert unfit is None or unfit in str(facts.unfit)
    assert facts.safe == safe


def test_a_server_that_hides_its_settings_is_not_safe():
    hidden = {name: value for name, value in GOOD.items() if name != "appendfsync"}
    facts = Facts.of([hidden])
    assert facts.unfit is None
    assert not facts.safe


def test_the_worst_primary_counts():
    facts = Facts.of([GOOD, GOOD | {"aof_enabled": "0", "connected_slaves": "3"}])
    assert facts.unfit is not None
    assert facts.replicas == 0


@pytest.mark.parametrize(("replicas", "copies"), [(0, 0), (1, 1), (2, 1), (3, 2), (4, 2)])
def test_with_the_primary_the_copies_are_a_majority(replicas, copies):
    facts = Facts.of([GOOD | {"connected_slaves": str(replicas)}])
    assert facts.copies == copies
    assert facts.copies + 1 > (replicas + 1) / 2


def test_a_doubt_ends_with_the_records_it_is_about():
    assert not FINE.doubtful(3600.0)
    just_now = Standing(began=time.monotonic())
    assert just_now.doubtful(3600.0)
    assert not Standing(began=time.monotonic() - 3600.0).doubtful(3600.0)


def test_the_worst_is_what_people_are_told():
    assert FINE.degraded is None
    assert Standing(away="gone", unfit="it forgets", note="n").degraded == "gone"
    assert "it forgets" in str(Standing(unfit="it forgets", note="n").degraded)
    assert Standing(note="n").degraded == "n"
