"""The address of a request's client, also behind a load balancer; pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_IPV6_PREFIX = 64
_MAX_ADDRESS = 64


def parse_networks(text: str) -> tuple[Network, ...]:
    """Parse networks with commas between.

    Raises:
        ValueError: a part is neither an address nor a network.
    """
    return tuple(ipaddress.ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip())


def client_address(peer: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """Return the address of a request's client, as a key for rate limits.

    Args:
        peer: the address of the connection.
        forwarded: the values of X-Forwarded-For; trusted only from a load balancer, which replaces the header.
        trusted: the networks of load balancers, in addition to this machine.
    """
    connected = _ip(peer)
    if connected is None:
        return peer[:_MAX_ADDRESS]
    if forwarded and is_balancer(peer, trusted):
        connected = _ip(forwarded[-1].rpartition(",")[2].strip()) or connected
    return address_key(connected)


def is_balancer(peer: str, trusted: Sequence[Network]) -> bool:
    """Whether a connection comes from this machine or a load balancer."""
    connected = _ip(peer)
    return connected is not None and (
        connected.is_loopback or any(connected in network for network in trusted)
    )


def address_key(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """Return an address as a key; an IPv6 address by its /64, which one customer has anyway."""
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))
    return str(address)


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
