"""Metrics: reports of workers are summed, sums never fall, and Prometheus can read them."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

import history_batches
from api_fixture import PARTITIONS, Api, open_api, site_with
from headcount.api.live_sites import LiveSites
from headcount.api.metric_families import MAX_WORKERS, MonotonicSums
from headcount.api.metrics import WORKER_TIMEOUT_S, Metrics
from headcount.counting.disclosure import grid_before
from headcount.counting.site_versions import Sites, only
from headcount.history.catalog import Catalog
from headcount.history.damage import set_aside
from headcount.history.hours import folder
from headcount.history.objects import FolderStore
from waiting import BUSY_S, until

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(text: str) -> Samples:
    """Everything that Prometheus reads: (name, labels) → value."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    """One sample."""
    return found[name, tuple(sorted(labels.items()))]


class Worker:
    """The metrics of an API that receives reports only, with a manual clock."""

    def __init__(self) -> None:
        """Start at nothing."""
        self.now = 0.0
        self.metrics = Metrics(LiveSites(Sites([only(site_with(1))]), 2), clock=lambda: self.now)

    def report(self, worker: str = "w1", **report: Any) -> None:
        """A counting worker's report."""
        self.metrics.take(f"metrics.count.{worker}", json.dumps({"worker": worker, **report}).encode())

    def read(self) -> Samples:
        """The samples that Prometheus would scrape now."""
        return samples(generate_latest(self.metrics.registry).decode())


def latency(counts: list[int], total: float) -> dict[str, Any]:
    """A histogram as workers report it."""
    return {"le": [0.01, 0.1, 1.0], "counts": counts, "sum": total, "count": counts[-1] + 1}


def test_reports_of_workers_are_summed() -> None:
    """Counters, rates, lags and histograms of two workers are added."""
    it = Worker()
    it.report(
        "w1",
        verdicts={"person": {"accepted": 5, "late": 1}},
        lag=3,
        fixes_per_s=10,
        latency=latency([1, 2, 3], 2.5),
    )
    it.report("w2", verdicts={"person": {"accepted": 7}, "unknown": {"malformed": 2}}, lag=4, fixes_per_s=0.5)
    more = {"person": {"accepted": 8}, "unknown": {"malformed": 2}}
    it.report("w2", verdicts=more, lag=1, fixes_per_s=0.5, latency=latency([1, 1, 1], 0.5))
    found = it.read()
    assert value(found, "headcount_fixes_total", kind="person", verdict="accepted") == 13
    assert value(found, "headcount_fixes_total", kind="unknown", verdict="malformed") == 2
    assert value(found, "headcount_log_lag_messages") == 4
    assert value(found, "headcount_fixes_per_second") == 10.5
    assert value(found, "headcount_fix_latency_seconds_bucket", le="0.1") == 3
    assert value(found, "headcount_fix_latency_seconds_bucket", le="+Inf") == 6
    assert value(found, "headcount_fix_latency_seconds_count") == 6
    assert value(found, "headcount_fix_latency_seconds_sum") == 3.0


def test_silent_workers_are_forgotten_but_not_their_work() -> None:
    """A minute after a worker's last report, its lag and rate are dropped; its counters remain."""
    it = Worker()
    it.report("w1", verdicts={"person": {"accepted": 5}}, lag=3, fixes_per_s=10)
    it.now += WORKER_TIMEOUT_S + 1
    found = it.read()
    assert value(found, "headcount_log_lag_messages") == 0
    assert value(found, "headcount_fixes_total", kind="person", verdict="accepted") == 5
    it.report("w1", verdicts={"person": {"accepted": 6}}, lag=2)
    found = it.read()
    assert value(found, "headcount_log_lag_messages") == 2
    assert value(found, "headcount_fixes_total", kind="person", verdict="accepted") == 6


def test_reports_of_history_writers_are_summed() -> None:
    """Rows and flushes are added, the lag is that of the writers that still report."""
    it = Worker()

    def report(writer: str, **numbers: Any) -> None:
        body = {"writer": writer, **numbers}
        it.metrics.take(f"metrics.history.{writer}", json.dumps(body).encode())

    report("h1", rows={"fixes": 5, "events": 2, "other": 9}, flushes={"stored": 1, "overtaken": 1}, lag=3)
    it.now += WORKER_TIMEOUT_S + 1
    report("h2", rows={"fixes": 7}, flushes={"stored": 2}, refused=1, lag=4, segments=12)
    found = it.read()
    assert value(found, "headcount_history_rows_total", dataset="fixes") == 12
    assert value(found, "headcount_history_rows_total", dataset="events") == 2
    assert value(found, "headcount_history_flushes_total", result="stored") == 3
    assert value(found, "headcount_history_flushes_total", result="overtaken") == 1
    assert value(found, "headcount_history_refused_messages_total") == 1
    assert value(found, "headcount_history_lag_messages") == 4
    assert value(found, "headcount_history_writers") == 1
    assert value(found, "headcount_history_segments") == 12
    assert not [name for name, labels in found if ("dataset", "other") in labels]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 50)), max_size=40))
def test_sums_never_fall(reports: list[tuple[str, int]]) -> None:
    """For any reports, also after restarts, a sum grows by what each added since its last report."""
    sums, last, expected = MonotonicSums(), dict.fromkeys("abc", 0), 0
    for worker, n in reports:
        expected += n - last[worker] if n >= last[worker] else n
        last[worker] = n
        sums.take(worker, {("x",): float(n)})
        assert sums.totals["x",] == expected


def test_memory_is_bounded() -> None:
    """However many workers' names there are, no more than a limit of them are kept."""
    it = Worker()
    for n in range(MAX_WORKERS + 50):
        it.report(f"w{n}", verdicts={"person": {"accepted": 1}}, lag=1)
    assert value(it.read(), "headcount_log_lag_messages") == MAX_WORKERS
    assert len(it.metrics._fixes._last) == MAX_WORKERS


@pytest.mark.parametrize(
    "payload",
    [
        b"rubbish",
        b"[]",
        b"{}",
        b'{"worker":1}',
        b'{"worker":"w","lag":"x"}',
        b'{"worker":"w","latency":{"le":[1],"counts":[],"sum":0,"count":0}}',
        b'{"worker":"w","latency":{"le":["x"],"counts":[1],"sum":0,"count":0}}',
    ],
)
def test_rubbish_is_counted(payload: bytes) -> None:
    """A message that is not a report changes only the count of rejected messages."""
    it = Worker()
    it.metrics.take("metrics.count.w", payload)
    assert value(it.read(), "headcount_rejected_messages_total", type="report") == 1


def test_unknown_labels_make_no_series() -> None:
    """Verdicts and kinds that there aren't make no time series."""
    it = Worker()
    it.report(verdicts={"dog": {"accepted": 1}, "person": {"lovely": 1}})
    assert not [name for name, _ in it.read() if name == "headcount_fixes_total"]


async def test_metrics_of_a_running_api(tmp_path: Path) -> None:
    """/metrics has devices present, freshness, the broker's connections, adapters and requests."""
    async with open_api(tmp_path) as api:
        await api.count({"site": (5, 2), "library": (3, 0)})
        await api.nats.publish(
            "metrics.adapters.a1",
            json.dumps(
                {
                    "worker": "a1",
                    "translated": {"owntracks": 4},
                    "rejected": {"iotp": {"no_id": 1}},
                    "running": {"ttn": True},
                }
            ).encode(),
        )
        await api.nats.flush()
        await until(lambda: has(api, "headcount_adapter_translated_messages_total"))
        assert (await api.get("/v1/nothing/at/all")).status_code == 404
        answer = await api.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        found = samples(answer.text)
        assert value(found, "headcount_devices_present", site="ul", kind="person") == 5
        assert value(found, "headcount_devices_present", site="ul", kind="vehicle") == 2
        assert value(found, "headcount_adapter_translated_messages_total", format="owntracks") == 4
        assert value(found, "headcount_adapter_rejected_messages_total", format="iotp", reason="no_id") == 1
        assert value(found, "headcount_adapter_decoders_running", format="ttn") == 1
        assert value(found, "headcount_partitions") == 2
        assert value(found, "headcount_counts_age_seconds", site="ul") >= 0
        route = "/v1/sites/{site}/counts"
        labels = {"method": "GET", "route": route, "status": "200"}
        assert value(found, "headcount_http_requests_total", **labels) >= 1
        assert value(found, "headcount_http_request_duration_seconds_count", route=route) >= 1
        routes = {dict(labels).get("route") for _, labels in found}
        assert not [each for each in routes if each and "nothing" in each]


async def has(api: Api, name: str) -> bool:
    """Whether a metric has a sample."""
    return any(found == name for found, _ in samples((await api.get("/metrics")).text))


def scaling_state(at: float, *decisions: tuple[float, int, int], dry: bool = False) -> bytes:
    """A report of the scaler, with decisions (at, before, after)."""
    target = {"role": "count", "wanted": 3, "actual": 2, "min_units": 1, "max_units": 8}
    made = [
        {"at": when, "role": "count", "before": before, "after": after, "reason": "why", "dry": dry}
        for when, before, after in decisions
    ]
    state = {"name": "s", "at": at, "driver": "none", "dry_run": dry, "targets": [target]}
    return json.dumps({**state, "signals": {"lag": 5.0, "unknown": None}, "decisions": made}).encode()


def test_the_state_of_the_scaler_is_published() -> None:
    """Targets and signals are exported, each decision is counted once, old reports are dropped."""
    worker = Worker()
    worker.metrics.take("metrics.scale.s", scaling_state(1.0, (0.5, 1, 2)))
    worker.metrics.take("metrics.scale.s", scaling_state(3.0, (0.5, 1, 2), (2.0, 2, 3)))
    worker.metrics.take("metrics.scale.s", scaling_state(5.0, (0.5, 1, 2), (2.0, 2, 3), (4.0, 3, 2)))
    found = worker.read()
    assert value(found, "headcount_scaling_desired_units", role="count") == 3
    assert value(found, "headcount_scaling_max_units", role="count") == 8
    assert value(found, "headcount_scaling_signal", signal="lag") == 5
    assert ("headcount_scaling_signal", (("signal", "unknown"),)) not in found
    assert value(found, "headcount_scaling_decisions_total", role="count", direction="up") == 1
    assert value(found, "headcount_scaling_decisions_total", role="count", direction="down") == 1
    worker.now += 16
    assert ("headcount_scaling_desired_units", (("role", "count"),)) not in worker.read()


async def test_scaling_is_served(tmp_path: Path) -> None:
    """GET /v1/system/scaling is 404 `no-scaler` until a scaler reports, then its last report."""
    async with open_api(tmp_path) as api:
        answer = await api.get("/v1/system/scaling")
        assert answer.status_code == 404
        assert answer.json()["type"] == "/problems/no-scaler"
        await api.nats.publish("metrics.scale.s", scaling_state(1764000000.0, (1764000000.0, 2, 3)))

        async def served() -> bool:
            return (await api.get("/v1/system/scaling")).status_code == 200

        await until(served)
        body = await api.json("/v1/system/scaling")
        assert body["targets"] == [{"role": "count", "wanted": 3, "actual": 2, "least": 1, "most": 8}]
        assert body["decisions"][0]["at"] == "2025-11-24T16:00:00.000Z"
        assert body["decisions"][0]["reason"] == "why"
        assert body["signals"] == {"lag": 5.0, "unknown": None}
        assert 0 <= body["age_s"] < BUSY_S


async def test_zones_have_their_public_counts(tmp_path: Path) -> None:
    """A zone's metric is its public count; a hidden count has no sample, and capacities are those of the site."""
    async with open_api(tmp_path, zones=2, smallest_shown=5) as api:
        at_s = grid_before(time.time())
        for partition in range(PARTITIONS):
            numbers = {"site": (43, 7), "library": (12, 3)} if partition == 0 else {}
            await api.publish(partition, at_s, api.values(numbers))
        _, token = await api.services.token_store.add("prometheus", "viewer", scopes=["system:read"])

        async def zones() -> Samples:
            answer = await api.get("/metrics", headers={"authorization": f"Bearer {token}"})
            found = samples(answer.text) if answer.status_code == 200 else {}
            return {key: n for key, n in found.items() if key[0] == "headcount_public_counts"}

        await until(zones)
        found = await zones()
        assert value(found, "headcount_public_counts", site="ul", zone="site", kind="person") in {40, 45}
        assert value(found, "headcount_public_counts", site="ul", zone="library", kind="person") in {10, 15}
        assert all(number >= 5 for number in found.values())
        assert not any(("zone", "library") in labels and ("kind", "vehicle") in labels for _, labels in found)


async def test_damaged_segments_are_counted(tmp_path: Path) -> None:
    """A segment that a query cannot read, and one that is set aside, are in the metric; other answers work."""
    async with open_api(tmp_path, open=True) as api:
        data, now_s = api.settings.data, time.time()
        for n in range(3):
            rows = history_batches.random_rows(
                random.Random(n), 10, start=(now_s - 1500) // 60 * 60, span_s=30
            )
            history_batches.write(data, history_batches.batch(n, rows, partitions=3))
        first, second, _ = history_batches.segment_files(data, "fixes")
        history_batches.damage_pages(first)
        set_aside(Catalog(FolderStore(folder(data))), second.relative_to(folder(data)).as_posix(), "x", now_s)

        async def metric() -> float:
            return value(samples((await api.get("/metrics")).text), "headcount_history_damaged_segments")

        assert await metric() == 1
        answer = await api.get("/v1/sites/ul/fixes?bbox=-9,52,-8,53")
        assert answer.status_code == 200, answer.text
        assert await metric() == 2
