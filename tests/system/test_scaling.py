"""One machine that grows and shrinks: `headcount up --elastic` under a load that rises and falls."""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from random import SystemRandom
from typing import Any

import httpx
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from system.feeding import SITE_ID, Feeder, Walkers, campus, degrees, write_campus
from system.judging import (
    Expected,
    Listener,
    compare_events,
    compare_totals,
    day_keys,
    read_events,
    read_log,
)
from system.running import Up
from system.senders import publish
from waiting import wait_until

PARTITIONS = 4
#: A worker for a hundred fixes a second, a broker for six devices; all windows short.
SCALE = {
    "HEADCOUNT_SCALE_INTERVAL_S": "0.5",
    "HEADCOUNT_SCALE_WORKER_CAPACITY": "100",
    "HEADCOUNT_SCALE_MAX_WORKERS": "3",
    "HEADCOUNT_SCALE_BROKER_CONNECTIONS": "6",
    "HEADCOUNT_SCALE_MAX_BROKERS": "2",
    "HEADCOUNT_SCALE_UP_PERIOD_S": "2",
    "HEADCOUNT_SCALE_DOWN_WINDOW_S": "6",
    "HEADCOUNT_SCALE_DOWN_PERIOD_S": "2",
    "HEADCOUNT_SCALE_COOLDOWN_S": "2",
    "HEADCOUNT_SCALE_LATENCY_S": "0",
    "HEADCOUNT_SCALE_FORECAST": "false",
    # one machine for all tests: CPU only shows how busy the others are
    "HEADCOUNT_SCALE_WORKER_CORES": "100",
    "HEADCOUNT_SCALE_BROKER_CORES": "100",
    "HEADCOUNT_DRAIN_S": "2",
}
QUIET_PER_S, BUSY_PER_S = 40.0, 280.0


def test_grows_and_shrinks_and_counts_exactly(tmp_path: Path) -> None:
    """Rates and connections up: workers and brokers come; down: they go; every count is right, nothing acknowledged is lost."""
    seed = SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    site = write_campus(tmp_path)
    acknowledged: list[str] = []
    with Up(
        tmp_path, site, site_id=SITE_ID, partitions=PARTITIONS, arguments=["--elastic"], variables=SCALE
    ) as up:
        with (
            Listener(up, len(campus()["features"])) as listener,
            Feeder(up.mqtt_port, Walkers(seed, 200), per_s=QUIET_PER_S, connections=3) as feeder,
        ):
            wait_until(lambda: _actual(up) == {"broker": 1, "count": 1}, "one of each")
            feeder.per_s = BUSY_PER_S
            with _idle(up.mqtt_port, 7):
                _probing(up, acknowledged, lambda: _actual(up) == {"broker": 2, "count": 3}, "more")
                wait_until(lambda: _workers_that_count(up) == 3, "three workers count")
            feeder.per_s = QUIET_PER_S
            _probing(up, acknowledged, lambda: _actual(up) == {"broker": 1, "count": 1}, "fewer")
            feeder.end()
            decisions = up.http("/v1/system/scaling")["decisions"]
            wait_until(lambda: _is_empty(up), "everybody leaves", every_s=0.3)
            time.sleep(1)  # more totals, of an empty site
        log, reports = read_log(up), listener.reports
        for decision in decisions:
            print(
                decision["at"],
                decision["role"],
                decision["before"],
                "->",
                decision["after"],
                decision["reason"],
            )
        stored = {row.subject.split(".")[-1] for row in log}
        print(f"{feeder.sent} sent, {len(log)} in the log, {len(acknowledged)} probes acknowledged")
        assert len(acknowledged) > 20
        assert set(acknowledged) <= stored
        expected = Expected(campus(), log, SITE_ID, PARTITIONS)
        expected.advance(log[-1].received + 60)
        wait_until(
            lambda: len(read_events(up)) >= len(expected.oracle.events), "all events are stored", every_s=1
        )
        compare_events(expected, read_events(up), day_keys(up))
        compare_totals(Expected(campus(), log, SITE_ID, PARTITIONS), reports)
        up.stop()
        assert not up.left()


def _scaling(up: Up) -> dict[str, Any]:
    with contextlib.suppress(httpx.TransportError):
        answer = up.get("/v1/system/scaling")
        if answer.status_code == 200:
            found: dict[str, Any] = answer.json()
            return found
    return {"targets": [], "decisions": []}


def _actual(up: Up) -> dict[str, int]:
    return {target["role"]: target["actual"] for target in _scaling(up)["targets"]}


def _workers_that_count(up: Up) -> int:
    return int(_scaling(up)["signals"]["workers_heard"])


def _is_empty(up: Up) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return up.is_ready() and not any(map(any, up.counts().values()))
    return False


def _probing(up: Up, acknowledged: list[str], condition: Any, what: str) -> None:
    """Wait for a condition; meanwhile new devices send a fix each, and those that got a PUBACK are noted."""
    rng = random.Random(len(acknowledged))

    def probe() -> bool:
        name = f"probe-{len(acknowledged)}"
        lat, lon = degrees(rng.uniform(-190, 190), rng.uniform(-140, 140))
        body = {"_type": "location", "tst": int(time.time()), "lat": lat, "lon": lon, "acc": 5}
        topic = f"headcount/{SITE_ID}/person/{name}/fix"
        with contextlib.suppress(OSError, RuntimeError, ValueError):
            if _published(up.mqtt_port, topic, json.dumps(body).encode()):
                acknowledged.append(name)
        return bool(condition())

    wait_until(probe, what, every_s=0.2)


def _published(port: int, topic: str, payload: bytes) -> bool:
    publish(port, topic, payload)
    return True


@contextlib.contextmanager
def _idle(port: int, number: int) -> Iterator[None]:
    """`number` devices that are connected and send nothing."""
    clients = []
    for n in range(number):
        client = paho.Client(CallbackAPIVersion.VERSION2, f"idle-{n}", protocol=paho.MQTTv311)
        client.reconnect_delay_set(1, 2)
        client.connect_async("127.0.0.1", port)
        client.loop_start()
        clients.append(client)
    try:
        yield
    finally:
        for client in clients:
            client.disconnect()
            client.loop_stop()


pytestmark = pytest.mark.slow
