"""Where the servers of a deployment are reached."""

from __future__ import annotations

from functools import partial

from headcount.messages.topics import INTERNAL
from headcount.messaging.connection import Endpoint
from headcount.messaging.mqtt_address import MqttAddress
from headcount.roles.secret import secret_of
from headcount.roles.tls import tls_files_of
from headcount.settings.deployment import Settings
from headcount.settings.formats import joined, local_host
from headcount.tls.contexts import pinned_context


def core_endpoint(settings: Settings) -> Endpoint:
    """The NATS servers of the core, and our login there."""
    return Endpoint(settings.core_addresses, INTERNAL, secret_of(settings))


def mqtt_addresses(settings: Settings) -> list[MqttAddress]:
    """Where our own MQTT clients reach the core, and their login there.

    Raises:
        CertificateError: see `tls_files_of`.
    """
    tls = tls_files_of(settings) if settings.core_takes_tls else None
    context = None if tls is None else partial(pinned_context, tls)
    password = secret_of(settings)
    return [
        MqttAddress(local_host(host), port, INTERNAL, password, context)
        for host, port in settings.core_mqtt_addresses
    ]


def health_url(role: str, settings: Settings) -> str:
    """The health endpoint of a role on this machine; "" for those that have none."""
    addresses = {
        "core": (settings.internal_host, settings.monitor_port),
        "broker": (settings.internal_host, settings.health_port),
        "proxy": (settings.internal_host, settings.health_port),
        "api": (settings.host, settings.http_port),
    }
    if role not in addresses:
        return ""
    host, port = addresses[role]
    scheme = "https" if role == "api" and settings.encrypts_http else "http"
    return f"{scheme}://{joined((local_host(host), port))}/healthz"
