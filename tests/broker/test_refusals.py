"""Refusals of the broker: read from its log, counted by reason, and visible in the trace of the device."""

from __future__ import annotations

import contextlib
from pathlib import Path

import aiomqtt
import msgspec
import pytest

from broker.test_auth_service import topic, yard
from broker.test_mqtt_sessions import CLEAN, Session
from cluster_fixture import open_core, open_unit
from headcount.broker.refusals import MAX_LAST, RefusalLog, refusal_of
from headcount.counting.site_versions import only
from headcount.devices.trace import DeviceTracer, is_unknown
from headcount.messages.records import Refusal, RefusalAction, RefusalReason, Refusals
from headcount.messages.reports import REPORT_SUBJECTS, RefusalReport
from headcount.messaging.connection import Connection, Message
from headcount.messaging.kv import KvBucket
from headcount.messaging.streams import REFUSED_BUCKET
from nats_fixture import open_broker
from small_site import small_site
from waiting import until

MINE, OTHER = "u3kvwtghhwpx4qymtmzy", "ylfm6n5heauwsoztsce4"
HEAD = f'[1] 2026/11/28 07:29:15.321993 [ERR] 127.0.0.1:56766 - mid:91 - "{MINE}-1" - '


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            f'Publish Violation - Subject "headcount.ul.person.{MINE}.fix./"',
            ("publish", "slash", f"headcount/ul/person/{MINE}/fix/"),
        ),
        (
            f'Publish Violation - User "x", Subject "/.headcount.ul.person.{MINE}.fix"',
            ("publish", "slash", f"/headcount/ul/person/{MINE}/fix"),
        ),
        (
            f'Publish Violation - Subject "headcount.ul.person.{MINE}"',
            ("publish", "topic", f"headcount/ul/person/{MINE}"),
        ),
        (
            f'Publish Violation - Subject "fix.0.ul.person.{OTHER}"',
            ("publish", "other-device", f"headcount/ul/person/{OTHER}/fix"),
        ),
        (
            f'Subscription Violation - Subject "headcount.ul.person.{OTHER}.cmd", SID a.b',
            ("subscribe", "other-device", f"headcount/ul/person/{OTHER}/cmd"),
        ),
        ('Publish Violation - Subject "owntracks.x.y"', ("publish", "other-device", "owntracks/x/y")),
        ("character not supported for MQTT topics", ("publish", "characters", "")),
        ('wildcards not allowed in publish\'s topic: "a/+"', ("publish", "characters", "")),
        (
            'invalid topic "a b": character not supported for MQTT topics',
            ("subscribe", "characters", "a b"),
        ),
        (f'invalid character in client ID "{MINE}-a.b"', ("connect", "client-id", "")),
        ("message size exceeds maximum allowed (10054); closing", ("publish", "size", "")),
    ],
)
def test_lines_of_the_log(text: str, expected: tuple[str, str, str]) -> None:
    """The server's line about a refusal has action, reason and topic; the client id names the device."""
    found = refusal_of((HEAD + text).encode(), 5.0)
    assert found is not None
    device, refusal = found
    assert device == MINE
    assert (refusal.at, refusal.action, refusal.reason, refusal.topic) == (5.0, *expected)


def test_a_line_about_a_websocket() -> None:
    """Clients over WebSocket are recognised, and a client id that is no handle names no device."""
    line = HEAD.replace("mid:91", "mid_ws:91").replace(MINE, "visitor") + 'Publish Violation - Subject "a"'
    found = refusal_of(line.encode(), 5.0)
    assert found is not None
    assert found[0] == ""


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff\x00",
        b"[1] 2026/11/28 07:29:15.321993 [INF] Server is ready",
        HEAD.encode() + b"Slow Consumer Detected",
        b'cid:5 - Publish Violation - Subject "x"',
    ],
)
def test_other_lines(line: bytes) -> None:
    """Other lines of the log, also about our own NATS clients, are no refusals."""
    assert refusal_of(line, 5.0) is None


def test_the_last_refusals_are_kept() -> None:
    """All refusals are counted, and the last ten of a device are kept."""
    log = RefusalLog()
    for number in range(30):
        log.take(f'{HEAD}Publish Violation - Subject "t.{number}"'.encode())
    assert log.counts == {("publish", "topic"): 30}
    kept = log.devices[MINE]
    assert kept.total == 30
    assert [each.topic for each in kept.last] == [f"t/{number}" for number in range(30 - MAX_LAST, 30)]


async def test_a_device_sees_its_refusals(tmp_path: Path) -> None:
    """The refusals of a device are in its trace, and in the broker's report for the metrics."""
    async with open_broker(tmp_path, anonymous=False) as broker, yard(broker) as here:
        (mine, secret), (other, _) = await here.person(), await here.person()
        reports: list[RefusalReport] = []

        async def on_report(message: Message) -> None:
            if message.subject.startswith("metrics.refusals."):
                reports.append(msgspec.json.decode(message.data, type=RefusalReport))

        connection = Connection(here.core)
        await connection.subscribe(REPORT_SUBJECTS, on_report)
        async with here.client(mine.id, secret) as phone:
            await phone.publish(f"{topic(mine)}/", b"{}", qos=1)
            await phone.publish(topic(mine)[: -len("/fix")], b"{}", qos=1)
            await phone.publish(topic(other), b"{}", qos=1)
            with contextlib.suppress(aiomqtt.MqttError):
                await phone.subscribe(topic(other, "cmd"), qos=1)
        session = await Session.connected(here.port, mine.id, secret, mine.id, CLEAN)
        assert not await session.hold("a topic", b"", 1)
        session.close()
        tracer = DeviceTracer(broker.config.partitions)

        async def traced() -> list[tuple[RefusalAction, RefusalReason, str]]:
            trace = await tracer.trace(connection, only(small_site()), "person", mine.id)
            found = [(each.action, each.reason, each.topic) for each in trace.refused]
            assert is_unknown(trace) == (not found)
            return found if len(found) == 5 else []

        assert await until(traced) == [
            ("publish", "slash", f"{topic(mine)}/"),
            ("publish", "topic", topic(mine)[: -len("/fix")]),
            ("publish", "other-device", topic(other)),
            ("subscribe", "other-device", topic(other, "cmd")),
            ("publish", "characters", ""),
        ]
        expected = {
            "publish.slash": 1.0,
            "publish.topic": 1.0,
            "publish.other-device": 1.0,
            "subscribe.other-device": 1.0,
            "publish.characters": 1.0,
        }
        await until(lambda: reports and reports[-1].counts == expected)
        log = (tmp_path / "broker.log").read_text()
        assert mine.id not in log
        assert other.id not in log


async def test_at_a_broker_unit(tmp_path: Path) -> None:
    """Refusals at a broker unit reach the core, by the topic's device where no account is needed."""
    async with open_core(tmp_path) as core, open_unit(tmp_path, core, "b1") as unit:
        client = await core.client()
        await unit.until_status(200)
        bucket = KvBucket(Connection(client), REFUSED_BUCKET)
        async with aiomqtt.Client("127.0.0.1", unit.port, timeout=60) as phone:
            await phone.publish("headcount/s/person/d1/fixes", b"{}", qos=1)

        async def stored() -> Refusal | None:
            entry = await bucket.get("d1")
            return None if entry is None else msgspec.json.decode(entry.value, type=Refusals).last[0]

        found = await until(stored)
        assert (found.action, found.reason) == ("publish", "topic")
        await client.close()
