"""The bridge from a real Mosquitto, into a real log."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiomqtt

from headcount.bridge import runner
from headcount.bridge.source import Source, open_source, source_options
from headcount.broker.core import Broker
from headcount.messages.topics import FIX_STREAM, FOREIGN_STREAM
from headcount.settings.bridge import BridgeSettings
from mosquitto_fixture import Mosquitto, needs_mosquitto
from nats_fixture import endpoint_of, internal_client, open_broker
from waiting import until

pytestmark = needs_mosquitto


@asynccontextmanager
async def bridge(broker: Broker, **settings: str) -> AsyncIterator[Source]:
    """Run a bridge during the block, once it is connected; its source."""
    stop = asyncio.Event()
    changes = {"from_" if name == "url" else name: value for name, value in settings.items()}
    options = source_options(BridgeSettings(**changes), "test")  # type: ignore[arg-type]
    source = open_source(options)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(runner.run(endpoint_of(broker), options.name, source, stop, accounts=False))
        try:
            await until(lambda: not source.problem, "the bridge is connected")
            yield source
        finally:
            stop.set()


def fix(number: int, t_s: float) -> bytes:
    """A fix whose battery level is its number."""
    return json.dumps({"lat": 52.6735, "lon": -8.5731, "acc": 8, "t": t_s, "batt": number}).encode()


async def logged(broker: Broker) -> dict[str, list[bytes]]:
    """All messages of the log and of FOREIGN, by subject without the partition, in order."""
    client = await internal_client(broker)
    found: dict[str, list[bytes]] = {}
    try:
        names = [*(FIX_STREAM.format(partition=p) for p in range(broker.config.partitions)), FOREIGN_STREAM]
        for name in names:
            state = (await client.jetstream().stream_info(name)).state
            for sequence in range(max(state.first_seq, 1), state.last_seq + 1):
                message = await client.jetstream().get_msg(name, sequence)
                subject = message.subject or ""
                if not subject.endswith(".tick"):
                    key = subject if name == FOREIGN_STREAM else subject.split(".", 2)[2]
                    found.setdefault(key, []).append(message.data or b"")
    finally:
        await client.close()
    return found


async def test_messages_go_to_the_log_or_to_decoders(tmp_path: Path) -> None:
    """Fixes go to the log, other formats to FOREIGN, anything else and retained messages nowhere; in order."""
    now_s = time.time()
    with Mosquitto(tmp_path) as mosquitto:
        async with (
            open_broker(tmp_path / "core") as broker,
            aiomqtt.Client("127.0.0.1", mosquitto.port) as device,
        ):
            await device.publish("headcount/ul/person/a/fix", fix(-1, now_s - 900), qos=1, retain=True)
            async with bridge(broker, url=f"mqtt://127.0.0.1:{mosquitto.port}"):
                for number in range(50):
                    await device.publish(
                        "headcount/ul/person/a/fix", fix(number, now_s + number / 100), qos=1
                    )
                await device.publish("headcount/ul/person/a/status", b"offline", qos=1)
                await device.publish("owntracks/jane.doe/phone", b"{}", qos=1)
                await device.publish("headcount/ul/counts/library", b"1", qos=1)
                await device.publish("headcount/ul/person/b/fix", b" " * 70_000, qos=1)

                async def complete() -> bool:
                    return len(await logged(broker)) >= 3

                await until(complete, "all are there", every_s=0.2)
            found = await logged(broker)
    assert set(found) == {"ul.person.a", "ul.person.a.status", "owntracks.jane//doe.phone"}
    assert [json.loads(payload)["batt"] for payload in found["ul.person.a"]] == list(range(50))
