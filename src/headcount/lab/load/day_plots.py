"""A day as a figure: the load, and how the system scales with it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from headcount.lab.load.day_bench import DayPlan, DayRun
from headcount.lab.load.day_profile import HOURS
from headcount.lab.load.day_statistics import percentile, rates
from headcount.lab.plots import COLOURS, as_svg, figure, legend

#: Time over which a point of the latencies is computed.
WINDOW_S = 3.0
PANEL_IN = 1.0


class PlotLine(NamedTuple):
    """A line of a panel; `values` are (seconds, value)."""

    name: str
    values: Sequence[tuple[float, float]]
    steps: bool = False
    dashed: bool = False


def plot_day(elastic: DayRun, fixed: DayRun | None, plan: DayPlan) -> str:
    """The day as SVG; the fixed fleet is dashed."""
    panels = [
        ("devices connected", _devices(elastic)),
        ("fixes per second", _fixes(elastic, plan)),
        ("brokers", _units("brokers", elastic, fixed)),
        ("workers", _units("workers", elastic, fixed)),
        ("connections per broker", _connections(elastic)),
        ("publish to count, ms", _delays(elastic, plan)),
        ("messages waiting in the log", [PlotLine("lag", [(s.at_s, float(s.lag)) for s in elastic.samples])]),
    ]
    with figure([PANEL_IN] * len(panels)) as (drawn, axes):
        for panel, (title, lines) in zip(axes, panels, strict=True):
            panel.set_title(title)
            for index, line in enumerate(lines):
                panel.plot(
                    [at_s / plan.seconds * HOURS for at_s, _ in line.values],
                    [value for _, value in line.values],
                    color=COLOURS[index % len(COLOURS)],
                    drawstyle="steps-post" if line.steps else "default",
                    label=line.name,
                    linestyle="--" if line.dashed else "-",
                    linewidth=1.2,
                )
            panel.set_ylim(bottom=0)
            legend(panel)
        axes[-1].set_xlim(0, HOURS)
        axes[-1].set_xticks(range(0, int(HOURS) + 1, 3))
        axes[-1].set_xlabel(f"hour of the day, which lasts {plan.seconds / 60:g} minutes; seed {plan.seed}")
        return as_svg(drawn, "Load, brokers, workers, connections, latency and lag over a day")


def day_page(svg: str, text: str, seed: int) -> str:
    """Figure and statistics as one HTML file."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>headcount: a day, seed {seed}</title><style>body {{ font:15px/1.5 system-ui,sans-serif; "
        "margin:0 auto; max-width:1040px; padding:24px 16px; } pre { overflow-x:auto; } "
        "svg { width:100%; height:auto; }</style></head><body>"
        f"<h1>A day in minutes</h1>{svg}<pre>{escape(text)}</pre></body></html>"
    )


def _devices(run: DayRun) -> list[PlotLine]:
    return [
        PlotLine("connected", [(sample.at_s, float(sample.connected)) for sample in run.samples]),
        PlotLine("planned", [(sample.at_s, float(sample.wanted)) for sample in run.samples], dashed=True),
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
    targets = [
        (sample.at_s, float(number))
        for sample in elastic.samples
        if (number := sample.wanted_brokers if name == "brokers" else sample.wanted_workers) is not None
    ]
    if targets:
        lines.append(PlotLine("target of the scaler", targets, steps=True, dashed=True))
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
