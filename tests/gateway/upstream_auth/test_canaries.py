"""No credential is where it does not belong: upstream, log, metric, audit line, page, error, trace, store."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack

import httpx2
import pytest

from mcpconn.gateway import FileStore, Settings
from mcpconn.gateway.access.config import AccessSettings
from mcpconn.gateway.access.keys import KeyFile
from mcpconn.gateway.access.tokens import Issuer
from mcpconn.gateway.upstream_auth.config import TokenExchange, UserLogin
from tests.gateway.access.issuer import AUDIENCE, ISSUER, JWKS, Authority
from tests.gateway.access.test_gate import client
from tests.gateway.conftest import gateway
from tests.gateway.upstream_auth.browser import Browser
from tests.gateway.upstream_auth.cloud import Cloud, serving
from tests.gateway.upstream_auth.test_login import needed
from tests.support import text_of
from tests.tracing import spans

pytestmark = pytest.mark.anyio


async def test_no_credential_is_where_it_does_not_belong(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    exporter = spans()
    exporter.clear()
    authority, keys = Authority(), KeyFile(tmp_path / "clients.json")
    key, token = keys.add("ann"), authority.token("alice")
    issuer = Issuer(ISSUER, audience=AUDIENCE, jwks=JWKS, fetch=authority.fetch)
    shown: list[str] = []
    async with serving(Cloud()) as cloud, serving(Cloud()) as pool:
        exchange = TokenExchange(f"{pool.origin}/as/token", client_id="gateway", client_secret="exchange-secret-canary")
        settings = Settings(
            access=AccessSettings(keys, (issuer,)),
            credentials={"cloud": UserLogin(), "pool": exchange},
            audit=tmp_path / "audit.jsonl",
        )
        servers = {"cloud": cloud, "pool": pool}
        more = {name: {"url": f"{each.origin}/mcp", "lazy": True} for name, each in servers.items()}
        store = FileStore(tmp_path / "store.db")
        async with AsyncExitStack() as stack:
            made = await stack.enter_async_context(gateway(more=more, settings=settings, store=store))
            browser = await stack.enter_async_context(Browser())
            async with client(made, key, "legacy") as ann, client(made, token, "auto") as alice:
                answer = await browser.log_in(await needed(ann), key, "ann@cloud")
                shown.append(answer.text)
                assert text_of(await ann.call_tool("cloud__whoami", {})) == "ann@cloud"
                assert text_of(await alice.call_tool("pool__whoami", {})) == "alice"
                secrets = {key, token, "exchange-secret-canary", *browser.cookies.values()}
                secrets |= {*cloud.users, *cloud.refresh, *pool.users}
                # What is refused says the token back, and is said to somebody.
                pool.subjects, pool.users = set(), {}
                cloud.revoke("ann@cloud")
                for connected, tool in ((ann, "cloud__charge"), (alice, "pool__charge")):
                    said = await connected.call_tool(tool, {})
                    assert said.is_error
                    shown.append(f"{said.content} {said.meta}")
                secrets |= {*cloud.users, *cloud.refresh, *pool.users}
                async with httpx2.AsyncClient() as http:
                    pages = ("/metrics", "/dashboard/", "/dashboard/data", "/readyz")
                    shown += [(await http.get(made.url.removesuffix("/mcp") + page)).text for page in pages]
                shown.append(str(made.app.manager.status()))
        await store.aclose()
    # Of this package: other libraries' debugging shows what the test's own clients send.
    shown += [record.getMessage() for record in caplog.records if record.name.startswith("mcpconn")]
    shown += [(tmp_path / "audit.jsonl").read_text(), (tmp_path / "clients.json").read_text()]
    shown += [span.to_json() for span in exporter.get_finished_spans()]
    shown += [path.read_bytes().decode("latin-1") for path in tmp_path.glob("store.db*")]
    assert len(secrets) >= 6
    for secret in secrets:
        assert [text[:80] for text in shown if secret in text] == []
    # A client's own credential goes to no server, and a server's only to that server.
    for name, each in servers.items():
        sent = "".join(each.seen)
        assert key not in sent
        assert token not in sent
        others = servers["pool" if name == "cloud" else "cloud"]
        assert not any(foreign in sent for foreign in others.users)
    assert token not in "".join(cloud.asked)
    assert key not in "".join(cloud.asked + pool.asked)
