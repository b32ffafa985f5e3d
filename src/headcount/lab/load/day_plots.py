"""A day as a picture: what was asked of the system, and what it made of itself to carry it. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from headcount.lab.load.day_bench import DayPlan, DayRun
from headcount.lab.load.day_profile import HOURS, DayProfile
from headcount.lab.load.day_statistics import percentile, rates

WIDTH, LEFT, RIGHT, TOP = 1000.0, 64.0, 16.0, 34.0
PANEL, SPACE = 92.0, 44.0
#: Seconds of the day's run that a point of the latencies sums up.
WINDOW_S = 3.0

STYLE = """
svg { background:#fdfdfc; color:#1c2126; } svg text { fill:#1c2126; font:12px system-ui,sans-serif; }
svg .soft { fill:#66707a; } svg .title { font-weight:600; } svg .grid { stroke:#dfe3e6; fill:none; }
svg .c0 { stroke:#3b78c9; } svg .c1 { stroke:#d97a1e; } svg .c2 { stroke:#2c9a63; } svg .c3 { stroke:#8a5fd0; }
svg .c4 { stroke:#159aa6; } svg .c5 { stroke:#cc4a8b; } svg .dash { stroke-dasharray:4 4; }
svg polyline { fill:none; stroke-width:1.6; }
@media (prefers-color-scheme: dark) { svg { background:#14181c; } svg text { fill:#e8ecef; }
  svg .soft { fill:#98a3ad; } svg .grid { stroke:#2c343b; } }
"""
COLOURS = 6


class PlotLine(NamedTuple):
    """A line of a panel; `values` are (seconds, value)."""

    name: str
    values: Sequence[tuple[float, float]]
    steps: bool = False
    dashed: bool = False


def plot_day(elastic: DayRun, fixed: DayRun | None, plan: DayPlan) -> str:
    """The day as SVG that needs nothing beside it; the fixed fleet is drawn dashed."""
    panels = [
        ("devices connected", _devices(elastic)),
        ("fixes a second", _fixes(elastic, plan)),
        ("brokers", _units("brokers", elastic, fixed)),
        ("workers", _units("workers", elastic, fixed)),
        ("connections of each broker", _connections(elastic)),
        ("publish to count, milliseconds", _delays(elastic, plan)),
        ("messages waiting in the log", [PlotLine("lag", [(s.at_s, float(s.lag)) for s in elastic.samples])]),
    ]
    y, parts = TOP, []
    for title, lines in panels:
        parts.append(_panel(title, lines, y, plan.seconds))
        y += PANEL + SPACE
    parts.append(_axis(plan, y - SPACE))
    height = y - SPACE + 40
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:g} {height:g}" role="img" '
        f'aria-label="load, brokers, workers, connections, latency and lag over a day">'
        f"<style>{STYLE}</style>{''.join(parts)}</svg>"
    )


def day_page(svg: str, text: str, seed: int) -> str:
    """Picture and figures as one HTML file."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>headcount: a day, seed {seed}</title><style>body {{ font:15px/1.5 system-ui,sans-serif; "
        "margin:0 auto; max-width:1040px; padding:24px 16px; } pre { overflow-x:auto; } "
        "svg { width:100%; height:auto; }</style></head><body>"
        f"<h1>A day within minutes</h1>{svg}<pre>{escape(text)}</pre></body></html>"
    )


def _devices(run: DayRun) -> list[PlotLine]:
    return [
        PlotLine("connected", [(sample.at_s, float(sample.connected)) for sample in run.samples]),
        PlotLine("want to be", [(sample.at_s, float(sample.wanted)) for sample in run.samples], dashed=True),
    ]


def _fixes(run: DayRun, plan: DayPlan) -> list[PlotLine]:
    samples = [sample for sample in run.samples if sample.at_s <= plan.seconds + 1]
    times = [sample.at_s for sample in samples]
    offered = rates(samples, [sample.offered for sample in samples])
    counted = rates(samples, [sample.counted for sample in samples])
    return [
        PlotLine("sent", list(zip(times, offered, strict=True)), dashed=True),
        PlotLine("counted", list(zip(times, counted, strict=True))),
    ]


def _units(name: str, elastic: DayRun, fixed: DayRun | None) -> list[PlotLine]:
    def values(run: DayRun) -> list[tuple[float, float]]:
        return [
            (sample.at_s, float(len(sample.brokers) if name == "brokers" else sample.workers))
            for sample in run.samples
        ]

    lines = [PlotLine("elastic", values(elastic), steps=True)]
    wanted = [
        (sample.at_s, float(number))
        for sample in elastic.samples
        if (number := sample.wanted_brokers if name == "brokers" else sample.wanted_workers) is not None
    ]
    if wanted:
        lines.append(PlotLine("wanted by the scaler", wanted, steps=True, dashed=True))
    if fixed is not None:
        lines.append(PlotLine("fixed", values(fixed), steps=True, dashed=True))
    return lines


def _connections(run: DayRun) -> list[PlotLine]:
    names = list(dict.fromkeys(name for sample in run.samples for name in sample.brokers))
    return [
        PlotLine(
            name,
            [(sample.at_s, float(sample.brokers[name])) for sample in run.samples if name in sample.brokers],
        )
        for name in names
    ]


def _delays(run: DayRun, plan: DayPlan) -> list[PlotLine]:
    windows: dict[int, list[float]] = {}
    for at_s, delay in run.delays:
        if 0 <= at_s <= plan.seconds:
            windows.setdefault(int(at_s / WINDOW_S), []).append(delay * 1000)
    found = sorted(windows.items())
    return [
        PlotLine("p50", [((index + 0.5) * WINDOW_S, percentile(values, 0.5)) for index, values in found]),
        PlotLine("p99", [((index + 0.5) * WINDOW_S, percentile(values, 0.99)) for index, values in found]),
    ]


def _panel(title: str, lines: Sequence[PlotLine], y: float, seconds: float) -> str:
    most = _round_up(max((value for line in lines for _, value in line.values), default=1))
    parts = [f'<text class="title" x="{LEFT:g}" y="{y - 10:g}">{escape(title)}</text>']
    for at, value in ((y, most), (y + PANEL / 2, most / 2), (y + PANEL, 0.0)):
        parts.append(
            f'<line class="grid" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{at:g}" y2="{at:g}"/>'
            f'<text class="soft" x="{LEFT - 8:g}" y="{at + 4:g}" text-anchor="end">{value:,.4g}</text>'
        )
    x = WIDTH - RIGHT
    for index, line in reversed(list(enumerate(lines))):
        kind = f"c{index % COLOURS}" + (" dash" if line.dashed else "")
        parts.append(f'<polyline class="{kind}" points="{_points(line, y, most, seconds)}"/>')
        x -= 7.0 * len(line.name) + 32
        parts.append(
            f'<line class="{kind}" stroke-width="2.5" x1="{x:g}" x2="{x + 18:g}" y1="{y - 14:g}" y2="{y - 14:g}"/>'
            f'<text class="soft" x="{x + 23:g}" y="{y - 10:g}">{escape(line.name)}</text>'
        )
    return "".join(parts)


def _points(line: PlotLine, y: float, most: float, seconds: float) -> str:
    points: list[str] = []
    before = 0.0
    for at_s, value in line.values:
        if at_s > seconds or math.isnan(value):
            continue
        x = LEFT + at_s / seconds * (WIDTH - LEFT - RIGHT)
        height = y + PANEL * (1 - value / most)
        if line.steps and points:
            points.append(f"{x:.1f},{before:.1f}")
        points.append(f"{x:.1f},{height:.1f}")
        before = height
    return " ".join(points)


def _round_up(value: float) -> float:
    """1, 2, 4, 6 or 10 times a power of ten; at least 2."""
    value = max(value, 2.0)
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 6, 10) if step * power >= value)


def _axis(plan: DayPlan, y: float) -> str:
    day, parts = DayProfile(plan.seconds), []
    for hour in range(0, int(HOURS) + 1, 3):
        x = LEFT + hour / HOURS * (WIDTH - LEFT - RIGHT)
        parts.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{y:g}" y2="{y + 5:g}"/>'
            f'<text class="soft" x="{x:.1f}" y="{y + 19:g}" text-anchor="middle">{hour:02d}</text>'
        )
    text = f"hour of the day, which lasts {day.seconds / 60:g} minutes; seed {plan.seed}"
    return "".join(parts) + f'<text class="soft" x="{LEFT:g}" y="{y + 36:g}">{text}</text>'
