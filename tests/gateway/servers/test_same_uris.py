"""Two servers with the same URIs and the same template: each is reached by its own, and watched by its own."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from mcp import Client

from mcpconn.testing import HttpServer, Script
from tests.gateway.conftest import Gateway, gateway
from tests.gateway.servers.test_watching import Asked, News, subscribe, update

pytestmark = pytest.mark.anyio

MODES = pytest.mark.parametrize("mode", ["legacy", "auto"], ids=["legacy client", "modern client"])
STATUS = "memo://status"


def reads(script: Script) -> int:
    return sum(seen.rpc_method == "resources/read" for seen in script.requests)


@MODES
async def test_each_uri_is_read_from_its_own_server(mode: Any) -> None:
    a, b = Script(), Script(era="modern")
    async with gateway(a, b) as made, Client(made.url, mode=mode) as client:
        for name in "ab":
            await made.app.manager[name].catalog.refresh()
        listed = [str(each.uri) for each in (await client.list_resources()).resources]
        assert [uri for uri in listed if uri.endswith(STATUS)] == [f"a+{STATUS}", f"b+{STATUS}"]
        templates = [each.uri_template for each in (await client.list_resource_templates()).resource_templates]
        assert templates == ["a+memo://people/{name}", "b+memo://people/{name}"]
        for before, (server, path) in enumerate((("a", "status"), ("b", "status"), ("b", "people/ann"))):
            uri = f"{server}+memo://{path}"
            (content,) = (await client.read_resource(uri)).contents
            assert str(content.uri) == uri
            assert reads(a) + reads(b) == before + 1
        assert (reads(a), reads(b)) == (1, 2)


async def test_a_legacy_client_is_told_whose_it_is() -> None:
    a, b, news = Script(), Script(era="modern"), News()
    async with gateway(a, b) as made, Client(made.url, mode="legacy", message_handler=news) as client:
        for script, other, server in ((a, b, "a"), (b, a, "b")):
            asked = Asked(script)
            await subscribe(client, f"{server}+{STATUS}")
            await asked.event.wait()
            news.uris.clear()
            while f"{server}+{STATUS}" not in news.uris:
                update(script, f"{server}+{STATUS}")
                if server == "a":
                    update(other, f"{server}+{STATUS}")
                await client.send_ping()
            assert server == "b" or set(news.uris) == {f"a+{STATUS}"}


async def test_a_modern_client_is_told_whose_it_is() -> None:
    a, b = Script(), Script(era="modern")
    async with gateway(a, b) as made, Client(made.url) as client:
        asked = Asked(b)
        async with client.listen(resource_subscriptions=[f"b+{STATUS}"]) as events, anyio.create_task_group() as group:
            await asked.event.wait()

            async def updates() -> None:
                while True:
                    for script in (a, b):
                        update(script, f"x+{STATUS}")
                    await anyio.sleep(0.05)

            group.start_soon(updates)
            for _ in range(2):
                event: Any = await events.__anext__()
                assert event.uri == f"b+{STATUS}"
            group.cancel_scope.cancel()


@asynccontextmanager
async def from_file(folder: Path, *scripts: Script) -> Any:
    """A gateway before servers of a file, and what writes the file anew and has it applied."""
    path = folder / "mcp.json"
    async with AsyncExitStack() as stack:
        servers: dict[str, Any] = {}
        for name, script in zip("ab", scripts, strict=False):
            servers[name] = {"url": (await stack.enter_async_context(HttpServer(script))).url}
        group = await stack.enter_async_context(anyio.create_task_group())
        made = await stack.enter_async_context(Gateway(servers, None, group).running())

        def apply(changed: dict[str, Any]) -> None:
            path.write_text(json.dumps({"mcpServers": changed}))
            made.app.reload(path)

        yield made, servers, apply


@pytest.mark.parametrize("how", ["changed", "away for a while"])
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_what_is_watched_outlasts_a_changed_file(era: Any, how: str, tmp_path: Path) -> None:
    script, news = Script(era=era), News()
    async with AsyncExitStack() as stack:
        stack.enter_context(anyio.fail_after(60))
        made, servers, apply = await stack.enter_async_context(from_file(tmp_path, script))
        client = await stack.enter_async_context(Client(made.url, mode="legacy", message_handler=news))
        asked = Asked(script)
        await subscribe(client, f"a+{STATUS}")
        await asked.event.wait()
        asked = Asked(script)
        if how == "changed":
            apply({"a": {**servers["a"], "headers": {"x": "1"}}})
        else:
            apply({})
            while len(made.app.relay.watches):
                await anyio.lowlevel.checkpoint()
            # By now nobody knows the server that the client wants to hear of.
            await anyio.wait_all_tasks_blocked()
            apply(servers)
        await asked.event.wait()
        news.uris.clear()
        while not news.uris:
            update(script, f"a+{STATUS}")
            await client.send_ping()
        assert set(news.uris) == {f"a+{STATUS}"}
