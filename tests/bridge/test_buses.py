"""The buses of the tests keep what they have confirmed when they are killed."""

from __future__ import annotations

from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer

from kafka_fixture import running_kafka
from redis_fixture import running_redis

pytestmark = pytest.mark.doors


def test_kafka_fixture(tmp_path: Path) -> None:
    """A record that Kafka has confirmed is there after a kill."""
    with running_kafka(tmp_path / "kafka") as kafka:
        kafka.create_topic("fixes", partitions=2)
        producer = Producer({"bootstrap.servers": kafka.address})
        producer.produce("fixes", b"value", b"key")
        assert producer.flush(30) == 0
        kafka.kill()
        kafka.start()
        settings = {"bootstrap.servers": kafka.address, "group.id": "test", "auto.offset.reset": "earliest"}
        consumer = Consumer(settings)
        consumer.subscribe(["fixes"])
        record = consumer.poll(60)
        consumer.close()
        assert record is not None
        assert (record.key(), record.value()) == (b"key", b"value")


def test_redis_fixture(tmp_path: Path) -> None:
    """An entry that Redis has confirmed is there after a kill."""
    with running_redis(tmp_path / "redis") as redis:
        redis.client().xadd("fixes", {"payload": "value"})
        redis.kill()
        redis.start()
        entries = redis.client().xrange("fixes")
        assert entries is not None
        assert [fields for _, fields in entries] == [{"payload": "value"}]
