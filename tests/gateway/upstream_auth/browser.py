"""A person at a browser: opens a link of the gateway, shows a key, consents at the upstream, and comes back."""

from __future__ import annotations

import html
import re
from typing import Any
from urllib.parse import urlsplit

import httpx2

LINK = re.compile(r'<a rel="noreferrer" href="([^"]+)">')


class Browser:
    """Keeps cookies as browsers do; `Secure` ones on this machine, too."""

    def __init__(self) -> None:
        self.http = httpx2.AsyncClient(timeout=30, follow_redirects=False)
        self.cookies: dict[str, str] = {}

    async def __aenter__(self) -> Browser:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.http.aclose()

    def _headers(self) -> dict[str, str]:
        return {"cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())} if self.cookies else {}

    async def _send(self, method: str, url: str, **options: Any) -> httpx2.Response:
        headers = {**self._headers(), **options.pop("headers", {})}
        answer = await self.http.request(method, url, headers=headers, **options)
        for name, value in answer.headers.multi_items():
            if name == "set-cookie":
                pair = value.partition(";")[0]
                self.cookies[pair.partition("=")[0]] = pair.partition("=")[2]
        return answer

    async def get(self, url: str, **options: Any) -> httpx2.Response:
        """Open an address."""
        return await self._send("GET", url, **options)

    async def show(self, link: str, key: str | None = None, **headers: str) -> httpx2.Response:
        """Send the form of the gateway's page."""
        parts = urlsplit(link)
        given = {"origin": f"{parts.scheme}://{parts.netloc}", **headers}
        return await self._send("POST", link, data={} if key is None else {"key": key}, headers=given)

    async def onward(self, link: str, key: str | None = None) -> str:
        """The address that the gateway's page leads to."""
        answer = await self.show(link, key)
        found = LINK.search(answer.text)
        assert answer.status_code == 200, answer.text
        assert found is not None, answer.text
        return html.unescape(found[1])

    async def consent(self, address: str, user: str | None) -> str:
        """Log in at the upstream. Returns the address that it sends the browser to."""
        answer = await self.http.get(address, headers={} if user is None else {"x-user": user})
        assert answer.status_code == 302, answer.text
        return answer.headers["location"]

    async def log_in(self, link: str, key: str | None, user: str) -> httpx2.Response:
        """All of it."""
        back = await self.consent(await self.onward(link, key), user)
        return await self.get(back)


def link_in(text: str) -> str:
    """The link of the gateway in what a client was told."""
    found = re.search(r"http://127\.0\.0\.1:\d+/login/[\w-]+", text)
    assert found is not None, text
    return found[0]
