"""By which names the gateway may be called."""

from __future__ import annotations

from mcp.server.transport_security import TransportSecuritySettings


def loopback(hosts: tuple[str, ...] = ()) -> TransportSecuritySettings:
    """Let in requests whose Host and Origin are this machine, or `hosts`: another page's script must not get in."""
    names = ("127.0.0.1", "localhost", "[::1]", *hosts)
    return TransportSecuritySettings(
        enable_dns_rebinding_protection=True,
        allowed_hosts=[form for name in names for form in (name, f"{name}:*")],
        allowed_origins=[
            f"{scheme}://{form}" for name in names for form in (name, f"{name}:*") for scheme in ("http", "https")
        ],
    )
