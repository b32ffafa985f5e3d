"""A core for the time of a check, which devices and other roles cannot reach."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from headcount.broker.core import Broker
from headcount.broker.nats_config import BrokerConfig
from headcount.decoders.plugins import plugin_subjects
from headcount.messages.topics import INTERNAL
from headcount.messaging.connection import Endpoint, connected_once
from headcount.roles.secret import secret_of
from headcount.runtime.ports import free_ports
from headcount.services.container import Services
from headcount.services.doctor import partitions_of
from headcount.settings.deployment import LOOPBACK, Settings


@contextlib.asynccontextmanager
async def temporary_core(settings: Settings) -> AsyncIterator[Services]:
    """The services over a core that runs on free ports of this machine.

    Raises:
        HeadcountError: the server cannot run on the data folder.
    """
    mqtt, nats = free_ports(2)
    secret = secret_of(settings)
    streams = (path.name for path in settings.data.glob("jetstream/*/streams/*"))
    config = BrokerConfig(
        data=settings.data,
        password=secret,
        mqtt_port=mqtt,
        nats_port=nats,
        devices=False,
        partitions=partitions_of(streams),
        plugin_subjects=plugin_subjects(),
    )
    async with (
        Broker(config),
        connected_once(Endpoint(((LOOPBACK, nats),), INTERNAL, secret), "headcount doctor") as connection,
    ):
        yield Services(connection, secret)
