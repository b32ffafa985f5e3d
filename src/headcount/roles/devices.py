"""The role `devices`: what devices and their data need beside counting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from headcount.broker import auth_service
from headcount.broker.auth_service import AuthServiceSettings
from headcount.broker.presence import GoneUnits
from headcount.decoders.plugins import plugin_subjects
from headcount.devices.command_delivery import CommandDelivery
from headcount.devices.mqtt_sessions import MqttSessions
from headcount.devices.one_time_links import open_one_time_links
from headcount.devices.pseudonym_keys import PseudonymKeys
from headcount.messaging.connection import Connection
from headcount.messaging.secure_delete import scrub
from headcount.messaging.streams import COMMAND_BUCKET, DAYKEY_BUCKET, DEVICE_BUCKET, opened_log
from headcount.privacy.erasure import Erasure
from headcount.roles.endpoints import core_endpoint
from headcount.roles.mqtt import mqtt_addresses
from headcount.roles.secret import secret_of
from headcount.roles.server_config import rate_limits_of
from headcount.services.container import Services
from headcount.settings.deployment import Settings
from headcount.worker.snapshots import Snapshots


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Run the loops of the role until `stop` is set."""
    core = core_endpoint(settings)
    async with opened_log(core, "headcount devices", stop) as connection, asyncio.TaskGroup() as group:
        for name, loop in _loops(settings, connection).items():
            group.create_task(loop(stop), name=f"devices: {name}")


def _loops(
    settings: Settings, connection: Connection
) -> dict[str, Callable[[asyncio.Event], Coroutine[Any, Any, None]]]:
    """The loops of the role; each ends when the event is set."""
    secret, addresses = secret_of(settings), mqtt_addresses(settings)
    service = AuthServiceSettings(
        settings.name,
        settings.core_addresses,
        secret,
        direct=True,
        limits=rate_limits_of(settings),
        plugin_subjects=plugin_subjects(),
    )
    # a core that lets no devices in needs no auth service: each of its brokers has its own
    authenticate = (
        {"auth service": partial(auth_service.run, service, connection)} if settings.devices else {}
    )
    return authenticate | {
        "pseudonym keys": PseudonymKeys(connection).run,
        "commands": CommandDelivery(connection, addresses, secret=secret, anonymous=settings.open).run,
        "MQTT sessions": MqttSessions(connection, addresses, anonymous=settings.open).run,
        "gone units": GoneUnits(connection, settings.name).run,
        "one-time links": open_one_time_links(connection, secret).run,
        "scrub": partial(scrub, connection, (DEVICE_BUCKET, COMMAND_BUCKET, DAYKEY_BUCKET)),
        "erasure": Erasure(Services(connection, secret), settings.partitions, Snapshots(connection)).run,
    }
