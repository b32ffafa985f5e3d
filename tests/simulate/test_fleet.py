"""The fleet with a real broker: messages arrive in order across broken connections, with status and last will."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import shutil
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiomqtt
import msgspec
import pytest
from click.testing import CliRunner

from headcount.broker.core import Broker as Server
from headcount.cli.main import main
from headcount.counting.site_file import at_speed
from headcount.errors import BrokerError, SettingsError, SiteError
from headcount.messages.fixes import Fix, encode_fix
from headcount.messages.topics import SITE_TOPIC, TICK_SUBJECT, Kind
from headcount.messaging.connection import Connection, Endpoint
from headcount.messaging.log_reader import open_reader
from headcount.simulate.fleet import BUFFER, BrokerAddress, FleetConnection, SendStats, find_site, open_fleet
from headcount.simulate.pacing import RunProgress
from headcount.simulate.runs import CrowdRun, TraceRun, run_crowd, run_trace
from nats_fixture import internal_client, open_broker, running_broker
from small_site import small_site
from waiting import BUSY_S, in_thread, log_loop_errors, until

FIX = msgspec.json.Decoder(Fix)


def time_of(fix: Fix) -> float:
    """The event time of a fix."""
    t = fix.t if isinstance(fix.t, float) else fix.tst
    assert t is not None
    return t


DEVICES: list[tuple[Kind, str]] = [("person", "p1"), ("person", "p2"), ("vehicle", "c1")]


def at(server: Server) -> BrokerAddress:
    """The MQTT address of a broker of the fixtures."""
    return BrokerAddress("127.0.0.1", server.config.mqtt_port)


async def announce(server: Server, geojson: Any, site_id: str = "s") -> None:
    """Publish a retained site like a running system."""
    payload = geojson if isinstance(geojson, bytes) else json.dumps(geojson).encode()
    async with aiomqtt.Client(
        "127.0.0.1", server.config.mqtt_port, username="headcount", password=server.config.password
    ) as mqtt:
        await mqtt.publish(SITE_TOPIC.format(site=site_id), payload, qos=1, retain=True)


@asynccontextmanager
async def received(server: Server) -> AsyncIterator[list[tuple[str, bytes]]]:
    """Collect everything that arrives in the log: subject without partition, and payload."""
    client = await internal_client(server, max_reconnect_attempts=-1, reconnect_time_wait=0.1)
    messages: list[tuple[str, bytes]] = []

    async def note(message: Any) -> None:
        messages.append((message.subject.split(".", 2)[2], message.data))

    await client.subscribe("fix.*.>", cb=note)
    await client.flush()
    yield messages
    await client.close()


def nothing(_: RunProgress) -> None:
    """Ignore the progress."""


async def test_messages_arrive_in_order_with_status(tmp_path: Path) -> None:
    """Each device publishes online, its fixes in order, and offline at the end; nothing is lost with QoS 0 or 1."""

    async def scenario(qos: int) -> None:
        async with open_broker(tmp_path / str(qos)) as server, received(server) as messages:
            async with open_fleet(at(server), "ul", DEVICES, qos=qos) as fleet:
                for number in range(200):
                    for device in range(3):
                        fleet.put(device, f"{number}".encode())
            await until(lambda: len(messages) >= 606)
            for kind, name in DEVICES:
                fixes = [int(data) for subject, data in messages if subject == f"ul.{kind}.{name}"]
                status = [data for subject, data in messages if subject == f"ul.{kind}.{name}.status"]
                assert fixes == list(range(200))
                assert status == [b"online", b"offline"]
            assert (fleet.sent.sent, fleet.sent.dropped, fleet.sent.connected) == (600, 0, 0)

    for qos in (0, 1):
        await scenario(qos)


async def test_devices_share_connections_beyond_the_limit(tmp_path: Path) -> None:
    """With fewer connections than devices, the fixes of all devices arrive over that number of connections."""
    async with open_broker(tmp_path) as server, received(server) as messages:
        devices: list[tuple[Kind, str]] = [("person", f"d{i}") for i in range(50)]
        async with open_fleet(at(server), "ul", devices, connections=7) as fleet:
            for device in range(50):
                fleet.put(device, b"x")
            await until(lambda: fleet.sent.sent == 50)
            assert fleet.sent.connected == 7
        await until(lambda: sum(data == b"x" for _, data in messages) == 50)
        assert {subject for subject, data in messages if data == b"x"} == {
            f"ul.person.d{i}" for i in range(50)
        }


async def test_a_broken_connection_leaves_its_last_will(tmp_path: Path) -> None:
    """The broker publishes `offline` for a client whose connection breaks."""
    async with open_broker(tmp_path) as server, received(server) as messages:
        link = FleetConnection(at(server), "headcount/ul/person/p1/status", "p1", 0, SendStats())
        link.put("headcount/ul/person/p1/fix", b"x")
        client = at(server).client("p1", aiomqtt.Will("headcount/ul/person/p1/status", b"offline"))
        await client.__aenter__()
        sending = asyncio.ensure_future(link._send_all(client))
        await until(lambda: len(messages) == 2)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        sock = client._client.socket()
        assert isinstance(sock, socket.socket)
        sock.shutdown(socket.SHUT_RDWR)
        await until(lambda: len(messages) == 3)
        assert messages[2] == ("ul.person.p1.status", b"offline")
        with suppress(aiomqtt.MqttError):
            await client.__aexit__(None, None, None)


async def test_nothing_acknowledged_or_buffered_is_lost_when_the_broker_is_killed(tmp_path: Path) -> None:
    """With QoS 1, every fix is in the log at least once and in order although the broker is killed."""
    log_loop_errors()
    devices: list[tuple[Kind, str]] = [("person", f"d{i}") for i in range(6)]
    async with open_broker(tmp_path) as server:
        async with open_fleet(at(server), "ul", devices, connections=4, qos=1) as fleet:
            for number in range(600):
                for device in range(len(devices)):
                    fleet.put(device, f"{number}".encode())
                await asyncio.sleep(0.003)  # so that the kills hit messages on their way
                if number in {150, 400}:
                    await until(lambda: fleet.sent.sent > 0 and server.pid is not None)
                    assert server.pid is not None
                    os.kill(server.pid, signal.SIGKILL)
            await until(lambda: fleet.sent.waiting == 0)
            assert fleet.sent.broken >= 4
            assert fleet.sent.dropped == 0
        stored = await in_log(server)
        for _, name in devices:
            assert [*dict.fromkeys(stored[name])] == list(range(600)), name


async def in_log(server: Server) -> dict[str, list[int]]:
    """The numbers in the fixes of each device, in the order of the log."""
    client = await internal_client(server)
    stored: dict[str, list[int]] = {}
    endpoint = Endpoint((("127.0.0.1", server.config.nats_port),), "headcount", server.config.password)
    async with open_reader(endpoint, Connection(client)) as reader:
        for partition in range(server.config.partitions):
            # a last message that comes out in any case
            last = await client.jetstream().publish(TICK_SUBJECT.format(partition=partition), b"")
            await reader.follow(partition, 0)
            seq = 0
            while seq < last.seq:
                for delivery in await reader.read():
                    seq = delivery.seq[-1]
                    for subject, payload in zip(delivery.subjects, delivery.payloads, strict=True):
                        if payload.isdigit():
                            stored.setdefault(subject.decode().rsplit(".", 1)[1], []).append(int(payload))
            await reader.leave(partition)
    await client.close()
    return stored


async def test_a_full_buffer_drops_the_oldest() -> None:
    """Without a broker the buffer keeps the newest messages and counts the dropped ones, and the end does not wait."""

    async def scenario() -> SendStats:
        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))
            nobody = BrokerAddress("127.0.0.1", reserved.getsockname()[1])
            async with open_fleet(nobody, "ul", DEVICES[:1]) as fleet:
                for number in range(BUFFER + 5):
                    fleet.put(0, f"{number}".encode())
                assert fleet.sent.dropped == 5
                assert fleet.connections[0]._buffer[0][1] == b"5"
                await until(lambda: fleet.sent.broken > 0)
            return fleet.sent

    started = time.monotonic()
    sent = await scenario()
    assert (sent.sent, sent.dropped, sent.waiting) == (0, BUFFER + 5, 0)
    assert time.monotonic() - started < BUSY_S


async def test_the_site_of_the_running_system(tmp_path: Path) -> None:
    """`find_site` returns the published site and its speed; no, several or an invalid site is an error."""
    async with open_broker(tmp_path) as server:
        with pytest.raises(BrokerError, match="publishes no site"):
            await find_site(at(server), timeout_s=0.3)
        await announce(server, at_speed(small_site(), 60).geojson)
        running = await find_site(at(server))
        assert (running.site.id, running.speed) == ("s", 60.0)
        assert running.site.hold_s == (15.0, 5.0)
        await announce(server, small_site().geojson, "other")
        with pytest.raises(BrokerError, match="other"):
            await find_site(at(server))
        assert (await find_site(at(server), "other")).speed == 1.0
        await announce(server, b"no json", "broken")
        with pytest.raises(SiteError, match="broken"):
            await find_site(at(server), "broken")
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        with pytest.raises(BrokerError, match="headcount up"):
            await find_site(BrokerAddress("127.0.0.1", reserved.getsockname()[1]))


async def test_a_crowd_matches_its_ground_truth(tmp_path: Path) -> None:
    """Every fix of a run is in the log with the clock's time, and near its true position."""

    async def scenario() -> tuple[list[tuple[str, bytes]], SendStats]:
        async with open_broker(tmp_path) as server, received(server) as messages:
            await announce(server, at_speed(small_site(), 20).geojson)
            run = CrowdRun(at(server), people=150, vehicles=50, duration_s=4.0, truth=tmp_path / "truth.csv")
            sent = await run_crowd(run, asyncio.Event(), nothing)
            await until(lambda: sum(not s.endswith("status") for s, _ in messages) >= sent.sent)
            return messages, sent

    before = time.time()
    messages, sent = await scenario()
    after = time.time()
    fixes = [(s.split(".")[2], FIX.decode(d)) for s, d in messages if not s.endswith(".status")]
    assert (len(fixes), sent.dropped) == (sent.sent, 0)
    assert len(fixes) > 50
    with (tmp_path / "truth.csv").open() as file:
        truth = {(row["device"], float(row["t"])): row for row in csv.DictReader(file)}
    site = small_site()
    for device, fix in fixes:
        t = time_of(fix)
        assert before <= t <= after
        row = truth[device, t]
        away = abs(fix.lat - float(row["lat"])) * 111_000
        assert away < 5 * (fix.acc or 0), device
    zones = Counter(zone for row in truth.values() for zone in row["zones"].split(";"))
    assert zones.keys() <= {zone.id for zone in site.zones} | {""}
    assert zones["b1"] > 0
    assert zones["library"] > 0


async def test_a_different_speed_is_rejected(tmp_path: Path) -> None:
    """`--speed` must be the system's speed, and the error explains how to set it."""
    async with open_broker(tmp_path) as server:
        await announce(server, at_speed(small_site(), 60).geojson)
        with pytest.raises(SettingsError, match="--speed 10"):
            await run_crowd(CrowdRun(at(server), people=1, speed=10), asyncio.Event(), nothing)


async def test_a_recording_is_sent_as_if_live(tmp_path: Path) -> None:
    """Rows are sent in file order with times now + (t - t0) / speed; broken ones are skipped."""
    trace = tmp_path / "x.csv"
    rows = ["1000,a,person,50.001,0.001", "1010,b,vehicle,50.002,0.002", "oops", "1005,a,person,50.003,0.003"]
    rows += ["1020,a,person,50.004,0.004"]
    trace.write_text("t,device,kind,lat,lon\n" + "\n".join(rows) + "\n")

    async def scenario() -> list[tuple[str, bytes]]:
        async with open_broker(tmp_path) as server, received(server) as messages:
            await announce(server, small_site().geojson)
            end = await run_trace(TraceRun(trace, broker=at(server), speed=20), asyncio.Event(), nothing)
            assert (end.sent.sent, end.rows, end.broken, end.system_speed) == (4, 5, 1, 1.0)
            await until(lambda: sum(not s.endswith("status") for s, _ in messages) == 4)
            return messages

    before = time.time()
    messages = await scenario()
    fixes = [(s, FIX.decode(d)) for s, d in messages if not s.endswith(".status")]
    times = [time_of(fix) for _, fix in fixes]
    start = times[0]
    assert before <= start <= time.time()
    mine = [round(t - start, 2) for (s, _), t in zip(fixes, times, strict=True) if s == "s.person.a"]
    assert mine == [0.0, 0.25, 1.0]
    assert sorted(round(t - start, 2) for t in times) == [0.0, 0.25, 0.5, 1.0]


async def test_mosquitto_sub_receives_the_status(tmp_path: Path) -> None:
    """Another program receives the fleet's messages; devices receive only their own topics."""
    if shutil.which("mosquitto_sub") is None:
        pytest.skip("mosquitto_sub is not installed")

    async def scenario() -> bytes:
        async with open_broker(tmp_path) as server:
            reader = await asyncio.create_subprocess_exec(
                *(
                    "mosquitto_sub",
                    "-h",
                    "127.0.0.1",
                    "-p",
                    str(server.config.mqtt_port),
                    "-C",
                    "1",
                    "-W",
                    "150",
                ),
                *("-u", "headcount", "-P", server.config.password, "-t", "fix/+/ul/person/p1"),
                stdout=asyncio.subprocess.PIPE,
            )
            async with open_fleet(at(server), "ul", DEVICES[:1]) as fleet:

                def received() -> bool:  # once its subscription is there
                    fleet.put(0, encode_fix(5.5, 1, 2))
                    return reader.returncode is not None

                await until(received, "mosquitto_sub receives a message", every_s=0.05)
            out, _ = await reader.communicate()
            return out

    assert json.loads(await scenario()) == {
        "_type": "location",
        "tst": 5,
        "t": 5.5,
        "lat": 1,
        "lon": 2,
    }


def test_help_shows_the_examples_line_by_line() -> None:
    """`--help` of both commands has its examples on lines of their own."""
    for command, example in (
        ("simulate", "headcount simulate"),
        ("publish", "headcount publish walk.ndjson"),
    ):
        text = CliRunner().invoke(main, [command, "--help"]).output
        assert any(line.strip().startswith(example) for line in text.splitlines())
        assert "\\b" not in text


def test_the_commands_run(tmp_path: Path) -> None:
    """`headcount simulate` and `publish` run against a broker; their errors are one line and exit code 2."""
    trace = tmp_path / "x.ndjson"
    trace.write_text('{"t":1,"device":"a","kind":"person","lat":50.001,"lon":0.001}\nbroken\n')
    with running_broker(tmp_path / "data") as server:
        in_thread(announce(server, small_site().geojson))
        where = ["--port", str(server.config.mqtt_port)]
        run = CliRunner().invoke(
            main, ["simulate", *where, "--people", "20", "--duration", "1s", "--start", "10:00"]
        )
        assert run.exit_code == 0, run.output
        assert "fixes sent" in run.output
        run = CliRunner().invoke(main, ["publish", str(trace), *where, "--quiet", "--speed", "2"])
        assert run.exit_code == 0, run.output
        assert "row 2" in run.output
        assert "1 of 2 rows" in run.output
        assert "speed" in run.output
        assert "1 fixes sent" in run.output
        run = CliRunner().invoke(main, ["simulate", *where, "--speed", "9"])
        assert (run.exit_code, "--speed" in run.output) == (2, True)
        run = CliRunner().invoke(main, ["publish", str(tmp_path / "none.csv"), *where])
        assert (run.exit_code, "none.csv" in run.output) == (2, True)
        run = CliRunner().invoke(main, ["simulate", *where, "--start", "25:00"])
        assert (run.exit_code, "25:00" in run.output) == (2, True)
