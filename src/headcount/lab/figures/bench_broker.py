"""Brokers on free ports, for benchmarks."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from headcount.broker.core import Broker
from headcount.broker.nats_config import BrokerConfig
from headcount.messages.topics import INTERNAL
from headcount.messaging.connection import Endpoint
from headcount.runtime.ports import free_ports

PASSWORD = "only for benchmarks"  # noqa: S105
PARTITIONS = 4


def bench_config(folder: Path, *, partitions: int = PARTITIONS, anonymous: bool = True) -> BrokerConfig:
    """A server on free ports with its data in `folder`."""
    mqtt, ws, port = free_ports(3)
    return BrokerConfig(
        data=folder,
        password=PASSWORD,
        mqtt_port=mqtt,
        ws_port=ws,
        nats_port=port,
        partitions=partitions,
        anonymous=anonymous,
    )


def endpoint_of(config: BrokerConfig) -> Endpoint:
    """The address of a server, with all rights."""
    return Endpoint((("127.0.0.1", config.nats_port),), INTERNAL, PASSWORD)


@contextlib.asynccontextmanager
async def bench_broker(
    folder: Path, *, partitions: int = PARTITIONS, anonymous: bool = True
) -> AsyncIterator[Broker]:
    """A running broker."""
    config = bench_config(folder, partitions=partitions, anonymous=anonymous)
    async with Broker(config, check_every_s=60) as broker:
        yield broker
