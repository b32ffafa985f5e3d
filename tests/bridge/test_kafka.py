"""Records of a real Kafka, as the bridge reads them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

from bridge.reading import new_source, read
from headcount.bridge.source import SourceMessage
from headcount.errors import SettingsError
from kafka_fixture import PASSWORD, USER, KafkaServer, running_kafka
from waiting import until

pytestmark = [pytest.mark.doors, pytest.mark.slow]


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """A running broker."""
    with running_kafka(tmp_path_factory.mktemp("kafka")) as server:
        yield server


def produce(
    kafka: KafkaServer, name: str, *records: tuple[str | None, bytes | None], topic: str = ""
) -> None:
    """Store records with a key and a value each, and with a header `topic`."""
    producer = Producer({"bootstrap.servers": kafka.address, "log_level": 0})
    for key, value in records:
        producer.produce(name, value, key, headers={"topic": topic} if topic else None)
    assert producer.flush(60) == 0


async def test_topics_of_records(kafka: KafkaServer) -> None:
    """The header `topic`, a key like an MQTT topic, and the name of the Kafka topic are topics."""
    kafka.create_topic("car-iotp")
    produce(kafka, "car-iotp", ("p1", b"1"), topic="owntracks/anna/phone")
    produce(kafka, "car-iotp", ("headcount/ul/person/p1/fix", b"2"), ("p1", b"3"), (None, b"4"), ("p1", None))
    assert await read(new_source(f"kafka://{kafka.address}/car-iotp"), 5) == [
        SourceMessage("owntracks/anna/phone", b"1"),
        SourceMessage("headcount/ul/person/p1/fix", b"2"),
        SourceMessage("car-iotp", b"3"),
        SourceMessage("car-iotp", b"4"),
        SourceMessage("", b"", "empty"),
    ]


async def test_topic_of_a_pattern(kafka: KafkaServer) -> None:
    """A pattern in the URL makes topics of keys."""
    kafka.create_topic("positions")
    produce(kafka, "positions", ("p1", b"1"))
    source = new_source(f"kafka://{kafka.address}/positions?topic=headcount/ul/person/{{key}}/fix")
    assert await read(source, 1) == [SourceMessage("headcount/ul/person/p1/fix", b"1")]


async def test_records_come_again_until_they_are_acknowledged(kafka: KafkaServer) -> None:
    """A bridge that ends between storing and committing leaves its records to the next one."""
    kafka.create_topic("again")
    produce(kafka, "again", *(("car-iotp/", str(number).encode()) for number in range(20)))
    url = f"kafka://{kafka.address}/again"
    first = await read(new_source(url), 20, acknowledge=False)
    assert await read(new_source(url), 20) == first
    produce(kafka, "again", ("car-iotp/", b"new"))
    assert await read(new_source(url), 1) == [SourceMessage("car-iotp/", b"new")]


async def test_password_and_encryption(kafka: KafkaServer) -> None:
    """A user signs in over TLS, and the certificate is checked."""
    kafka.create_topic("secret")
    produce(kafka, "secret", ("car-iotp/", b"1"))
    url = f"kafkas://{USER}:{PASSWORD}@{kafka.tls_address}/secret"
    for name, query in (("scram", ""), ("plain", "?sasl=PLAIN")):
        source = new_source(url + query, ca=kafka.certificate, name=name)
        assert await read(source, 1) == [SourceMessage("car-iotp/", b"1")]
    distrusted = new_source(url)
    reading = asyncio.create_task(read(distrusted, 1))
    await until(lambda: "certificate" in distrusted.problem, "the certificate is refused")
    assert PASSWORD not in distrusted.problem
    reading.cancel()


def test_no_password_without_encryption() -> None:
    """A mechanism that sends the password needs TLS."""
    source = new_source("kafka://bridge:secret@127.0.0.1:1/fixes?sasl=PLAIN")
    with pytest.raises(SettingsError, match="sasl=PLAIN sends the password; use it with kafkas://"):
        asyncio.run(read(source, 1))


async def test_problem(kafka: KafkaServer) -> None:
    """A missing topic is a problem until it exists."""
    source = new_source(f"kafka://{kafka.address}/later")
    reading = asyncio.create_task(read(source, 1))
    await until(lambda: "there is no Kafka topic later" in source.problem, "the problem")
    kafka.create_topic("later")
    await until(lambda: not source.problem, "the problem is solved")
    produce(kafka, "later", ("car-iotp/", b"1"))
    assert await reading == [SourceMessage("car-iotp/", b"1")]
