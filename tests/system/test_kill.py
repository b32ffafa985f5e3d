"""Killing anything at any moment changes no count that the log explains."""

from __future__ import annotations

import random
import signal
import time
from contextlib import suppress
from pathlib import Path
from random import SystemRandom

import httpx
import pytest

from system.feeding import LONGEST_HOLD_S, SITE_ID, Feeder, Walkers, campus, write_campus
from system.judging import (
    Expected,
    Listener,
    compare_events,
    compare_totals,
    day_keys,
    missing_rows,
    read_events,
    read_log,
    recorded_counts,
)
from system.running import Up
from waiting import wait_until

PARTITIONS = 4
KILLS = 8
VICTIMS = ("count", "count", "history", "adapters", "api", "broker", "broker", "up")


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path) -> None:
    """After kills (-9) and pauses of all parts, every count, event and row of the history is the oracle's."""
    seed = SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    site = write_campus(tmp_path)
    with Up(tmp_path, site, site_id=SITE_ID, partitions=PARTITIONS) as up:
        with (
            Listener(up, len(campus()["features"])) as listener,
            Feeder(up.mqtt_port, Walkers(seed, 200), per_s=120) as feeder,
        ):
            for victim in rng.sample(VICTIMS, KILLS):
                time.sleep(rng.uniform(1.0, 4.5))  # a random moment
                harm(up, victim, rng)
            time.sleep(3)  # messages after the last kill
            feeder.end()
            wait_until(up.is_ready, "ready again", every_s=0.2)
            time.sleep(LONGEST_HOLD_S)  # counts fall by time alone
            wait_until(lambda: everybody_gone(up), "everybody leaves", every_s=0.3)
            time.sleep(2)  # more totals, of an empty site
        log, reports = read_log(up), listener.reports
        print(f"{feeder.sent} messages sent, {len(log)} in the log; {len(reports.complete())} totals")
        print(f"{reports.repeated} reports repeated, epochs {sorted(reports.epochs)}")
        assert len(log) > feeder.sent / 3

        last = Expected(campus(), log, SITE_ID, PARTITIONS)
        last.advance(log[-1].received + 60)
        wait_until(
            lambda: len(read_events(up)) >= len(last.oracle.events), "all events are stored", every_s=1
        )
        compare_events(last, read_events(up), day_keys(up))
        expected = Expected(campus(), log, SITE_ID, PARTITIONS)
        write_history(up, last)
        recorded = recorded_counts(up.data)
        found = compare_totals(expected, reports, recorded)
        for at, numbers in recorded.items():
            assert numbers == found[at], f"counts of the history at {at}"


def harm(up: Up, victim: str, rng: random.Random) -> None:
    """Kill a part, or pause it for some seconds."""
    began_s = time.monotonic()
    if victim == "up":
        up.kill9()
        wait_until(lambda: not up.left(), "all parts end when `up` is killed")
        gone_s = time.monotonic() - began_s
        print(f"killed up; all gone after {gone_s:.1f} s, started again in {up.start():.1f} s")
    elif rng.random() < 0.3:
        pause_s = rng.uniform(1.0, 4.5)
        pid = up.signal(victim, signal.SIGSTOP)
        time.sleep(pause_s)  # the pause is the fault
        up.signal(victim, signal.SIGCONT)
        print(f"paused {victim} ({pid}) for {pause_s:.1f} s")
    else:
        print(f"killed {victim} ({up.kill9(victim)})")


def everybody_gone(up: Up) -> bool:
    """Whether the API is ready and all its counts are 0."""
    with suppress(httpx.TransportError):
        return up.is_ready() and not any(map(any, up.counts().values()))
    return False


def write_history(up: Up, expected: Expected) -> None:
    """Stop, which writes the history; on a machine too busy for that, the next start and stop do."""
    for attempt in range(3):
        print(f"stopped in {up.stop():.1f} s")
        missing = missing_rows(expected, up.data)
        if not missing:
            return
        print(f"{missing} rows of the history aren't written yet (stop {attempt + 1})")
        up.start()
        time.sleep(3)  # the writer reads what it has missed
    message = f"{missing} rows of the history are missing after three stops"
    raise AssertionError(message)
