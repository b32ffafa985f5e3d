"""How our own MQTT clients connect to the core."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from ssl import SSLContext

from headcount.messages.topics import INTERNAL
from headcount.messaging.mqtt_address import MqttAddress
from headcount.roles.secret import secret_of
from headcount.roles.tls import tls_files_of
from headcount.settings.deployment import Settings
from headcount.settings.formats import local_host


def mqtt_addresses(settings: Settings) -> list[MqttAddress]:
    """Where our own MQTT clients reach the core, and their login there.

    Raises:
        CertificateError: see `tls_files_of`.
    """
    context: Callable[[], SSLContext] | None = None
    if settings.core_takes_tls and (tls := tls_files_of(settings)) is not None:
        from headcount.tls.contexts import pinned_context

        context = partial(pinned_context, tls)
    password = secret_of(settings)
    return [
        MqttAddress(local_host(host), port, INTERNAL, password, context)
        for host, port in settings.core_mqtt_addresses
    ]
