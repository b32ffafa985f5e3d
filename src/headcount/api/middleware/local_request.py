"""Whether a program on this machine sent a request directly."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers

#: Headers of proxies: that a proxy runs on this machine proves nothing about the sender.
PROXY_HEADERS = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")


def why_not_local(client: str, headers: Headers) -> str | None:
    """Return the reason why a request was not sent directly by a program on this machine; None: it was.

    Pages of other origins in a browser on this machine are rejected: those whose own name resolves to the
    loopback address (DNS rebinding shows in Host), and cross-origin requests (Origin).
    """
    if not is_loopback(client):
        return "The request comes from another machine"
    for name in PROXY_HEADERS:
        if name in headers:
            return f"The request came through a proxy (header {name})"
    hosts = headers.getlist("host")
    if len(hosts) != 1 or not is_loopback(_hostname(f"//{hosts[0]}")):
        return "The header Host does not name this machine's loopback address"
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != hosts[0]:
        return "The request comes from a page of another origin"
    return None


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only mean this machine."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
