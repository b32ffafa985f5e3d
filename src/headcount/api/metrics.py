"""Prometheus metrics of all workers, the adapters, the autoscaler and the API itself.

Workers and adapters report absolute numbers. A counter here is the sum of what each of them added since its first
report; one whose numbers fall has started again from zero. So a counter never falls, whatever workers do, and a
report that is lost or arrives twice changes nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric

from headcount.api.adapter_metrics import AdapterMetrics
from headcount.api.http_metrics import HttpMetrics
from headcount.api.live_sites import LiveSites
from headcount.api.metric_families import MAX_WORKERS, Key, MonotonicSums, counter, gauge, histogram
from headcount.errors import LogError
from headcount.messages.counts import COUNT_FIELDS
from headcount.messages.fixes import VERDICTS
from headcount.messages.reports import (
    AdapterReport,
    BridgeReport,
    HistoryReport,
    LatencyHistogram,
    RefusalReport,
    WorkerReport,
)
from headcount.messages.topics import KINDS
from headcount.messages.units import ScalingState
from headcount.messaging.connection import Endpoint, connected_once

#: A worker without a report for longer no longer contributes to lag and rate.
WORKER_TIMEOUT_S = 60.0
#: An autoscaler without a report for longer is gone; by default it reports every two seconds.
SCALER_TIMEOUT_S = 15.0
#: A bridge without a report for longer is gone.
BRIDGE_TIMEOUT_S = 5.0
MAX_SIGNALS = 64
MAX_FORMATS = 32
MAX_REFUSALS = 64
_ANSWER_S = 1
_KINDS = (*KINDS, "unknown")

_worker_report = msgspec.json.Decoder(WorkerReport)
_adapter_report = msgspec.json.Decoder(AdapterReport)
_bridge_report = msgspec.json.Decoder(BridgeReport)
_history_report = msgspec.json.Decoder(HistoryReport)
_refusal_report = msgspec.json.Decoder(RefusalReport)
_scaling_state = msgspec.json.Decoder(ScalingState)
_DATASETS = {"fixes", "counts", "events"}
_FLUSHES = {"stored", "overtaken"}

_log = logging.getLogger(__name__)


class _ServerLoad(msgspec.Struct):
    connections: int


class _ServerResponse(msgspec.Struct):
    data: _ServerLoad


class Metrics:
    """Collect reports and the API's own numbers, and export them for Prometheus."""

    def __init__(self, live: LiveSites, clock: Callable[[], float] = time.monotonic) -> None:
        """Collect from now on; `live` has the counts of all sites, `clock` returns seconds."""
        self.registry = CollectorRegistry(auto_describe=False)
        self.rejected = 0  # messages that are not reports
        self.broker_connections: int | None = None  # as last read
        self.damaged_segments: int | None = None  # as last read
        self._live = live
        self._clock = clock
        self._fixes = MonotonicSums()
        self._latency = MonotonicSums()
        self._adapters = AdapterMetrics(clock)
        self._bridged = MonotonicSums()
        self._bridges: dict[str, tuple[float, BridgeReport]] = {}
        self._refusals = MonotonicSums()
        self._history = MonotonicSums()
        self._reports: dict[str, tuple[float, WorkerReport]] = {}
        self._writers: dict[str, tuple[float, HistoryReport]] = {}
        self._scaling: tuple[float, ScalingState] | None = None
        self._decided: dict[Key, float] = {}
        self.http = HttpMetrics(self.registry)
        self.registry.register(self)

    def take(self, subject: str, payload: bytes) -> None:
        """Take a report; anything else is counted in `rejected`."""
        try:
            if subject.startswith("metrics.count."):
                self._take_count(_worker_report.decode(payload))
            elif subject.startswith("metrics.adapters."):
                self._adapters.take(_adapter_report.decode(payload))
            elif subject.startswith("metrics.bridge."):
                self._take_bridge(_bridge_report.decode(payload))
            elif subject.startswith("metrics.history."):
                self._take_history(_history_report.decode(payload))
            elif subject.startswith("metrics.refusals."):
                self._take_refusals(_refusal_report.decode(payload))
            elif subject.startswith("metrics.scale."):
                self._take_scaling(_scaling_state.decode(payload))
        except (msgspec.DecodeError, ValueError) as error:
            self.rejected += 1
            _log.debug("%s: not a report: %s", subject, error)

    def scaling(self) -> tuple[ScalingState, float] | None:
        """Return the autoscaler's last report and its age in seconds; None if there is no recent one."""
        if self._scaling is None or (age_s := self._clock() - self._scaling[0]) > SCALER_TIMEOUT_S:
            return None
        return self._scaling[1], age_s

    def collect(self) -> Iterator[Metric]:
        """Yield everything but the API's own requests, for the Prometheus library."""
        yield from self._collect_workers()
        yield from self._collect_counts()
        yield from self._collect_zones()
        yield from self._collect_scaling()
        yield from self._collect_history()
        yield from self._collect_bridges()
        yield counter(
            "headcount_rejected_messages",
            "Internal messages that the API could not decode.",
            ("type",),
            {("counts",): float(self._live.rejected), ("report",): float(self.rejected)},
        )

    def _take_count(self, report: WorkerReport) -> None:
        self._fixes.take(
            report.worker,
            {
                (verdict, kind): n
                for kind, verdicts in report.verdicts.items()
                for verdict, n in verdicts.items()
                if kind in _KINDS and verdict in VERDICTS
            },
        )
        if report.latency is not None:
            self._latency.take(report.worker, _buckets(report.latency))
        self._reports.pop(report.worker, None)
        self._reports[report.worker] = (self._clock(), report)
        self._drop_old_reports()

    def _take_history(self, report: HistoryReport) -> None:
        numbers: dict[Key, float] = {
            ("rows", name): n for name, n in report.rows.items() if name in _DATASETS
        }
        numbers |= {("flushes", name): n for name, n in report.flushes.items() if name in _FLUSHES}
        numbers[("refused",)] = report.refused
        self._history.take(report.writer, numbers)
        self._writers.pop(report.writer, None)
        self._writers[report.writer] = (self._clock(), report)
        while len(self._writers) > MAX_WORKERS:
            del self._writers[next(iter(self._writers))]

    def _take_refusals(self, report: RefusalReport) -> None:
        numbers = sorted(report.counts.items())[:MAX_REFUSALS]
        self._refusals.take(report.server, {(*name[:64].partition(".")[::2],): n for name, n in numbers})

    def _take_bridge(self, report: BridgeReport) -> None:
        numbers: dict[Key, float] = {("copied", name[:64]): n for name, n in report.copied.items()}
        numbers |= {("ignored", name[:64]): n for name, n in sorted(report.ignored.items())[:MAX_FORMATS]}
        self._bridged.take(report.process, numbers)
        now = self._clock()
        recent = {key: each for key, each in self._bridges.items() if now - each[0] <= WORKER_TIMEOUT_S}
        self._bridges = {**dict(list(recent.items())[-MAX_WORKERS:]), report.process: (now, report)}

    def _collect_bridges(self) -> Iterator[Metric]:
        now = self._clock()
        bridges = [report for at, report in self._bridges.values() if now - at <= BRIDGE_TIMEOUT_S]
        for name, text, number in (
            ("bridges", "Bridges, the active and those that wait.", len(bridges)),
            ("bridge_active", "Bridges that copy.", sum(each.active for each in bridges)),
            (
                "bridge_connected",
                "Bridges that are connected to their source.",
                sum(each.connected for each in bridges),
            ),
        ):
            yield gauge(f"headcount_{name}", text, number)
        for what, label in (("copied", "to"), ("ignored", "reason")):
            values = {key[1:]: n for key, n in self._bridged.totals.items() if key[0] == what}
            text = f"Messages of other brokers that were {what}."
            yield counter(f"headcount_bridge_{what}_messages", text, (label,), values)

    def _take_scaling(self, state: ScalingState) -> None:
        """Store the state, and count its new decisions."""
        if self._scaling is not None:
            newest = max((decision.at for decision in self._scaling[1].decisions), default=0.0)
            for decision in state.decisions:
                if decision.at > newest and not decision.dry:
                    key = (decision.role, "up" if decision.after > decision.before else "down")
                    self._decided[key] = self._decided.get(key, 0.0) + 1.0
        self._scaling = self._clock(), state

    def _drop_old_reports(self) -> None:
        now = self._clock()
        old = [w for w, (received, _) in self._reports.items() if now - received > WORKER_TIMEOUT_S]
        for worker in old:
            del self._reports[worker]
        while len(self._reports) > MAX_WORKERS:
            del self._reports[next(iter(self._reports))]

    def _collect_history(self) -> Iterator[Metric]:
        now = self._clock()
        reports = [report for at, report in self._writers.values() if now - at <= WORKER_TIMEOUT_S]
        totals = self._history.totals
        for what, label, name, text in (
            ("rows", ("dataset",), "headcount_history_rows", "Rows stored in the history."),
            ("flushes", ("result",), "headcount_history_flushes", "Flushes of history writers."),
            ("refused", (), "headcount_history_refused_messages", "Messages that could not be stored."),
        ):
            yield counter(name, text, label, {key[1:]: n for key, n in totals.items() if key[0] == what})
        lag = sum(report.lag for report in reports)
        yield gauge("headcount_history_lag_messages", "Messages that are not stored yet.", lag)
        yield gauge("headcount_history_writers", "Writers that reported in the last minute.", len(reports))
        segments = reports[-1].segments if reports else None
        yield gauge("headcount_history_segments", "Segments in the manifest.", segments)

    def _collect_workers(self) -> Iterator[Metric]:
        self._drop_old_reports()
        reports = [report for _, report in self._reports.values()]
        yield counter(
            "headcount_fixes", "Fixes by verdict and kind.", ("verdict", "kind"), self._fixes.totals
        )
        yield gauge(
            "headcount_fixes_per_second", "Fixes counted per second.", sum(r.fixes_per_s for r in reports)
        )
        yield gauge(
            "headcount_log_lag_messages",
            "Messages in the log that are not counted yet.",
            sum(r.lag for r in reports),
        )
        yield gauge("headcount_workers", "Counting workers that reported in the last minute.", len(reports))
        yield histogram("headcount_fix_latency_seconds", "Time from receipt to count.", self._latency.totals)
        text = "Publishes, subscriptions and connections of clients that the broker refused."
        yield counter("headcount_refused", text, ("action", "reason"), self._refusals.totals)
        yield from self._adapters.collect()

    def _collect_counts(self) -> Iterator[Metric]:
        yield gauge("headcount_partitions", "Log partitions.", self._live.partitions)
        text = "Partitions with a report in the last 2 s."
        fresh = GaugeMetricFamily("headcount_partitions_fresh", text, labels=("site",))
        age = GaugeMetricFamily("headcount_counts_age_seconds", "Age of the newest total.", labels=("site",))
        devices = GaugeMetricFamily(
            "headcount_devices_present", "Devices on the site.", labels=("site", "kind")
        )
        for served in self._live.current:
            live = served.live
            fresh.add_metric((served.id,), live.partitions - len(live.overdue_partitions()))
            if live.snapshot is not None:
                age.add_metric((served.id,), live.age_s() or 0.0)
                present = live.snapshot.total.values[0, :, COUNT_FIELDS.index("count")].tolist()
                for kind, number in zip(KINDS, present, strict=True):
                    devices.add_metric((served.id, kind), float(number))
        yield from (fresh, age, devices)
        yield gauge("headcount_broker_connections", "Connections to the broker.", self.broker_connections)
        yield gauge(
            "headcount_history_damaged_segments",
            "Segments of the history whose rows are missing in answers.",
            self.damaged_segments,
        )

    def _collect_zones(self) -> Iterator[Metric]:
        """Public counts only: what Prometheus stores is no secret. Hidden counts have no sample."""
        labels = ("site", "zone", "kind")
        counts = GaugeMetricFamily(
            "headcount_public_counts", "Public counts, where they are not hidden.", labels=labels
        )
        capacity = GaugeMetricFamily("headcount_zone_capacity", "Capacity in the site file.", labels=labels)
        for served in self._live.current:
            feed = served.public_feed
            numbers = [] if feed.snapshot is None else feed.snapshot.total.values[:, :, 0].tolist()
            for zone, row in zip(feed.zones, numbers, strict=False):
                for kind, number in zip(KINDS, row, strict=True):
                    if number >= 0:
                        counts.add_metric((served.id, zone, kind), float(number))
            for place in served.site.zones:
                for kind, spaces in zip(KINDS, place.capacity, strict=True):
                    if spaces is not None:
                        capacity.add_metric((served.id, place.id, kind), float(spaces))
        yield from (counts, capacity)

    def _collect_scaling(self) -> Iterator[Metric]:
        report = self.scaling()
        state = None if report is None else report[0]
        gauges = {
            "wanted": ("desired_units", "Desired number of units."),
            "actual": ("actual_units", "Number of units, without those that are being removed."),
            "min_units": ("min_units", "Configured minimum number of units."),
            "max_units": ("max_units", "Configured maximum number of units."),
        }
        for field, (name, text) in gauges.items():
            family = GaugeMetricFamily(f"headcount_scaling_{name}", text, labels=("role",))
            for target in state.targets if state else []:
                family.add_metric((target.role,), float(getattr(target, field)))
            yield family
        signals = GaugeMetricFamily(
            "headcount_scaling_signal", "Signals of the autoscaler.", labels=("signal",)
        )
        for name, value in sorted(state.signals.items())[:MAX_SIGNALS] if state else []:
            if value is not None:
                signals.add_metric((name[:64],), value)
        yield signals
        yield counter(
            "headcount_scaling_decisions",
            "Decisions of the autoscaler.",
            ("role", "direction"),
            self._decided,
        )


async def broker_connections(system: Endpoint | None) -> int | None:
    """The connections of every protocol that a NATS server of the core has; None: no answer within a second."""
    if system is None:
        return None
    try:
        async with connected_once(system, "headcount metrics", connect_timeout_s=_ANSWER_S) as connection:
            answer = await connection.request("$SYS.REQ.SERVER.PING.VARZ", timeout_s=_ANSWER_S)
            return msgspec.json.decode(answer, type=_ServerResponse).data.connections - 1  # without this one
    except (LogError, msgspec.DecodeError):
        return None


def _buckets(latency: LatencyHistogram) -> dict[Key, float]:
    """Return a histogram as counters: its cumulative buckets by bound, its sum, its count."""
    if len(latency.le) != len(latency.counts):
        raise ValueError("`le` and `counts` of the latency have different lengths")
    numbers = {("le", repr(float(le))): n for le, n in zip(latency.le, latency.counts, strict=True)}
    return numbers | {("le", "inf"): latency.count, ("sum",): latency.sum}
