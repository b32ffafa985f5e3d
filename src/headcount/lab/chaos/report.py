"""A proof as one HTML file: what the load was, who counted what, what broke, and how long it was felt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from headcount.lab.chaos.experiment import ChaosResult
from headcount.lab.chaos.fault_schedule import in_words
from headcount.lab.chaos.recovery import Gap, recovery_s
from headcount.lab.chaos.timeline import OwnershipSpan, ages, bars, received

WIDTH, LEFT, RIGHT = 1160.0, 76.0, 16.0
PANEL, SPACE, ROW = 96.0, 46.0, 20.0
#: Rows in which labels of faults stand, and how wide one letter is.
LABEL, LETTER = 17.0, 6.4
COLOURS = 8

_STYLE = """
:root { --paper:#fdfdfc; --ink:#1c2126; --soft:#66707a; --line:#dfe3e6; --load:#3b78c9; --lag:#b8860b; --bad:#cc2b2b;
  --good:#1f7a46; --w0:#9aa3ab; --w1:#3b78c9; --w2:#d97a1e; --w3:#2c9a63; --w4:#8a5fd0; --w5:#159aa6; --w6:#cc4a8b;
  --w7:#8b8a1c; --w8:#8a5a3c; }
@media (prefers-color-scheme: dark) { :root { --paper:#14181c; --ink:#e8ecef; --soft:#98a3ad; --line:#2c343b;
  --load:#6ba3ee; --lag:#dfb13a; --bad:#ff6b60; --good:#5cc98b; --w0:#707a83; --w1:#6ba3ee; --w2:#f09d4b; --w3:#54c38a;
  --w4:#b193f0; --w5:#45c4cf; --w6:#ec7fb3; --w7:#c2c04a; --w8:#c29073; } }
body { background:var(--paper); color:var(--ink); font:15px/1.5 system-ui,sans-serif; margin:0 auto; max-width:1200px;
  padding:28px 20px 48px; }
h1 { font-size:24px; margin:0 0 2px; } h1 b { color:var(--good); } h1 b.bad { color:var(--bad); }
p { margin:0 0 18px; color:var(--soft); max-width:76ch; }
dl { display:flex; flex-wrap:wrap; gap:10px 34px; margin:0 0 22px; } dt { color:var(--soft); font-size:13px; }
dd { margin:0; font-size:22px; font-variant-numeric:tabular-nums; } dd.bad { color:var(--bad); font-weight:700; }
.scroll { overflow-x:auto; } svg { display:block; min-width:900px; width:100%; height:auto; }
svg text { fill:var(--ink); font:12px system-ui,sans-serif; } svg .soft { fill:var(--soft); }
svg .title { font-weight:600; } svg .grid { stroke:var(--line); } svg .fault { stroke:var(--soft); stroke-dasharray:2 3; }
svg .long { fill:var(--soft); opacity:.13; } svg .gap { fill:var(--bad); opacity:.75; }
svg .label { paint-order:stroke; stroke:var(--paper); stroke-width:4px; }
table { border-collapse:collapse; margin-top:22px; font-variant-numeric:tabular-nums; } caption { text-align:left;
  font-weight:600; padding-bottom:6px; } th { text-align:left; color:var(--soft); font-weight:400; font-size:13px; }
td, th { padding:4px 22px 4px 0; border-bottom:1px solid var(--line); vertical-align:top; } td.n { text-align:right; }
"""


class _TimeScale(NamedTuple):
    """Seconds since the start → x."""

    seconds: float

    def x(self, at_s: float) -> float:
        inside = min(max(at_s, 0.0), self.seconds)
        return LEFT + inside / self.seconds * (WIDTH - LEFT - RIGHT)


def picture(proof: ChaosResult) -> str:
    """The HTML of a proof; it needs nothing beside it."""
    found = proof.comparison
    word = "<b>exact</b>" if proof.is_exact else '<b class="bad">not exact</b>'
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>headcount under fire, seed {proof.plan.seed}</title><style>{_STYLE}</style></head><body>
<h1>headcount under fire: {word}</h1>
<p>Seed {proof.plan.seed}, {proof.plan.seconds / 60:g} minutes, {proof.partitions} partitions, {
        proof.plan.workers
    }
workers at the start, {
        len([one for one in proof.faults if not one.skipped])
    } faults. Every count of every tick, every
event and every row of the history was compared with a brute-force program that follows the counting rules.</p>
<dl>{
        "".join(
            _figure(*one)
            for one in (
                ("fixes", found.fixes, False),
                ("counts compared", found.counts, False),
                ("totals compared", found.totals, False),
                ("events compared", found.events, False),
                ("history rows compared", found.rows + found.recorded, False),
                ("QoS 1 acknowledged", found.acknowledged, False),
                ("acknowledged but lost", len(found.lost), bool(found.lost)),
                ("differences", found.different, bool(found.different)),
            )
        )
    }</dl>
<div class="scroll">{_svg(proof)}</div>
{_table(proof)}
{_differences(proof)}
</body></html>
"""


def _figure(name: str, number: int, bad: bool) -> str:
    mark = ' class="bad"' if bad else ""
    return f"<div><dt>{name}</dt><dd{mark}>{number:,}</dd></div>"


def _svg(proof: ChaosResult) -> str:
    seconds = max(1, math.ceil(proof.end_s - proof.start_s))
    scale = _TimeScale(seconds)
    labels, top = _labels(proof, scale)
    parts = [labels]
    y = top + 30
    load = received(proof.log, proof.start_s, seconds)
    parts.append(_panel("load: messages received a second", load, "load", y, scale))
    y += PANEL + SPACE
    old = ages(proof.heard.reports, proof.partitions, proof.start_s, seconds)
    parts.append(
        _panel("lag: seconds since the newest count of the partition furthest behind", old, "lag", y, scale)
    )
    y += PANEL + SPACE
    told = bars(proof.heard.reports, proof.owners, proof.start_s)
    parts.append(_owners(proof, told, proof.gaps, y, scale))
    bottom = y + proof.partitions * ROW
    parts.append(_axis(scale, bottom))
    lines = _marks(proof, scale, top, bottom)
    height = bottom + 44
    return (
        f'<svg viewBox="0 0 {WIDTH:g} {height:g}" role="img" aria-label="load, lag, owners of partitions and '
        f'faults over time">{lines}{"".join(parts)}</svg>'
    )


def _labels(proof: ChaosResult, scale: _TimeScale) -> tuple[str, float]:
    """The names of the faults, in as few rows as keep them apart; and where they end."""
    ends: list[float] = []
    placed: list[tuple[float, int, str]] = []
    for number, one in enumerate(proof.faults, 1):
        text = f"{number} {one.fault.kind}" + (f" w{one.fault.worker}" if one.fault.worker else "")
        text += " (left out)" if one.skipped else ""
        x, width = scale.x(one.from_s - proof.start_s), len(text) * LETTER + 12
        x = min(x, WIDTH - RIGHT - width + 8)
        row = next((i for i, end in enumerate(ends) if end <= x), len(ends))
        ends[row : row + 1] = [x + width]
        placed.append((x, row, text))
    rows = max(1, len(ends))
    # the first row stands lowest, next to the panels
    svg = "".join(
        f'<text class="label" x="{x + 3:.1f}" y="{(rows - row) * LABEL:.1f}">{escape(text)}</text>'
        for x, row, text in placed
    )
    return svg, rows * LABEL + 4


def _marks(proof: ChaosResult, scale: _TimeScale, top: float, bottom: float) -> str:
    parts = []
    for one in proof.faults:
        x, to = (scale.x(t - proof.start_s) for t in (one.from_s, one.to_s))
        if to - x > 2 and not one.skipped:
            parts.append(
                f'<rect class="long" x="{x:.1f}" y="{top:g}" width="{to - x:.1f}" height="{bottom - top:g}"/>'
            )
        parts.append(f'<line class="fault" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 4:g}" y2="{bottom:g}"/>')
    return "".join(parts)


def _panel(title: str, values: Sequence[float], colour: str, y: float, scale: _TimeScale) -> str:
    """An area with its own axis, from 0 to a round number above the largest value."""
    most = _round_up(max(values, default=1))
    points = [f"{scale.x(0):.1f},{y + PANEL:g}"]
    for second, value in enumerate(values):
        height = y + PANEL * (1 - value / most)
        points += [f"{scale.x(second):.1f},{height:.1f}", f"{scale.x(second + 1):.1f},{height:.1f}"]
    points.append(f"{scale.x(len(values)):.1f},{y + PANEL:g}")
    grid = "".join(
        f'<line class="grid" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{at:g}" y2="{at:g}"/>'
        f'<text class="soft" x="{LEFT - 8:g}" y="{at + 4:g}" text-anchor="end">{value:,.0f}</text>'
        for at, value in ((y, most), (y + PANEL / 2, most / 2), (y + PANEL, 0.0))
    )
    return (
        f'<text class="title label" x="{LEFT:g}" y="{y - 9:g}">{title}</text>{grid}'
        f'<polygon points="{" ".join(points)}" fill="var(--{colour})" fill-opacity=".3" stroke="var(--{colour})"/>'
    )


def _round_up(value: float) -> float:
    """1, 2, 4, 6 or 10 times a power of ten; at least 2."""
    power = 10.0 ** math.floor(math.log10(max(value, 2)))
    return max(2.0, next(step * power for step in (1, 2, 4, 6, 10) if step * power >= value))


def _owners(
    proof: ChaosResult, told: Sequence[OwnershipSpan], found: Sequence[Gap], y: float, scale: _TimeScale
) -> str:
    parts = [f'<text class="title label" x="{LEFT:g}" y="{y - 9:g}">who told each partition\'s counts</text>']
    x = LEFT + 250
    for worker in sorted({bar.worker for bar in told}):
        name = f"worker {worker}" if worker else "unknown"
        parts.append(
            f'<rect x="{x:g}" y="{y - 19:g}" width="12" height="12" rx="2" fill="{_colour(worker)}"/>'
            f'<text class="label" x="{x + 17:g}" y="{y - 9:g}">{name}</text>'
        )
        x += 84
    parts.append(
        f'<rect class="gap" x="{x:g}" y="{y - 16:g}" width="12" height="5"/>'
        f'<text class="label" x="{x + 17:g}" y="{y - 9:g}">nothing fresh</text>'
    )
    for number in range(proof.partitions):
        at = y + number * ROW
        parts.append(f'<text class="soft" x="{LEFT - 8:g}" y="{at + 14:g}" text-anchor="end">{number}</text>')
    for bar in told:
        left, right = scale.x(bar.from_s), scale.x(bar.to_s)
        parts.append(
            f'<rect x="{left:.1f}" y="{y + bar.partition * ROW + 2:g}" width="{max(right - left, 1):.1f}" '
            f'height="{ROW - 4:g}" fill="{_colour(bar.worker)}"><title>partition {bar.partition}, worker '
            f"{bar.worker}: {bar.from_s:.1f} to {bar.to_s:.1f} s</title></rect>"
        )
    for gap in found:
        left, right = (scale.x(t - proof.start_s) for t in (gap.from_s, gap.to_s))
        parts.append(
            f'<rect class="gap" x="{left:.1f}" y="{y + gap.partition * ROW + 7.5:g}" width="{right - left:.1f}" '
            f'height="5"><title>partition {gap.partition}: {gap.to_s - gap.from_s:.1f} s</title></rect>'
        )
    return "".join(parts)


def _colour(worker: int) -> str:
    return f"var(--w{(worker - 1) % COLOURS + 1 if worker else 0})"


def _axis(scale: _TimeScale, y: float) -> str:
    step = next(s for s in (5, 10, 15, 30, 60, 120, 300, 600) if scale.seconds / s <= 14 or s == 600)
    parts = []
    for second in range(0, int(scale.seconds) + 1, step):
        x = scale.x(second)
        parts.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{y:g}" y2="{y + 5:g}"/>'
            f'<text class="soft" x="{x:.1f}" y="{y + 19:g}" text-anchor="middle">{second}</text>'
        )
    return "".join(parts) + f'<text class="soft" x="{LEFT:g}" y="{y + 36:g}">seconds since the start</text>'


def _table(proof: ChaosResult) -> str:
    happened = [one for one in proof.faults if not one.skipped]
    rows = []
    for number, one in enumerate(proof.faults, 1):
        words = in_words(one.fault)
        cost = one.skipped
        if not one.skipped:
            after = [other.from_s for other in happened if other.from_s > one.from_s]
            cost_s = recovery_s(one.fault, one.from_s, min(after, default=math.inf), proof.gaps)
            cost = f"{cost_s:.1f} s" if cost_s else "not felt"
        rows.append(
            f'<tr><td class="n">{number}</td><td class="n">{one.from_s - proof.start_s:.1f} s</td>'
            f'<td>{escape(words)}</td><td class="n">{escape(cost)}</td></tr>'
        )
    return (
        "<table><caption>Faults, and how long until all partitions told fresh counts again</caption>"
        f"<tr><th></th><th>at</th><th>what</th><th>felt for</th></tr>{''.join(rows)}</table>"
    )


def _differences(proof: ChaosResult) -> str:
    found = proof.comparison
    if not found.differences:
        return ""
    rows = "".join(
        f'<tr><td>{one.what}</td><td class="n">{f"{one.at - proof.start_s:.1f} s" if one.at else ""}</td>'
        f"<td>{escape(one.text)}</td></tr>"
        for one in found.differences
    )
    return f"<table><caption>{found.different} differences, the first {len(found.differences)}</caption>{rows}</table>"
