"""The load of `headcount bench day`: its profile, devices, probes and MQTT packets."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from headcount.counting.site_file import parse_site
from headcount.decoders import iotp
from headcount.decoders.canonical import CanonicalMessage
from headcount.decoders.device_aliases import AliasResolver
from headcount.decoding import Message
from headcount.devices.registry_cache import RegistryCache
from headcount.lab.load.day_profile import NIGHT, DayProfile, pace, presence
from headcount.lab.load.device_connection import ConnectionCounters, DeviceConnection, LoadTarget
from headcount.lab.load.latency_probes import ProbeTimes
from headcount.lab.load.mqtt_packets import CONNACK, PUBACK, LastWill, PacketReader, connect, publish
from headcount.lab.load.population import PROBE_ZONE, FixMessage, bench_site, population, probe_position
from headcount.sites.files import bundled_site
from nats_fixture import open_broker
from waiting import until

SITE = bench_site(json.loads(bundled_site("ul").read_text()))


# --- the load profile -----------------------------------------------------------------------------
def test_a_day_has_two_peaks_and_is_quiet_at_night() -> None:
    """Presence rises and falls exactly twice, between the night's share and all devices."""
    values = [presence(minute / 60) for minute in range(24 * 60 + 1)]
    ways = [after > before for before, after in itertools.pairwise(values) if before != after]
    turns = [way for index, way in enumerate(ways) if index == 0 or way != ways[index - 1]]
    assert turns == [True, False, True, False]
    assert max(values) > 0.99
    assert values[0] < 1.1 * NIGHT


def test_at_noon_more_than_half_has_left() -> None:
    """Between the peaks, the load is low enough to scale down."""
    assert presence(12.75) * pace(12.75) < 0.35


@given(at_s=st.floats(-100, 100), seconds=st.floats(1, 50))
def test_the_hour_stays_within_the_day(at_s: float, seconds: float) -> None:
    """Before and after the day it is midnight."""
    assert 0 <= DayProfile(seconds).hour(at_s) <= 24


# --- devices ----------------------------------------------------------------------------------------
def test_the_same_seed_gives_the_same_devices() -> None:
    """The devices depend on the seed only."""
    assert population(SITE, 200, 3) == population(SITE, 200, 3)
    assert population(SITE, 200, 3) != population(SITE, 200, 4)


def test_every_flow_carries_the_same_fix() -> None:
    """Messages of the older flows are translated to the device's position and time."""
    seen, names = set(), AliasResolver("a secret for tests", RegistryCache(), "ul")
    for device in population(SITE, 300, 1):
        lat, lon = device.position()
        message = device.next_fix(device.topic("ul").encode(), 1_764_000_000.25)
        seen.add((device.kind, device.flow))
        if device.flow == "own":
            body = json.loads(message.payload)
            assert (body["t"], body["lat"], body["lon"]) == (1_764_000_000.25, lat, lon)
            continue
        (decoded,) = iotp.decode(message.payload, Message(device.topic("ul"), 1_764_000_001.0))
        outcome = names.outcome("iotp", decoded)
        assert isinstance(outcome, CanonicalMessage)
        body = json.loads(outcome.payload)
        assert outcome.sender == names.derived("iotp", device.id, device.kind)
        assert (body["t"], body["lat"], body["lon"]) == (1_764_000_000.25, lat, lon)
    assert len(seen) == 6  # each kind on each flow


def test_a_device_never_sends_the_same_time_twice() -> None:
    """Event times of a device increase, so that kind, device and time identify a fix."""
    device = population(SITE, 1, 1)[0]
    times = [device.next_fix(b"topic", now_s).t_ms for now_s in (10.0, 10.0, 9.0, 10.0001)]
    assert times == sorted(set(times))


def test_no_device_walks_through_the_zone_of_the_probes() -> None:
    """The zone of the probes is on site, and away from the routes of devices."""
    site = parse_site(SITE, "bench")
    probes = site.zones[-1]
    assert probes.id == PROBE_ZONE
    (x,), (y,) = site.project(*(np.array([degrees]) for degrees in probe_position(SITE)))
    assert shapely.contains_xy(probes.plane, x, y)
    assert shapely.contains_xy(site.zones[0].plane, x, y)
    tours = np.array([stop for device in population(SITE, 50, 2) for stop in device.route])
    places = shapely.points(*site.project(tours[:, 0], tours[:, 1]))
    assert shapely.distance(probes.plane, places).min() > 50


# --- probes -----------------------------------------------------------------------------------------
def test_a_probe_is_counted_by_the_first_report_that_has_it() -> None:
    """Probes whose hold has passed count as counted although they left the count."""
    probed = ProbeTimes(sent_s=[1.0, 2.0, 3.0])
    probed.receive(counted_s=1.3, at_s=1.2, count=1, hold_s=10)
    probed.receive(counted_s=1.4, at_s=1.3, count=1, hold_s=10)
    assert probed.counted_s == [1.3]
    probed.receive(counted_s=12.2, at_s=12.1, count=1, hold_s=10)  # two have expired, the third is present
    assert probed.counted_s == [1.3, 12.2, 12.2]


# --- MQTT -------------------------------------------------------------------------------------------
@given(
    packets=st.lists(st.tuples(st.sampled_from([CONNACK, PUBACK]), st.binary(max_size=300)), max_size=6),
    cuts=st.lists(st.integers(0, 2000), max_size=8),
)
def test_answers_come_whole_however_they_were_cut(packets: list[tuple[int, bytes]], cuts: list[int]) -> None:
    """Packets are decoded for any fragmentation of the stream."""
    stream = b"".join(bytes([kind << 4]) + _size(len(body)) + body for kind, body in packets)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    answers = PacketReader()
    found = [packet for a, b in itertools.pairwise(edges) for packet in answers.feed(stream[a:b])]
    assert found == packets


def _size(length: int) -> bytes:
    return bytes([length]) if length < 128 else bytes([length % 128 | 128, length // 128])


def test_a_length_of_five_bytes_is_no_mqtt() -> None:
    """Malformed data raises an error instead of waiting for more."""
    with pytest.raises(ValueError, match="four bytes"):
        list(PacketReader().feed(b"\x40\xff\xff\xff\xff\x01"))


async def test_a_real_broker_acknowledges(tmp_path: Path) -> None:
    """A device connects to the product's broker, which acknowledges every QoS 1 message."""
    async with open_broker(tmp_path) as broker:
        acked: list[FixMessage] = []
        tally = ConnectionCounters()
        link = DeviceConnection(
            LoadTarget("127.0.0.1", broker.config.mqtt_port),
            "device-1",
            tally,
            acked.append,
            random.Random(1),
            will=LastWill("headcount/ul/person/device-1/status", b"offline"),
        )
        link.open()
        messages = [_message(number) for number in range(60)]
        for message in messages:
            link.put(message)
        await until(lambda: len(acked) >= len(messages))
        assert acked == messages
        assert (tally.sent, tally.resent, link.unacknowledged) == (60, 0, 0)
        link.close()
        await until(lambda: not tally.connected)
        assert tally.disconnects == 0


def _message(number: int, qos: int = 1) -> FixMessage:
    return FixMessage(b"headcount/ul/person/device-1/fix", b"%d" % number, qos, "person", "device-1", number)


class _Forgetful:
    """A broker that acknowledges some messages and then closes the connection."""

    def __init__(self, acknowledges: int) -> None:
        self.acknowledges = acknowledges
        self.seen: list[list[tuple[bytes, bool]]] = []  # per connection: payload, DUP flag
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen: list[tuple[bytes, bool]] = []
        self.seen.append(seen)
        head = await reader.readexactly(2)
        await reader.readexactly(head[1])
        writer.write(b"\x20\x02\x00\x00")
        try:
            while True:
                head = await reader.readexactly(2)
                body = await reader.readexactly(head[1])
                if head[0] >> 4 != 3:
                    continue
                topic = int.from_bytes(body[:2], "big")
                number = body[2 + topic : 4 + topic]
                seen.append((body[4 + topic :], bool(head[0] & 8)))
                if len(seen) > self.acknowledges and len(self.seen) == 1:
                    return
                writer.write(b"\x40\x02" + number)
        except asyncio.IncompleteReadError:
            return
        finally:
            writer.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[1]


async def test_what_was_not_acknowledged_is_sent_again_in_order() -> None:
    """After a disconnect, a device reconnects and sends unacknowledged messages again in order."""
    broker, acked, tally = _Forgetful(3), list[FixMessage](), ConnectionCounters()
    async with broker.running() as port:
        link = DeviceConnection(
            LoadTarget("127.0.0.1", port), "device-1", tally, acked.append, random.Random(1)
        )
        link.open()
        for number in range(8):
            link.put(_message(number))
        await until(lambda: len(acked) >= 8)
        link.close()
        await until(lambda: not tally.connected)
    first, second = broker.seen
    assert [payload for payload, _ in first[:3]] == [b"0", b"1", b"2"]
    assert [payload for payload, _ in second] == [b"3", b"4", b"5", b"6", b"7"]
    assert all(again for _, again in second)
    assert [message.t_ms for message in acked] == list(range(8))
    assert tally.disconnects == 1


async def test_a_device_that_leaves_stays_until_all_is_acknowledged() -> None:
    """Closing waits until all messages are acknowledged, even over a new connection."""
    broker, acked, tally = _Forgetful(0), list[FixMessage](), ConnectionCounters()
    async with broker.running() as port:
        link = DeviceConnection(
            LoadTarget("127.0.0.1", port), "device-1", tally, acked.append, random.Random(1)
        )
        link.open()
        link.put(_message(1))
        link.close()
        await until(lambda: not link.unacknowledged)
        assert [message.t_ms for message in acked] == [1]
        await until(lambda: not tally.connected)


def test_a_full_buffer_drops_its_oldest() -> None:
    """While disconnected, the newest messages are kept, and dropped ones are counted."""
    tally = ConnectionCounters()
    link = DeviceConnection(LoadTarget("127.0.0.1", 1), "device-1", tally, lambda _: None, random.Random(1))
    for number in range(510):
        link.put(_message(number))
    assert (tally.created, tally.dropped, link.unacknowledged) == (510, 10, 500)


def test_packets_have_the_bytes_of_the_standard() -> None:
    """CONNECT and PUBLISH have the bytes of MQTT 3.1.1."""
    assert connect("ab", 30) == b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x1e\x00\x02ab"
    assert connect("a", 30, LastWill("t", b"x"))[:2] == b"\x10\x13"
    assert publish(b"t", b"x") == b"\x30\x04\x00\x01tx"
    assert publish(b"t", b"x", 7) == b"\x32\x06\x00\x01t\x00\x07x"
    assert publish(b"t", b"x", 7, duplicate=True)[0] == 0x3A
    assert publish(b"t", b"x" * 200)[1:3] == b"\xcb\x01"
