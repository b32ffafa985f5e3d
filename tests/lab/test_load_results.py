"""The results of `headcount bench day`."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headcount.decoders.device_aliases import AliasResolver
from headcount.devices.registry_cache import RegistryCache
from headcount.lab.chaos.comparison import Comparison
from headcount.lab.chaos.independent_reader import LogEntry, LoggedFix, PartitionLog
from headcount.lab.load import day_plots
from headcount.lab.load.balance import ConnectionSpread, table
from headcount.lab.load.day_bench import DayPlan, DayRun
from headcount.lab.load.day_statistics import (
    by_hour,
    changes,
    compare_fleets,
    day_statistics,
    per_thousand,
    percentile,
    settled_samples,
    turns,
)
from headcount.lab.load.process_usage import RoleUsage, UsageMeter, parts, role_of
from headcount.lab.load.scaler_environment import scaler_environment
from headcount.lab.load.sender_process import SenderReport
from headcount.lab.load.system_monitor import SystemSample, spread
from headcount.lab.load.verification import StoredBytes, Verification, lost_fixes
from headcount.runtime.proc import ProcessStat
from headcount.settings.layers import Layers
from waiting import wait_until

PLAN = DayPlan(seed=1, seconds=60.0, devices=100, every_s=1.0, units=3)


def _sample(at_s: float, brokers: dict[str, int], workers: int = 1, draining: str = "") -> SystemSample:
    usage = {
        "broker": RoleUsage(len(brokers), 0.1 * at_s, 40 << 20),
        "count": RoleUsage(workers, 0.2 * at_s, 100 << 20),
        "api": RoleUsage(1, 0.05 * at_s, 90 << 20),
    }
    connected = sum(brokers.values())
    return SystemSample(
        at_s,
        connected,
        connected,
        int(50 * at_s),
        int(50 * at_s),
        3,
        workers,
        brokers,
        frozenset(filter(None, [draining])),
        workers,
        len(brokers),
        usage,
    )


def _day() -> list[SystemSample]:
    """One, two, one, two, one brokers, for twelve seconds each."""
    even, alone = {"b1": 50, "b2": 50}, {"b1": 100}
    return [
        _sample(float(at), even if min(at, 59) // 12 % 2 else alone, 1 + min(at, 59) // 12 % 2)
        for at in range(61)
    ]


def _run(samples: list[SystemSample]) -> DayRun:
    said = SenderReport(60.0, 0, 0, 3000, 3010, 1200, 10, 0, 2, 7, 0, 100, 0, [5, 90, 5], done=True)
    delays = [(float(at), 0.05 if at % 10 else 0.4) for at in range(60)]
    verification = Verification(Comparison(), 1200, [], StoredBytes(3000, 375_000, 36_000))
    return DayRun("elastic", samples, delays, 0, [said], verification, [])


@given(st.lists(st.integers(0, 1000), max_size=9))
def test_spread_is_at_least_one(connections: list[int]) -> None:
    """The maximum is at least the mean, and an even distribution has no variation."""
    ratio, variation = spread(connections)
    assert ratio >= 1 - 1e-9
    assert variation >= 0
    if len(set(connections)) == 1:
        assert (round(ratio, 9), variation) == (1, 0)


def test_growing_twice_is_counted_as_twice() -> None:
    """Consecutive changes in one direction count once."""
    moves = changes(_day())
    assert turns([move for move in moves if move.role == "broker"]) == (2, 2)
    assert turns([move for move in moves if move.role == "count"]) == (2, 2)


def test_only_settled_seconds_count_for_the_spread() -> None:
    """Samples after a change of the number of brokers and during a drain are excluded."""
    samples = [*_day(), _sample(61.0, {"b1": 90, "b2": 10}, draining="b2")]
    settled = [sample.at_s for sample in settled_samples(samples, changes(samples))]
    assert settled == [22.0, 23.0, 46.0, 47.0]


def test_the_figures_of_a_run() -> None:
    """CPU seconds, unit-seconds, latencies and counters match the samples."""
    found = day_statistics(_run(_day()), PLAN)
    assert (found.brokers, found.workers, found.turns) == ((1, 2), (1, 2), (2, 2))
    assert found.cpu_s == pytest.approx(0.3 * 60)
    assert found.total_cpu_s == pytest.approx(0.35 * 60)
    assert found.unit_s == pytest.approx(2 * 36 + 4 * 24)
    assert (found.p50_s, found.p99_s, found.spread) == (0.05, 0.4, 1.0)
    assert found.peak_per_s == pytest.approx(50)
    assert (found.ack_p50_s, found.ack_p99_s) == (0.01, 0.015)
    assert (found.disconnects, found.resent, found.dropped, found.lost) == (7, 10, 2, 0)


def test_a_run_without_samples_has_figures_too() -> None:
    """A run without samples gives zeros and unknown values, no error."""
    run = DayRun("fixed", [], [], 0, [], Verification(Comparison(), 0, [], StoredBytes(0, 0, 0)), [])
    found = day_statistics(run, PLAN)
    assert found.cpu_s == found.unit_s == 0
    assert math.isnan(found.p99_s)
    assert "CPU seconds" in compare_fleets(found, found)
    assert per_thousand(run, PLAN) == ""
    ET.fromstring(day_plots.plot_day(run, None, PLAN))  # noqa: S314 - our own


def test_the_text_states_the_saving() -> None:
    """The table has both fleets and the ratio of their resources."""
    one = day_statistics(_run(_day()), PLAN)
    text = compare_fleets(one, one)
    assert "elastic / fixed: CPU seconds 1.00" in text
    assert "  of them lost" in text
    hours = by_hour(_run(_day()), PLAN).splitlines()
    assert [line[:5] for line in hours[1:3]] == ["00-02", "02-04"]
    assert len(hours) == 13
    costs = per_thousand(_run(_day()), PLAN)
    assert "count" in costs
    assert "125 bytes in the log, 12 in the history" in costs


def test_the_figure_is_valid_and_has_every_broker() -> None:
    """The figure is XML with a line for each broker."""
    run = _run(_day())
    svg = day_plots.plot_day(run, run, PLAN)
    root = ET.fromstring(svg)  # noqa: S314 - our own
    texts = ["".join(element.itertext()).strip() for element in root.iter() if element.tag.endswith("text")]
    assert {"b1", "b2", "fixed", "elastic"} <= set(texts)
    assert "<pre>figures &lt;</pre>" in day_plots.day_page(svg, "figures <", 1)


@given(st.lists(st.floats(0, 10), min_size=1), st.floats(0, 1))
def test_a_percentile_is_one_of_the_values(values: list[float], share: float) -> None:
    """A percentile is never interpolated."""
    assert percentile(values, share) in values


def test_what_is_acknowledged_and_not_in_the_log_is_lost() -> None:
    """Kind, device and event time identify a fix."""
    rows = [LogEntry(5.0, 0, 1, "person", "p", None, LoggedFix(4.25, 1.0, 2.0), 0)]
    acknowledged = {("person", "p", 4250), ("vehicle", "p", 4250), ("person", "p", 4251)}
    assert lost_fixes(
        acknowledged, [PartitionLog(0.0, rows, 0)], AliasResolver("a secret for tests", RegistryCache(), "ul")
    ) == [
        ("person", "p", 4251),
        ("vehicle", "p", 4250),
    ]


def test_the_scaler_gets_settings_that_it_takes() -> None:
    """The settings of both fleets are valid, and the fixed one can't scale."""
    for fixed in (True, False):
        environment = scaler_environment("process", 3, 3000, 2500.0, 300.0, fixed=fixed)
        settings = Layers(variables=environment).load().scale
        assert (settings.min_brokers == settings.max_brokers) is fixed
        assert settings.max_workers == 3
        assert settings.worker_capacity is not None
        assert 2 < 2500 / settings.worker_capacity < 3


# --- usage of processes -------------------------------------------------------------------------------
def test_a_role_is_read_off_the_command_line() -> None:
    """`headcount run ROLE` is that role, and its child processes belong to it."""
    assert role_of(("python", "-m", "headcount", "run", "count")) == "count"
    assert role_of(("/x/bin/python", "/x/bin/headcount", "run", "broker", "--name", "b")) == "broker"
    assert role_of(("nats-server", "-c", "headcount/broker.conf")) is None
    parents = {1: 0, 2: 1, 3: 2, 4: 0, 5: 1}
    processes = {
        pid: ProcessStat(pid, parent, pid, 1.0, 0.0, 1, zombie=False) for pid, parent in parents.items()
    }
    commands = {
        1: ("python", "-m", "headcount", "up"),
        2: ("python", "-m", "headcount", "run", "broker"),
        3: ("nats-server",),
        4: ("python", "-m", "headcount", "run", "count"),
        5: ("/x/bin/nats-server", "-c", "core.conf"),
    }
    found = {process.pid: part for process, part in parts(processes, [1], commands.__getitem__)}
    assert found == {1: "up", 2: "broker", 3: "broker", 5: "core"}


def test_the_time_of_a_process_that_has_ended_is_kept() -> None:
    """CPU time never decreases, even when a unit ends."""
    meter = UsageMeter()
    code = "import time\nwhile time.process_time() < 0.2: pass\ntime.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code]) as child:
        try:
            wait_until(lambda: meter.read([child.pid])["other"].cpu_s >= 0.1, "it uses CPU time")
            used = meter.read([child.pid])["other"]
            assert used.memory > 1 << 20
        finally:
            child.kill()
    after = meter.read([os.getpid()])["other"]
    assert after.cpu_s >= used.cpu_s


def test_the_table_of_the_balances_has_all_moments() -> None:
    """The table has a line per step, with the ratio of the maximum to the mean."""
    text = table(
        [
            ConnectionSpread("leastconn", "2 brokers", (50, 50), 0),
            ConnectionSpread("source", "3rd came", (0, 30, 60), 4),
        ]
    )
    assert "1.00" in text.splitlines()[1]
    assert "2.00" in text.splitlines()[2]
