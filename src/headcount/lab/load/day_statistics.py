"""The statistics of a day, as numbers and as text. Pure."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from headcount.lab.load.day_bench import DayPlan, DayRun
from headcount.lab.load.day_profile import HOURS, DayProfile
from headcount.lab.load.system_monitor import SystemSample, spread
from headcount.services.cost import DayUsage, FleetUsage

#: Brokers have settled if their number has not changed for this time and none drains.
SETTLED_S = 10.0
#: Time around a change of the number of brokers or workers that counts as scaling.
SCALING_S = 5.0
#: Minimum number of connections per broker for a meaningful spread.
MIN_CONNECTIONS = 20
#: Roles that scale with the load.
ELASTIC = ("broker", "count")
HOURS_PER_LINE = 2


class UnitChange(NamedTuple):
    """A change of the number of units of a role."""

    at_s: float
    role: str
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class DayStatistics:
    """The statistics of one run; times in seconds."""

    fixes: int
    peak_per_s: float
    max_connected: int
    brokers: tuple[int, int]
    workers: tuple[int, int]
    turns: tuple[int, int]  # times the number of brokers grew and shrank
    worker_turns: tuple[int, int]
    spread: float  # max / mean of settled brokers, p95
    variation: float  # coefficient of variation, p95
    p50_s: float
    p99_s: float
    scaling_p99_s: float  # around changes of the number of units
    max_lag: int
    cpu_s: float  # of brokers and workers
    total_cpu_s: float  # of all parts
    unit_s: float  # running time of brokers and workers
    acknowledged: int
    lost: int
    wrong: int
    compared: int
    resent: int
    disconnects: int
    dropped: int
    ack_p50_s: float
    ack_p99_s: float


def day_statistics(run: DayRun, plan: DayPlan) -> DayStatistics:
    """Compute the statistics of a run."""
    day = [sample for sample in run.samples if sample.at_s <= plan.seconds]
    moves = changes(run.samples)
    settled = [
        spread(sample.brokers.values())
        for sample in settled_samples(day, moves)
        if sum(sample.brokers.values()) >= MIN_CONNECTIONS * len(sample.brokers)
    ]
    delays = [delay for _, delay in run.delays]
    during = [delay for at_s, delay in run.delays if is_scaling(at_s, moves)]
    ack_p50_s, ack_p99_s = run.ack_percentiles_s
    found = run.verification.comparison
    return DayStatistics(
        fixes=sum(report.created for report in run.senders),
        peak_per_s=max(rates(day, [sample.offered for sample in day]), default=0.0),
        max_connected=max((sample.connected for sample in day), default=0),
        brokers=_range(len(sample.brokers) for sample in day),
        workers=_range(sample.workers for sample in day),
        turns=turns([move for move in moves if move.role == "broker"]),
        worker_turns=turns([move for move in moves if move.role == "count"]),
        spread=percentile([ratio for ratio, _ in settled], 0.95),
        variation=percentile([variation for _, variation in settled], 0.95),
        p50_s=percentile(delays, 0.5),
        p99_s=percentile(delays, 0.99),
        scaling_p99_s=percentile(during, 0.99),
        max_lag=max((sample.lag for sample in day), default=0),
        cpu_s=used_cpu_s(day, ELASTIC),
        total_cpu_s=used_cpu_s(day, None),
        unit_s=sum(
            (len(before.brokers) + before.workers) * (after.at_s - before.at_s)
            for before, after in itertools.pairwise(day)
        ),
        acknowledged=run.verification.acknowledged,
        lost=len(run.verification.lost),
        wrong=found.different,
        compared=found.counts + found.events + found.rows + found.recorded,
        resent=sum(report.resent for report in run.senders),
        disconnects=sum(report.disconnects for report in run.senders),
        dropped=sum(report.dropped + report.abandoned for report in run.senders),
        ack_p50_s=ack_p50_s,
        ack_p99_s=ack_p99_s,
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which a share of the values lies; NaN without values."""
    if not values:
        return math.nan
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def rates(samples: Sequence[SystemSample], totals: Sequence[int], over: int = 3) -> list[float]:
    """Growth per second of a counter at each sample, over the last `over` samples."""
    found = []
    for index, sample in enumerate(samples):
        first = max(0, index - over)
        seconds = sample.at_s - samples[first].at_s
        found.append((totals[index] - totals[first]) / seconds if seconds > 0 else 0.0)
    return found


def changes(samples: Sequence[SystemSample]) -> list[UnitChange]:
    """The changes of the number of brokers and workers."""
    found = []
    for before, after in itertools.pairwise(samples):
        for role, was, now in (
            ("broker", len(before.brokers), len(after.brokers)),
            ("count", before.workers, after.workers),
        ):
            if was != now and was:
                found.append(UnitChange(after.at_s, role, was, now))
    return found


def turns(moves: Sequence[UnitChange]) -> tuple[int, int]:
    """Number of times a number grew and shrank; consecutive changes in one direction count once."""
    directions = [move.after > move.before for move in moves]
    starts = [
        direction
        for index, direction in enumerate(directions)
        if index == 0 or direction != directions[index - 1]
    ]
    return starts.count(True), starts.count(False)


def is_scaling(at_s: float, moves: Sequence[UnitChange]) -> bool:
    """Whether the number of units changes around a time."""
    return any(move.at_s - SCALING_S <= at_s <= move.at_s + SCALING_S for move in moves)


def settled_samples(samples: Sequence[SystemSample], moves: Sequence[UnitChange]) -> list[SystemSample]:
    """The samples with more than one broker whose number has not changed recently."""
    at_s = [move.at_s for move in moves if move.role == "broker"]
    return [
        sample
        for sample in samples
        if len(sample.brokers) > 1
        and not sample.draining
        and not any(when <= sample.at_s < when + SETTLED_S for when in at_s)
    ]


def used_cpu_s(samples: Sequence[SystemSample], roles: Sequence[str] | None) -> float:
    """CPU seconds of these roles, or of all, between the first and the last sample."""
    if not samples:
        return 0.0

    def total(sample: SystemSample) -> float:
        return sum(used.cpu_s for role, used in sample.usage.items() if roles is None or role in roles)

    return total(samples[-1]) - total(samples[0])


def _range(values: Iterable[int]) -> tuple[int, int]:
    found = list(values)
    return (min(found), max(found)) if found else (0, 0)


def day_usage(plan: DayPlan, elastic: DayStatistics, fixed: DayStatistics | None) -> DayUsage:
    """The usage of both fleets, for `headcount cost`."""

    def usage(of: DayStatistics) -> FleetUsage:
        return FleetUsage(of.fixes, of.total_cpu_s, of.unit_s)

    return DayUsage(elastic.max_connected, plan.seconds, usage(elastic), usage(fixed) if fixed else None)


# --- as text -------------------------------------------------------------------------------------
def by_hour(run: DayRun, plan: DayPlan) -> str:
    """A table of the day with a line for every two hours."""
    day, hours = DayProfile(plan.seconds), [sample for sample in run.samples if sample.at_s <= plan.seconds]
    offered = rates(hours, [sample.offered for sample in hours])
    counted = rates(hours, [sample.counted for sample in hours])
    lines = [
        " hour  devices  fixes/s  counted/s  brokers  workers  max/mean    lag  p50 ms  p99 ms",
    ]
    for hour in range(0, int(HOURS), HOURS_PER_LINE):
        inside = [
            index
            for index, sample in enumerate(hours)
            if hour <= day.hour(sample.at_s) < hour + HOURS_PER_LINE
        ]
        if not inside:
            continue
        samples = [hours[index] for index in inside]
        delays = [
            delay * 1000 for at_s, delay in run.delays if hour <= day.hour(at_s) < hour + HOURS_PER_LINE
        ]
        lines.append(
            f"{hour:02d}-{hour + HOURS_PER_LINE:02d}"
            f"{_mean(sample.connected for sample in samples):>10,.0f}"
            f"{_mean(offered[index] for index in inside):>9,.0f}"
            f"{_mean(counted[index] for index in inside):>11,.0f}"
            f"{_between(len(sample.brokers) for sample in samples):>9}"
            f"{_between(sample.workers for sample in samples):>9}"
            f"{_mean(spread(sample.brokers.values())[0] for sample in samples):>10.2f}"
            f"{max(sample.lag for sample in samples):>7,}"
            f"{percentile(delays, 0.5):>8.0f}{percentile(delays, 0.99):>8.0f}"
        )
    return "\n".join(lines)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return statistics.fmean(found) if found else 0.0


def _between(values: Iterable[int]) -> str:
    low, high = _range(values)
    return f"{low}" if low == high else f"{low}-{high}"


def compare_fleets(elastic: DayStatistics, fixed: DayStatistics | None) -> str:
    """A table of both fleets."""
    rows: list[tuple[str, str, str]] = []

    def row(name: str, format_: str, value: str) -> None:
        """Add a field with its format."""
        one, other = (
            "" if statistics_ is None else _formatted(getattr(statistics_, value), format_)
            for statistics_ in (elastic, fixed)
        )
        rows.append((name, one, other))

    def pair(name: str, value: str, joint: str) -> None:
        one, other = (
            "" if statistics_ is None else joint.join(map(str, getattr(statistics_, value)))
            for statistics_ in (elastic, fixed)
        )
        rows.append((name, one, other))

    row("fixes sent", ",", "fixes")
    row("fixes/s at the peak", ",.0f", "peak_per_s")
    row("devices at the peak", ",", "max_connected")
    pair("brokers", "brokers", " to ")
    pair("workers", "workers", " to ")
    pair("brokers scaled up, down (times)", "turns", ", ")
    pair("workers scaled up, down (times)", "worker_turns", ", ")
    row("connections per broker, max/mean, p95 settled", ".2f", "spread")
    row("connections per broker, coefficient of variation", ".2f", "variation")
    row("publish -> count p50, s", ".3f", "p50_s")
    row("publish -> count p99, s", ".3f", "p99_s")
    row("publish -> count p99 while scaling, s", ".3f", "scaling_p99_s")
    row("publish -> PUBACK p50, s", ".3f", "ack_p50_s")
    row("publish -> PUBACK p99, s", ".3f", "ack_p99_s")
    row("maximum number of messages waiting in the log", ",", "max_lag")
    row("connections moved or lost", ",", "disconnects")
    row("QoS 1 sent again", ",", "resent")
    row("QoS 0 not sent, device not connected", ",", "dropped")
    row("QoS 1 acknowledged", ",", "acknowledged")
    row("  of them lost", ",", "lost")
    row("counts, events and rows compared with the rules", ",", "compared")
    row("  of them wrong", ",", "wrong")
    row("CPU seconds, brokers and workers", ",.1f", "cpu_s")
    row("CPU seconds, all parts", ",.1f", "total_cpu_s")
    row("unit-seconds, brokers and workers", ",.0f", "unit_s")
    width = max(len(name) for name, _, _ in rows)
    lines = [f"{'':<{width}}{'elastic':>14}{'fixed' if fixed else '':>14}".rstrip()]
    lines += [f"{name:<{width}}{one:>14}{other:>14}".rstrip() for name, one, other in rows]
    if fixed is not None:
        lines.append(
            f"elastic / fixed: CPU seconds {_ratio(elastic.cpu_s, fixed.cpu_s)}, "
            f"all parts {_ratio(elastic.total_cpu_s, fixed.total_cpu_s)}, "
            f"unit-seconds {_ratio(elastic.unit_s, fixed.unit_s)}"
        )
    return "\n".join(lines)


def _formatted(value: float, format_: str) -> str:
    return "-" if math.isnan(value) else format(value, format_)


def _ratio(one: float, other: float) -> str:
    return f"{one / other:.2f}" if other else "unknown"


def per_thousand(run: DayRun, plan: DayPlan) -> str:
    """Cost of 1 000 connected devices by part of the system, over the busiest fifth of the day."""
    day = [sample for sample in run.samples if sample.at_s <= plan.seconds]
    if len(day) < 2:
        return ""
    busy_from = percentile([sample.connected for sample in day], 0.8)
    cpu: dict[str, float] = {}
    memory: dict[str, int] = {}
    device_s = fixes = 0.0
    for before, after in itertools.pairwise(day):
        if before.connected < busy_from:
            continue
        device_s += before.connected * (after.at_s - before.at_s)
        fixes += after.offered - before.offered
        for role, used in after.usage.items():
            was = before.usage.get(role)
            cpu[role] = cpu.get(role, 0.0) + used.cpu_s - (was.cpu_s if was else 0.0)
            if used.processes:
                each = used.memory // _units(role, after)
                memory[role] = max(memory.get(role, 0), each)
    if not device_s:
        return ""
    lines = [
        f"a device sends {fixes / device_s:.2f} fixes/s",
        f"{'part':<12}{'cores per 1 000 devices':>25}{'cores per 1 000 fixes/s':>25}{'MiB per unit':>14}",
    ]
    lines += [
        f"{role:<12}{cpu[role] / device_s * 1000:>25.4f}{cpu[role] / max(fixes, 1) * 1000:>25.4f}"
        f"{memory.get(role, 0) / 2**20:>14.0f}"
        for role in sorted(cpu, key=lambda name: -cpu[name])
    ]
    stored = run.verification.stored
    if stored.fixes:
        lines.append(
            f"a fix takes {stored.log_bytes / stored.fixes:.0f} bytes in the log, "
            f"{stored.history_bytes / stored.fixes:.0f} in the history"
        )
    return "\n".join(lines)


def _units(role: str, sample: SystemSample) -> int:
    return max(1, {"broker": len(sample.brokers), "count": sample.workers}.get(role, 1))
