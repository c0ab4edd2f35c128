"""Decides which redirects a message follows: at most one hop, within the origin, with the message, to a different URL.

The SDK's own transport follows up to twenty, so that a URL which redirects to itself gets the same message 21 times.
"""

from __future__ import annotations

import httpx2

from mcpconn.core.attempt import NOT_PROCESSED


def next_hop(response: httpx2.Response) -> httpx2.Request | None:
    """The request for following a redirect. None if it must not be followed, or `response` is not a redirect.

    301, 307 and 308 say that the request was not processed. httpx2, as browsers do, makes a GET without a body of a
    POST that meets a 301, so only 307 and 308 arrive here with the message still in them. A GET, which carries no
    message, follows every redirect.
    """
    following = response.next_request
    if following is None:
        return None
    sent = response.request
    if sent.method != "GET" and response.status_code not in NOT_PROCESSED:
        return None
    changed = following.method != sent.method
    # Userinfo in a Location would be sent as credentials (Basic).
    credentials = following.url.userinfo and following.url.userinfo != sent.url.userinfo
    if changed or credentials or not within_origin(sent.url, following.url) or _same(sent.url, following.url):
        return None
    return following


def within_origin(url: httpx2.URL, location: httpx2.URL) -> bool:
    """Whether both have the same scheme, host and port, or differ by http becoming https on the default ports."""
    if (url.scheme, url.host, url.port) == (location.scheme, location.host, location.port):
        return True
    upgrade = (url.scheme, location.scheme) == ("http", "https") and url.port is None and location.port is None
    return upgrade and url.host == location.host


def _same(url: httpx2.URL, location: httpx2.URL) -> bool:
    """Whether both name the same resource. A fragment is not sent, so it makes no difference."""
    return url.copy_with(fragment=None) == location.copy_with(fragment=None)


def target(response: httpx2.Response) -> str | None:
    """The target of a redirect for display: without userinfo, query or fragment, which can contain secrets."""
    if response.next_request is None:
        return None
    return str(response.next_request.url.copy_with(userinfo=b"", query=None, fragment=None))
