"""What a day's run comes to: numbers, and the same as text. Pure."""

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

#: Brokers have settled when their number hasn't changed for so long and none drains.
SETTLED_S = 10.0
#: Scaling is going on for so long after the number of brokers or workers has changed.
SCALING_S = 5.0
#: Below so many connections a broker the spread says nothing.
FEW = 20
#: Parts that follow the load; all others are there once.
ELASTIC = ("broker", "count")
HOURS_SHOWN = 2


class UnitChange(NamedTuple):
    """The number of units of a role changed."""

    at_s: float
    role: str
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class DayStatistics:
    """The numbers of one run; times in seconds."""

    fixes: int
    peak_per_s: float
    most_connected: int
    brokers: tuple[int, int]
    workers: tuple[int, int]
    turns: tuple[int, int]  # how often the brokers grew and shrank, runs of changes in one direction
    worker_turns: tuple[int, int]
    spread: float  # max / mean of settled brokers, 95 % of the time at most
    variation: float  # coefficient of variation, likewise
    p50_s: float
    p99_s: float
    scaling_p99_s: float  # while and shortly after the number of units changed
    most_lag: int
    cpu_s: float  # of brokers and workers over the day
    whole_cpu_s: float  # of the whole system
    unit_s: float  # seconds of brokers and workers
    acknowledged: int
    lost: int
    wrong: int
    compared: int
    again: int
    broken: int
    dropped: int
    ack_p50_s: float
    ack_p99_s: float


def day_statistics(run: DayRun, plan: DayPlan) -> DayStatistics:
    """The numbers of a run."""
    day = [sample for sample in run.samples if sample.at_s <= plan.seconds]
    moves = changes(run.samples)
    settled = [
        spread(sample.brokers.values())
        for sample in settled_samples(day, moves)
        if sum(sample.brokers.values()) >= FEW * len(sample.brokers)
    ]
    delays = [delay for _, delay in run.delays]
    during = [delay for at_s, delay in run.delays if is_scaling(at_s, moves)]
    ack_p50_s, ack_p99_s = run.acked_s
    found = run.verification.comparison
    return DayStatistics(
        fixes=sum(said.said for said in run.senders),
        peak_per_s=max(rates(day, [sample.offered for sample in day]), default=0.0),
        most_connected=max((sample.connected for sample in day), default=0),
        brokers=_range(len(sample.brokers) for sample in day),
        workers=_range(sample.workers for sample in day),
        turns=turns([move for move in moves if move.role == "broker"]),
        worker_turns=turns([move for move in moves if move.role == "count"]),
        spread=percentile([ratio for ratio, _ in settled], 0.95),
        variation=percentile([variation for _, variation in settled], 0.95),
        p50_s=percentile(delays, 0.5),
        p99_s=percentile(delays, 0.99),
        scaling_p99_s=percentile(during, 0.99),
        most_lag=max((sample.lag for sample in day), default=0),
        cpu_s=used_cpu_s(day, ELASTIC),
        whole_cpu_s=used_cpu_s(day, None),
        unit_s=sum(
            (len(before.brokers) + before.workers) * (after.at_s - before.at_s)
            for before, after in itertools.pairwise(day)
        ),
        acknowledged=run.verification.acknowledged,
        lost=len(run.verification.lost),
        wrong=found.different,
        compared=found.counts + found.events + found.rows + found.recorded,
        again=sum(said.again for said in run.senders),
        broken=sum(said.broken for said in run.senders),
        dropped=sum(said.dropped + said.left for said in run.senders),
        ack_p50_s=ack_p50_s,
        ack_p99_s=ack_p99_s,
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share of them lies; NaN of nothing."""
    if not values:
        return math.nan
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def rates(samples: Sequence[SystemSample], totals: Sequence[int], over: int = 3) -> list[float]:
    """What grew by how much a second, over so many samples, for each sample."""
    found = []
    for index, sample in enumerate(samples):
        first = max(0, index - over)
        seconds = sample.at_s - samples[first].at_s
        found.append((totals[index] - totals[first]) / seconds if seconds > 0 else 0.0)
    return found


def changes(samples: Sequence[SystemSample]) -> list[UnitChange]:
    """When the number of brokers and of workers changed."""
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
    """How often it grew and shrank: changes in one direction after each other are one."""
    ways = [move.after > move.before for move in moves]
    begins = [way for index, way in enumerate(ways) if index == 0 or way != ways[index - 1]]
    return begins.count(True), begins.count(False)


def is_scaling(at_s: float, moves: Sequence[UnitChange]) -> bool:
    """Whether the number of units changes about then."""
    return any(move.at_s - SCALING_S <= at_s <= move.at_s + SCALING_S for move in moves)


def settled_samples(samples: Sequence[SystemSample], moves: Sequence[UnitChange]) -> list[SystemSample]:
    """The seconds in which more than one broker is there, and no other number was for a while."""
    at_s = [move.at_s for move in moves if move.role == "broker"]
    return [
        sample
        for sample in samples
        if len(sample.brokers) > 1
        and not sample.draining
        and not any(when <= sample.at_s < when + SETTLED_S for when in at_s)
    ]


def used_cpu_s(samples: Sequence[SystemSample], roles: Sequence[str] | None) -> float:
    """Processor seconds of these roles, or of all, between the first and the last sample."""
    if not samples:
        return 0.0

    def total(sample: SystemSample) -> float:
        return sum(used.cpu_s for role, used in sample.usage.items() if roles is None or role in roles)

    return total(samples[-1]) - total(samples[0])


def _range(values: Iterable[int]) -> tuple[int, int]:
    found = list(values)
    return (min(found), max(found)) if found else (0, 0)


# --- as text -------------------------------------------------------------------------------------
def by_hour(run: DayRun, plan: DayPlan) -> str:
    """The day, a line for every other hour."""
    day, hours = DayProfile(plan.seconds), [sample for sample in run.samples if sample.at_s <= plan.seconds]
    offered = rates(hours, [sample.offered for sample in hours])
    counted = rates(hours, [sample.counted for sample in hours])
    lines = [
        " hour  devices  fixes/s  counted/s  brokers  workers  max/mean    lag  p50 ms  p99 ms",
    ]
    for hour in range(0, int(HOURS), HOURS_SHOWN):
        inside = [
            index for index, sample in enumerate(hours) if hour <= day.hour(sample.at_s) < hour + HOURS_SHOWN
        ]
        if not inside:
            continue
        samples = [hours[index] for index in inside]
        delays = [delay * 1000 for at_s, delay in run.delays if hour <= day.hour(at_s) < hour + HOURS_SHOWN]
        lines.append(
            f"{hour:02d}-{hour + HOURS_SHOWN:02d}"
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
    least, most = _range(values)
    return f"{least}" if least == most else f"{least}-{most}"


def compared(elastic: DayStatistics, fixed: DayStatistics | None) -> str:
    """Both fleets side by side."""
    rows: list[tuple[str, str, str]] = []

    def row(name: str, show: str, value: str) -> None:
        """`value` names the field, `show` is its format."""
        one, other = (
            "" if figures is None else _shown(getattr(figures, value), show) for figures in (elastic, fixed)
        )
        rows.append((name, one, other))

    def pair(name: str, value: str, joint: str) -> None:
        one, other = (
            "" if figures is None else joint.join(map(str, getattr(figures, value)))
            for figures in (elastic, fixed)
        )
        rows.append((name, one, other))

    row("fixes sent", ",", "fixes")
    row("fixes/s at the peak", ",.0f", "peak_per_s")
    row("devices at the peak", ",", "most_connected")
    pair("brokers", "brokers", " to ")
    pair("workers", "workers", " to ")
    pair("brokers grew, shrank (times)", "turns", ", ")
    pair("workers grew, shrank (times)", "worker_turns", ", ")
    row("connections per broker, max/mean, p95 settled", ".2f", "spread")
    row("connections per broker, coefficient of variation", ".2f", "variation")
    row("publish -> count p50, s", ".3f", "p50_s")
    row("publish -> count p99, s", ".3f", "p99_s")
    row("publish -> count p99 while scaling, s", ".3f", "scaling_p99_s")
    row("publish -> PUBACK p50, s", ".3f", "ack_p50_s")
    row("publish -> PUBACK p99, s", ".3f", "ack_p99_s")
    row("most messages waiting in the log", ",", "most_lag")
    row("connections that were moved or broke", ",", "broken")
    row("QoS 1 sent again", ",", "again")
    row("QoS 0 not sent, its device was between brokers", ",", "dropped")
    row("QoS 1 acknowledged", ",", "acknowledged")
    row("  of them lost", ",", "lost")
    row("counts, events and rows compared with the rules", ",", "compared")
    row("  of them wrong", ",", "wrong")
    row("CPU seconds, brokers and workers", ",.1f", "cpu_s")
    row("CPU seconds, whole system", ",.1f", "whole_cpu_s")
    row("unit-seconds, brokers and workers", ",.0f", "unit_s")
    width = max(len(name) for name, _, _ in rows)
    lines = [f"{'':<{width}}{'elastic':>14}{'fixed' if fixed else '':>14}".rstrip()]
    lines += [f"{name:<{width}}{one:>14}{other:>14}".rstrip() for name, one, other in rows]
    if fixed is not None:
        lines.append(
            f"elastic / fixed: CPU seconds {_ratio(elastic.cpu_s, fixed.cpu_s)}, "
            f"whole system {_ratio(elastic.whole_cpu_s, fixed.whole_cpu_s)}, "
            f"unit-seconds {_ratio(elastic.unit_s, fixed.unit_s)}"
        )
    return "\n".join(lines)


def _shown(value: float, show: str) -> str:
    return "-" if math.isnan(value) else format(value, show)


def _ratio(one: float, other: float) -> str:
    return f"{one / other:.2f}" if other else "unknown"


def per_thousand(run: DayRun, plan: DayPlan) -> str:
    """What 1 000 connected devices cost, by part of the system, over the busiest fifth of the day."""
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
        f"{'part':<12}{'cores per 1 000 devices':>25}{'cores per 1 000 fixes/s':>25}{'MiB a unit':>12}",
    ]
    lines += [
        f"{role:<12}{cpu[role] / device_s * 1000:>25.4f}{cpu[role] / max(fixes, 1) * 1000:>25.4f}"
        f"{memory.get(role, 0) / 2**20:>12.0f}"
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
