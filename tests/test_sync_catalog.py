"""The catalogue of a `SyncManager`, used from threads."""

from __future__ import annotations

import inspect
import threading
from typing import Any

import pytest

from mcpconn import CatalogChange, SyncManager
from mcpconn.catalog.catalog import Catalog
from mcpconn.catalog.listing import KINDS
from mcpconn.sync import SyncCatalog
from mcpconn.testing import Script, ScriptTransport
from tests.support import SAFETY


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def scripted(script: Script, **more: Any) -> dict[str, Any]:
    return {"url": "http://scripted/mcp", "http_transport": ScriptTransport(script), **more}


class Heard:
    """Changes, and the threads they were told in."""

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        self.threads: set[int] = set()
        self.complete = threading.Event()

    def __call__(self, change: CatalogChange) -> None:
        self.kinds.add(change.kind)
        self.threads.add(threading.get_ident())
        if self.kinds == set(KINDS):
            self.complete.set()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_subscriber_of_any_thread_is_told_in_the_loops_thread(backend: str, when: str) -> None:
    script, heard = Script(), Heard()
    manager = SyncManager({"s": scripted(script)}, backend=backend)
    if when == "before":
        manager["s"].catalog.subscribe(heard)
    with manager:
        if when == "after":
            manager["s"].wait_ready()
            assert manager["s"].catalog.stale
            manager["s"].catalog.subscribe(heard)
        assert heard.complete.wait(SAFETY)
        assert threading.get_ident() not in heard.threads
        assert set(manager["s"].catalog.tools) == set(script.tools)


def test_a_refresh_waits_for_the_listing(backend: str) -> None:
    script = Script()
    with SyncManager({"s": scripted(script)}, backend=backend) as manager:
        catalog = manager["s"].catalog
        assert catalog.ensure(["tools"])
        assert (catalog.listed, catalog.epoch, catalog.stale) == ({"tools"}, 1, False)
        assert catalog.hint("add") is True
        assert catalog.lacks("no such tool")
        assert catalog.refresh()
        assert catalog.listed == set(KINDS)
        assert script.count("tools/list") == 2


def test_a_late_unsubscriber_is_told_nothing(backend: str) -> None:
    heard = Heard()
    with SyncManager({"s": scripted(Script())}, backend=backend) as manager:
        unsubscribe = manager["s"].catalog.subscribe(heard)
    unsubscribe()
    unsubscribe()


def test_all_that_a_catalogue_shows_can_be_had_from_threads() -> None:
    of_the_connection = {"busy", "first_listing", "heard", "known_safe", "notice", "safe", "wait_until_listed"}
    public = {name for name, _ in inspect.getmembers(Catalog) if not name.startswith("_")} - of_the_connection
    assert public == {name for name, _ in inspect.getmembers(SyncCatalog) if not name.startswith("_")}
