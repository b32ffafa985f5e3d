"""The bridge from a real RabbitMQ, whose MQTT plug-in receives the devices."""

from __future__ import annotations

import time
from pathlib import Path

import aiomqtt
import pytest

from bridge_fixture import bridge, fix, logged, numbers
from nats_fixture import open_broker
from rabbitmq_fixture import RabbitMq, needs_rabbitmq
from waiting import until

pytestmark = [needs_rabbitmq, pytest.mark.doors]


async def test_nothing_is_lost_when_rabbitmq_is_killed(tmp_path: Path) -> None:
    """Messages that RabbitMQ acknowledged arrive in the log, in order, although it and the bridge were stopped."""
    now_s, acknowledged = time.time(), list[int]()
    with RabbitMq(tmp_path) as rabbitmq:
        async with open_broker(tmp_path / "core") as broker:

            async def publish(last: int) -> None:
                async with aiomqtt.Client("127.0.0.1", rabbitmq.mqtt_port, identifier="device") as device:
                    for number in range(len(acknowledged), last):
                        await device.publish(
                            "headcount/ul/person/a/fix", fix(number, now_s - 700 + number), qos=1
                        )
                        acknowledged.append(number)
                    await device.publish("car-iotp", b"{}", qos=1)
                    await device.publish("other/topic", b"{}", qos=1)

            async def complete() -> bool:
                found = await logged(broker)
                return set(numbers(found.get("ul.person.a", []))) == set(acknowledged)

            url = f"amqp://127.0.0.1:{rabbitmq.port}"
            async with bridge(broker, url) as source:
                await publish(50)
                await until(complete, "the first", every_s=0.2)
                rabbitmq.kill()
                await until(lambda: source.problem, "the bridge notices it")
                rabbitmq.start()
                await until(lambda: not source.problem, "the bridge is back")
                await publish(100)
                await until(complete, "after the restart", every_s=0.2)
            await publish(700)  # a backlog of ten minutes, which the queue stores
            rabbitmq.kill()
            rabbitmq.start()
            async with bridge(broker, url):
                await until(complete, "the backlog", every_s=0.2)
            found = await logged(broker)
    assert list(dict.fromkeys(numbers(found["ul.person.a"]))) == list(range(700))
    assert len(found["car-iotp"]) >= 3
    assert set(found) == {"ul.person.a", "car-iotp"}
