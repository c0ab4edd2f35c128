"""What waits for a client that does not read: the latest, and not more than may."""

from __future__ import annotations

from mcpconn.gateway.servers.pending import PENDING, PENDING_SIZE, Pending

LOG = "notifications/message"
UPDATED = "notifications/resources/updated"


def taken(pending: Pending) -> list[tuple[str, object]]:
    return [pending.take() for _ in range(len(pending))]


def test_the_latest_update_of_a_resource_says_it_all():
    pending = Pending()
    for uri in ("a", "b", "a"):
        pending.put(UPDATED, {"uri": uri})
    assert taken(pending) == [(UPDATED, {"uri": "a"}), (UPDATED, {"uri": "b"})]


def test_the_end_of_each_question_is_kept():
    pending = Pending()
    for name in ("a", "b"):
        pending.put("notifications/elicitation/complete", {"elicitationId": name})
    assert [params["elicitationId"] for _, params in taken(pending)] == ["a", "b"]  # type: ignore[index]


def test_each_log_message_is_kept_in_order():
    pending = Pending()
    for text in ("one", "one", "two"):
        pending.put(LOG, {"level": "info", "data": text})
    assert [params["data"] for _, params in taken(pending)] == ["one", "one", "two"]  # type: ignore[index]


def test_the_oldest_of_too_many_are_dropped():
    pending = Pending()
    for number in range(PENDING + 10):
        pending.put(LOG, {"level": "info", "data": number})
    kept = taken(pending)
    assert len(kept) == PENDING
    assert kept[0] == (LOG, {"level": "info", "data": 10})


def test_the_oldest_large_ones_are_dropped():
    pending = Pending()
    for number in range(100):
        pending.put(LOG, {"level": "info", "data": f"{number} {'x' * 100_000}"})
    kept = taken(pending)
    assert len(kept) == PENDING_SIZE // 100_100
    assert str(kept[-1]).count("99 xx") == 1


def test_one_that_is_larger_than_all_may_be_is_kept_alone():
    pending = Pending()
    pending.put(LOG, {"level": "info", "data": "small"})
    pending.put(LOG, {"level": "info", "data": "x" * 2 * PENDING_SIZE})
    assert len(pending) == 1
    pending.put(LOG, {"level": "info", "data": "small"})
    assert taken(pending) == [(LOG, {"level": "info", "data": "small"})]
