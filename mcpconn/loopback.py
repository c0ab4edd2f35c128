"""Decides whether a host name means this machine."""

from __future__ import annotations

import ipaddress

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
"""The names of this machine in configurations, in the form that `urlsplit` returns."""


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or by an address in the loopback network."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
