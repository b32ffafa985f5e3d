"""The result of a chaos test as one HTML file: load, lag, owners of partitions, and what each fault cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from headcount.lab.chaos.experiment import ChaosResult
from headcount.lab.chaos.fault_schedule import describe
from headcount.lab.chaos.recovery import recovery_s
from headcount.lab.chaos.timeline import max_ages, ownership_spans, received_per_second
from headcount.lab.plots import COLOURS, GREY, RED, as_svg, figure, legend

PANEL_IN, ROW_IN = 1.2, 0.22

_STYLE = """
body { color:#1c2126; font:15px/1.5 system-ui,sans-serif; margin:0 auto; max-width:1200px; padding:28px 20px 48px; }
h1 { font-size:24px; margin:0 0 2px; } b { color:#1f7a46; } .bad { color:#cc2b2b; font-weight:700; }
dl { display:flex; flex-wrap:wrap; gap:10px 34px; } dt, th { color:#66707a; font-size:13px; font-weight:400; }
dd { margin:0; font-size:22px; } svg { width:100%; height:auto; }
table { border-collapse:collapse; margin-top:22px; } caption { text-align:left; font-weight:600; }
td, th { padding:4px 22px 4px 0; border-bottom:1px solid #dfe3e6; text-align:left; vertical-align:top; }
dd, td { font-variant-numeric:tabular-nums; }
"""


def report_page(result: ChaosResult) -> str:
    """The HTML of a result; it refers to no other file."""
    found, plan = result.comparison, result.plan
    verdict = "<b>exact</b>" if result.is_exact else '<span class="bad">not exact</span>'
    faults = sum(not one.skipped for one in result.faults)
    numbers = (
        ("fixes", found.fixes),
        ("counts compared", found.counts),
        ("totals compared", found.totals),
        ("events compared", found.events),
        ("history rows compared", found.rows + found.recorded),
        ("QoS 1 acknowledged", found.acknowledged),
    )
    failures = (("acknowledged but lost", len(found.lost)), ("differences", found.different))
    terms = [f"<div><dt>{name}</dt><dd>{number:,}</dd></div>" for name, number in numbers]
    for name, number in failures:
        mark = ' class="bad"' if number else ""
        terms.append(f"<div><dt>{name}</dt><dd{mark}>{number:,}</dd></div>")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>headcount: chaos test, seed {plan.seed}</title><style>{_STYLE}</style></head><body>
<h1>Chaos test: {verdict}</h1>
<p>Seed {plan.seed}, {plan.seconds / 60:.3g} minutes, {result.partitions} partitions, {plan.workers} workers at the start,
{faults} faults. Every count of every tick, every event and every row of the history was compared with a brute-force
program that follows the counting rules.</p>
<dl>{"".join(terms)}</dl>
{plot_result(result)}
{_faults_table(result)}
{_differences_table(result)}
</body></html>
"""


def plot_result(result: ChaosResult) -> str:
    """Load, lag and owners of partitions over time, with the faults, as SVG."""
    seconds = max(1, math.ceil(result.end_s - result.start_s))
    owners = ownership_spans(result.observed.reports, result.owners, result.start_s)
    with figure([PANEL_IN, PANEL_IN, result.partitions * ROW_IN]) as (drawn, (load, lag, owned)):
        for panel, title, values in (
            (
                load,
                "load: messages received per second",
                received_per_second(result.log, result.start_s, seconds),
            ),
            (
                lag,
                "lag: seconds since the newest count of the slowest partition",
                max_ages(result.observed.reports, result.partitions, result.start_s, seconds),
            ),
        ):
            panel.set_title(title, pad=16 if panel is load else None)  # below it: the numbers of the faults
            panel.stairs(values, range(seconds + 1), fill=True, color=COLOURS[0], alpha=0.6)
            panel.set_ylim(bottom=0)
        owned.set_title("publisher of each partition's counts")
        for worker in sorted({span.worker for span in owners}):
            colour = COLOURS[(worker - 1) % len(COLOURS)] if worker else GREY
            label = f"worker {worker}" if worker else "unknown"
            spans = [span for span in owners if span.worker == worker]
            owned.barh(
                [span.partition for span in spans],
                [span.to_s - span.from_s for span in spans],
                left=[span.from_s for span in spans],
                color=colour,
                height=0.75,
                label=label,
            )
        owned.barh(
            [gap.partition for gap in result.gaps],
            [gap.to_s - gap.from_s for gap in result.gaps],
            left=[gap.from_s - result.start_s for gap in result.gaps],
            color=RED,
            height=0.25,
            label="no fresh counts",
        )
        owned.set_yticks(range(result.partitions))
        owned.set_ylim(result.partitions - 0.5, -0.5)
        owned.set_xlabel("seconds since the start; numbers above are faults, see the table")
        owned.set_xlim(0, seconds)
        legend(owned)
        for number, one in enumerate(result.faults, 1):
            from_s, to_s = (min(max(t - result.start_s, 0), seconds) for t in (one.from_s, one.to_s))
            for panel in (load, lag, owned):
                panel.axvline(from_s, color=GREY, linestyle=":", linewidth=1)
                if not one.skipped:
                    panel.axvspan(from_s, to_s, color=GREY, alpha=0.15, linewidth=0)
            load.annotate(
                str(number),
                (from_s, 1),
                xycoords=("data", "axes fraction"),
                ha="center",
                gid=f"fault-{number}",
            )
        return as_svg(drawn, "Load, lag, owners of partitions and faults over time")


def _faults_table(result: ChaosResult) -> str:
    happened = [one for one in result.faults if not one.skipped]
    rows = []
    for number, one in enumerate(result.faults, 1):
        cost = f"skipped: {one.skipped}"
        if not one.skipped:
            after = [other.from_s for other in happened if other.from_s > one.from_s]
            cost_s = recovery_s(one.fault, one.from_s, min(after, default=math.inf), result.gaps)
            cost = f"{cost_s:.1f} s" if cost_s else "none"
        rows.append((str(number), f"{one.from_s - result.start_s:.1f} s", describe(one.fault), cost))
    head = ("", "at", "fault", "recovery")
    return _table("Faults, and the time until all partitions published fresh counts again", head, rows)


def _differences_table(result: ChaosResult) -> str:
    found = result.comparison
    if not found.differences:
        return ""
    rows = [
        (one.what, f"{one.at - result.start_s:.1f} s" if one.at else "", one.text)
        for one in found.differences
    ]
    return _table(f"{found.different} differences, the first {len(rows)}", ("what", "at", "difference"), rows)


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [
        f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"
        for tag, cells in (("th", head), *(("td", row) for row in rows))
    ]
    return f"<table><caption>{caption}</caption>{''.join(lines)}</table>"
