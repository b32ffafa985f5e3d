"""A real broker for a test: on free ports, in the test's own folder, gone at the end.

    async with open_broker(tmp_path) as broker: ...      # in async code
    with running_broker(tmp_path) as broker: ...         # in plain code; the broker runs in a thread
    client = await internal_client(broker)               # a NATS client with all rights

`broker` is a `headcount.broker.core.Broker`: `.url`, `.config.mqtt_port`, `.config.ws_port`,
`.config.nats_port`, `.config.password`, `.config.partitions`, `.config.data`, `.pid`, `.restarts`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client

from headcount.broker.core import Broker
from headcount.broker.nats_config import BrokerConfig
from headcount.broker.nats_program import find_program
from headcount.messages.topics import INTERNAL
from headcount.messaging.connection import Endpoint
from headcount.runtime.ports import free_ports
from waiting import in_thread

PASSWORD = "a password for tests only"  # noqa: S105 - a test value


def config_for(data: Path, **changes: Any) -> BrokerConfig:
    """A configuration on free ports, with 4 partitions where nothing else is asked for."""
    mqtt_port, ws_port, nats_port = free_ports(3)
    settings: dict[str, Any] = {
        "data": data,
        "password": PASSWORD,
        "mqtt_port": mqtt_port,
        "ws_port": ws_port,
        "nats_port": nats_port,
        "partitions": 4,
        "anonymous": True,
    }
    return BrokerConfig(**(settings | changes))


@asynccontextmanager
async def open_broker(data: Path, **changes: Any) -> AsyncIterator[Broker]:
    """A running broker with the streams of the log; `changes` go into its `BrokerConfig`."""
    async with Broker(config_for(data, **changes)) as broker:
        yield broker


def server_program() -> Path:
    """The nats-server that the product itself would take."""
    return in_thread(find_program())[0]


def endpoint_of(broker: Broker) -> Endpoint:
    """Where the broker is, as the user with all rights."""
    config = broker.config
    return Endpoint(((config.local_host, config.nats_port),), INTERNAL, config.password)


async def internal_client(broker: Broker, **options: Any) -> Client:
    """A NATS client with all rights in the account; close it yourself."""
    return await nats.connect(broker.url, user=INTERNAL, password=broker.config.password, **options)


@contextmanager
def running_broker(data: Path, **changes: Any) -> Iterator[Broker]:
    """The same for code that isn't async: the broker is kept by a thread."""
    opened: list[Broker] = []
    failed: list[BaseException] = []
    ready, end = threading.Event(), threading.Event()

    async def serve() -> None:
        async with open_broker(data, **changes) as broker:
            opened.append(broker)
            ready.set()
            await asyncio.to_thread(end.wait)

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # noqa: BLE001 - handed to the test below
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="broker for a test")
    thread.start()
    try:
        ready.wait()
        if opened:
            yield opened[0]
    finally:
        end.set()
        thread.join()
    if failed:
        raise failed[0]
