"""Where a replica listens for the others, and where the others may be."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from mcpconn.errors import ConfigError
from mcpconn.gateway.fleet.forwarding import Networks
from mcpconn.gateway.fleet.links import TCP, Links

_PRIVATE = ("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fd00::/8")
"""Networks that a replica's own address may say enough of (RFC 1918, RFC 4193)."""


@dataclass(frozen=True)
class FleetSettings:
    """How this replica takes part in a fleet."""

    host: str
    port: int
    """0: any that is free."""
    networks: Networks
    links: Links = TCP
    """How replicas reach each other; a simulation gives its own."""

    @classmethod
    def parse(cls, listen: str, networks: Iterable[str] = ()) -> FleetSettings:
        """From `IP:PORT`, and networks in CIDR form.

        Args:
            listen: Where to listen for other replicas. They connect to this very address.
            networks: Where replicas are. If none is given, the private network that the address belongs to.

        Raises:
            ConfigError: names what is wrong.
        """
        host, _, port = listen.rpartition(":")
        host = host.strip("[]")
        try:
            address = ipaddress.ip_address(host)
            number = int(port)
        except ValueError:
            raise ConfigError(f"--fleet {listen}: give IP:PORT, such as 10.0.0.5:9001", key="fleet") from None
        if not 0 <= number < 65536:
            raise ConfigError(f"--fleet {listen}: there is no port {number}", key="fleet")
        if address.is_unspecified:
            raise ConfigError(
                f"--fleet {listen}: other replicas connect to this address, so name the machine's own", key="fleet"
            )
        try:
            given = tuple(ipaddress.ip_network(each) for each in networks)
        except ValueError as error:
            raise ConfigError(f"--fleet-network: {error}", key="fleet-network") from None
        private = tuple(net for net in map(ipaddress.ip_network, _PRIVATE) if address in net)
        if not (given or private):
            raise ConfigError(
                f"--fleet {listen} is a public address: name the network that the replicas are in with --fleet-network",
                key="fleet-network",
            )
        return cls(host, number, given or private)
