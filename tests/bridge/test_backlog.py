"""A backlog of ten minutes at a real Kafka and Redis, with brokers and bridges killed: each fix counts once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Producer

from kafka_fixture import running_kafka
from redis_fixture import running_redis
from system.running import UL, Up, environment
from system.senders import spot
from waiting import wait_until

pytestmark = [pytest.mark.doors, pytest.mark.slow]

BACKLOG_S = 600
#: The zones in which the devices are at the end, and how many of them.
PEOPLE = {"glucksman-library": 60, "pess-building": 40}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A running system."""
    with Up(tmp_path_factory.mktemp("up")) as running:
        yield running


class BridgeProcess:
    """`headcount run bridge` beside a running system."""

    def __init__(self, up: Up, log: Path, *arguments: str) -> None:
        """Start it, with its output in `log`."""
        self.log = log
        command = [sys.executable, "-m", "headcount", "run", "bridge", "--open", *arguments]
        command += ["--site", str(UL), "--data", str(up.data), "--nats-port", str(up.ports["nats"])]
        with log.open("wb") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output, env=environment())

    def kill(self) -> None:
        """Kill it without a clean end."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Stop it as a supervisor does."""
        self._process.terminate()
        assert self._process.wait(30) == 0


@contextmanager
def starting_bridges(up: Up, folder: Path, *arguments: str) -> Iterator[Callable[[], BridgeProcess]]:
    """A function that starts a bridge with these arguments; all are killed at the end."""
    running: list[BridgeProcess] = []

    def start() -> BridgeProcess:
        log = folder / f"bridge{len(running)}.log"
        running.append(BridgeProcess(up, log, *arguments, "--bridge-name", "backlog"))
        return running[-1]

    try:
        yield start
    except BaseException:
        for bridge in running:
            print(bridge.log.read_text()[-2000:])
        raise
    finally:
        for bridge in running:
            bridge.kill()


def backlog(prefix: str, every_s: int) -> Iterator[tuple[str, bytes]]:
    """Topics and payloads of the last ten minutes, a fix of each device every `every_s`."""
    zones = [zone for zone, devices in PEOPLE.items() for _ in range(devices)]
    places = {zone: spot(zone) for zone in PEOPLE}
    start_s = int(time.time()) - BACKLOG_S
    for second in range(0, BACKLOG_S, every_s):
        for number, zone in enumerate(zones):
            lat, lon = places[zone]
            fix = {"t": start_s + second, "lat": lat, "lon": lon + second % 5 * 1e-6, "acc": 5}
            yield f"headcount/ul/person/{prefix}{number}/fix", json.dumps(fix).encode()


def accepted(up: Up) -> float:
    """The number of fixes that counted."""
    return up.metric("headcount_fixes_total", verdict="accepted")


def people(up: Up) -> dict[str, int]:
    """People in the zones."""
    counts = up.counts()
    return {zone: counts[zone][0] for zone in PEOPLE}


def check_counted_once(up: Up, before: float, people_before: dict[str, int], sent: int) -> None:
    """Each fix of the backlog is accepted once, in order, and its devices are in their zones."""
    wait_until(lambda: accepted(up) - before >= sent, f"{sent} fixes are accepted")
    wait_until(
        lambda: people(up) == {zone: people_before[zone] + number for zone, number in PEOPLE.items()},
        "the counts",
    )
    assert accepted(up) - before == sent
    again = {v: up.metric("headcount_fixes_total", verdict=v) for v in ("duplicate", "out_of_order", "late")}
    print(f"{sent} fixes accepted; delivered again: {again}")


def test_kafka(up: Up, tmp_path: Path) -> None:
    """The broker of two bridges is killed, then one of them before it can commit: each fix counts once."""
    before, people_before = accepted(up), people(up)
    with running_kafka(tmp_path / "kafka") as kafka:
        kafka.create_topic("fixes", partitions=6)
        producer = Producer({"bootstrap.servers": kafka.address, "linger.ms": 20, "log_level": 0})
        records = list(backlog("k", 1))
        for topic, payload in records:
            producer.produce("fixes", payload, topic)
            producer.poll(0)
        assert producer.flush(60) == 0
        with starting_bridges(up, tmp_path, "--from", f"kafka://{kafka.address}/fixes") as start:
            two = start(), start()
            wait_until(lambda: accepted(up) > before, "the first fixes")
            kafka.kill()
            uncommitted = wait_until(
                lambda: [each for each in two if "cannot commit" in each.log.read_text()],
                "fixes that are stored and not committed",
            )
            uncommitted[0].kill()
            kafka.start()
            third = start()
            check_counted_once(up, before, people_before, len(records))
            third.stop()


def test_redis(up: Up, tmp_path: Path) -> None:
    """The active bridge is killed and the other takes over, then the server is killed: each fix counts once."""
    before, people_before = accepted(up), people(up)
    with running_redis(tmp_path / "redis") as redis:
        records = list(backlog("r", 2))
        for place in range(0, len(records), 5000):
            pipeline = redis.client().pipeline(transaction=False)
            for topic, payload in records[place : place + 5000]:
                pipeline.xadd("fixes", {"topic": topic, "payload": payload})
            pipeline.execute()
        with starting_bridges(up, tmp_path, "--from", redis.url, "--topics", "fixes") as start:
            first = start()
            wait_until(lambda: accepted(up) - before > len(records) / 5, "the first fixes")
            second = start()
            first.kill()
            wait_until(lambda: accepted(up) - before > len(records) / 2, "half of the fixes")
            redis.kill()
            redis.start()
            check_counted_once(up, before, people_before, len(records))
            second.stop()
        pending = redis.client().xpending("fixes", "backlog")
        assert pending is not None
        assert pending["pending"] == 0
