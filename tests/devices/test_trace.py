"""Device traces, with a real broker."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiomqtt
import msgspec
import pytest
from nats.aio.client import Client

from headcount.broker.core import Broker
from headcount.counting.site_versions import only
from headcount.devices.trace import DeviceTracer, is_unknown, kinds_in_log
from headcount.messages.device_state import DeviceState
from headcount.messages.fixes import ForgetMarker, encode_fix
from headcount.messages.topics import ACK_TOPIC, FIX_TOPIC, STATUS_TOPIC, partition_of
from headcount.messaging.connection import Connection
from headcount.messaging.device_messages import messages_of
from nats_fixture import internal_client, running_broker
from small_site import small_site
from waiting import until

PARTITIONS = 2
SITE = only(small_site())
INSIDE, FAR = (50.0025, 0.0025), (50.0085, 0.0085)
_names = (f"d{number}" for number in range(1000))


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker for this file."""
    with running_broker(tmp_path_factory.mktemp("broker"), partitions=PARTITIONS) as running:
        yield running


@pytest.fixture
def name() -> str:
    """A device that no other test uses."""
    return next(_names)


@asynccontextmanager
async def opened(broker: Broker) -> AsyncIterator[tuple[Client, aiomqtt.Client]]:
    """A client with all permissions, and a device's client."""
    client = await internal_client(broker)
    try:
        async with aiomqtt.Client("127.0.0.1", broker.config.mqtt_port, timeout=60) as phone:
            yield client, phone
    finally:
        await client.close()


def topic(name: str, what: str = FIX_TOPIC, kind: str = "person") -> str:
    """A topic of a device."""
    return what.format(site="s", kind=kind, device=name)


async def test_each_message_once_with_its_rule(broker: Broker, name: str) -> None:
    """Fixes of any QoS and status messages appear once each, in order, with rule and numbers."""
    async with opened(broker) as (client, phone):
        now_s, tracer = float(int(time.time())) - 60.0, DeviceTracer(PARTITIONS)
        for n, (place, acc, qos) in enumerate(
            [(INSIDE, 8.0, 0), (INSIDE, 250.0, 1), (INSIDE, 8.0, 2), (FAR, 8.0, 1)]
        ):
            await phone.publish(topic(name), encode_fix(now_s + n, *place, acc=acc), qos=qos)

            async def is_logged(n: int = n) -> bool:
                return (await tracer.trace(Connection(client), SITE, "person", name)).messages > n

            await until(is_logged, "the message is logged, which the next one may not overtake")
        await phone.publish(topic(name), b"not json", qos=1)
        await phone.publish(topic(name), encode_fix(now_s - 5, *INSIDE, acc=8.0), qos=1)
        await phone.publish(topic(name, STATUS_TOPIC), b"dancing", qos=1)
        await phone.publish(topic(name, STATUS_TOPIC), b"offline", qos=1)
        await phone.publish(topic(f"{name}x"), encode_fix(now_s, *INSIDE), qos=1)
        await phone.publish(topic(name, kind="vehicle"), encode_fix(now_s, *INSIDE), qos=1)
        trace = await tracer.trace(Connection(client), SITE, "person", name)
        assert [line.verdict for line in trace.lines] == [
            "accepted",
            "inaccurate",
            "accepted",
            "implausible",
            "malformed",
            "out_of_order",
            "malformed",
            None,
        ]
        assert trace.lines[4].why == "It is not a fix: it is not JSON: Expecting value at byte 0."
        assert "its status is 'dancing', neither online nor offline" in trace.lines[6].why
        assert [line.rule for line in trace.lines] == ["1.11", "1.8", "1.11", "1.9", "1.1", "1.5", "1.1", "3"]
        assert trace.lines[0].changes == [
            {"zone": "site", "type": "enter", "t": trace.lines[0].t, "reason": "moved"},
            {"zone": "b1", "type": "enter", "t": trace.lines[0].t, "reason": "moved"},
        ]
        assert trace.lines[7].what == "offline"
        last = trace.lines[3].checks[-1]
        assert last["verdict"] == "implausible"
        assert last["value"] > last["limit"] == pytest.approx(70.0 + 16.0)
        assert (trace.zones, trace.messages, trace.truncated) == (["site", "b1"], 8, False)
        assert (trace.live, trace.agrees) == (None, None)
        json.loads(msgspec.json.encode(trace))


async def test_the_state_of_the_worker_is_included(broker: Broker, name: str) -> None:
    """The worker's state is included, and whether the replay agrees with it."""
    async with opened(broker) as (client, phone):
        known: DeviceState | None = DeviceState(
            True, ["b1", "site"], 1_790_000_000.5, *INSIDE, 5.0, False, "accepted"
        )

        async def answer(message: Any) -> None:
            assert json.loads(message.data) == {"site": "s", "kind": "person", "device": name}
            await message.respond(msgspec.json.encode(known))

        worker = await client.subscribe(f"ask.{partition_of('s', name, PARTITIONS)}", cb=answer)
        tracer = DeviceTracer(PARTITIONS)
        nothing = await tracer.trace(Connection(client), SITE, "person", name)
        assert nothing.agrees is False
        assert not is_unknown(nothing)
        await phone.publish(topic(name), encode_fix(time.time() - 1, *INSIDE), qos=1)
        trace = await tracer.trace(Connection(client), SITE, "person", name)
        assert trace.agrees is True
        assert trace.live is not None
        assert (trace.live["zones"], trace.live["last_t"]) == (["b1", "site"], "2026-09-21T14:13:20.500Z")
        known = None
        assert (await tracer.trace(Connection(client), SITE, "person", name)).agrees is False
        assert is_unknown(await tracer.trace(Connection(client), SITE, "vehicle", name))
        await worker.unsubscribe()


async def test_limits(broker: Broker, name: str) -> None:
    """A limit returns the newest messages; of too many messages only the newer part of the hour is read."""
    async with opened(broker) as (client, phone):
        now_s = time.time() - 30
        for n in range(30):
            await phone.publish(topic(name), encode_fix(now_s + n / 10, *INSIDE), qos=1)
        trace = await DeviceTracer(PARTITIONS).trace(Connection(client), SITE, "person", name, limit=3)
        assert len(trace.lines) == 3
        assert trace.messages == 30
        assert trace.lines[-1].t is not None
        partition = partition_of("s", name, PARTITIONS)
        await asyncio.sleep(1.2)  # a span below a second is not halved
        later_s = time.time() + 1800
        few, since_s = await messages_of(
            Connection(client), partition, "s", "person", name, later_s, max_messages=10
        )
        assert len(few) <= 10
        assert since_s > later_s - 3600


async def test_a_marker_removes_the_device(broker: Broker, name: str) -> None:
    """After a marker of the device its state is gone; markers of others have no effect."""
    async with opened(broker) as (client, phone):
        partition, t_s = partition_of("s", name, PARTITIONS), time.time() - 5
        js = client.jetstream()
        await phone.publish(topic(name), encode_fix(t_s, *INSIDE), qos=1)
        for forget in (
            ForgetMarker("person", {"20000": "0" * 16}),
            ForgetMarker("vehicle", {"20001": "1" * 16}),
            ForgetMarker("person", {"20000": "0" * 16, "20001": "1" * 16}),
        ):
            await js.publish(f"fix.{partition}.forget", msgspec.json.encode(forget))
        await js.publish(f"fix.{partition}.forget", b"{}")
        trace = await DeviceTracer(PARTITIONS).trace(
            Connection(client), SITE, "person", name, names={20001: "1" * 16}
        )
        assert [line.what for line in trace.lines] == ["fix", "forgotten"]
        assert {change["reason"] for change in trace.lines[1].changes} == {"removed"}
        assert trace.zones == []


async def test_kinds(broker: Broker, name: str) -> None:
    """The kinds of an unregistered id are found in the log."""
    async with opened(broker) as (client, phone):
        assert await kinds_in_log(Connection(client), "s", name, PARTITIONS) == []
        await phone.publish(topic(name, kind="vehicle"), encode_fix(time.time(), *INSIDE), qos=1)
        assert await kinds_in_log(Connection(client), "s", name, PARTITIONS) == ["vehicle"]
        for _ in range(2):
            await phone.publish(topic(name), encode_fix(time.time(), *INSIDE), qos=1)
        assert await kinds_in_log(Connection(client), "s", name, PARTITIONS) == ["person", "vehicle"]
        await phone.publish(topic(name, ACK_TOPIC), b"{}", qos=1)
