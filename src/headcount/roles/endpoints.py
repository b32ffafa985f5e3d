"""Where the servers of a deployment are reached."""

from __future__ import annotations

from headcount.messages.topics import INTERNAL
from headcount.messaging.connection import Endpoint
from headcount.roles.secret import secret_of
from headcount.settings.deployment import Settings
from headcount.settings.formats import joined, local_host


def core_endpoint(settings: Settings) -> Endpoint:
    """The NATS servers of the core, and our login there."""
    return Endpoint(settings.core_addresses, INTERNAL, secret_of(settings))


def health_url(role: str, settings: Settings) -> str:
    """The health endpoint of a role on this machine; "" for those that have none."""
    addresses = {
        "broker": (settings.internal_host, settings.health_port),
        "proxy": (settings.internal_host, settings.health_port),
        "api": (settings.host, settings.http_port),
    }
    if role not in addresses:
        return ""
    host, port = addresses[role]
    scheme = "https" if role == "api" and settings.encrypts_http else "http"
    return f"{scheme}://{joined((local_host(host), port))}/healthz"
