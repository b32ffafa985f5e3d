"""The cost of a month as a figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headcount.lab.plots import COLOURS, as_svg, figure
from headcount.services.cost import CostPart


def plot_cost(parts: Sequence[CostPart], days: Sequence[int], currency: str) -> str:
    """A bar for each number of days, made of the parts whose cost is known."""
    known = [part for part in parts if any(part.costs())]
    with figure([2.6]) as (drawn, (panel,)):
        below = np.zeros(len(days))
        for index, part in enumerate(known):
            costs = np.array([cost or 0.0 for cost in part.costs()])
            hatch = None if index < len(COLOURS) else "//"
            colour = COLOURS[index % len(COLOURS)]
            panel.bar(
                range(len(days)), costs, bottom=below, color=colour, label=part.name, hatch=hatch, width=0.5
            )
            below += costs
        for index, total in enumerate(below):
            panel.annotate(f"{total:,.0f}", (index, total), ha="center", va="bottom")
        panel.set_xticks(range(len(days)), [f"{each} days" for each in days])
        panel.set_title(f"{currency} a month, by how long data are kept")
        panel.set_xlim(-0.5, len(days) + 0.3)
        panel.legend(loc="upper right")
        return as_svg(drawn, "The cost of a month by how long data are kept")
