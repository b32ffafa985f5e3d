"""The results of a comparison as figures."""

from __future__ import annotations

import numpy as np

from headcount.lab.accuracy.comparison import MARGINS, OURS, RULES
from headcount.lab.accuracy.error_model import PRESETS
from headcount.lab.accuracy.movement import GRID_S
from headcount.lab.accuracy.results import ALL_ZONES, AccuracyResults
from headcount.lab.accuracy.tables import REPORT_NAMES
from headcount.lab.plots import COLOURS, as_svg, figure, legend

PANEL_IN = 1.5
#: Preset of the example.
EXAMPLE_PRESET = "street canyon"


def plot_sizes(results: AccuracyResults) -> str:
    """Mean absolute error over the mean count, by the size of the building, for each rule and preset."""
    sized = results.sized
    names = [name for name in sized.classes if name != ALL_ZONES]
    with figure([PANEL_IN] * len(PRESETS)) as (drawn, panels):
        for panel, preset in zip(panels, PRESETS, strict=True):
            panel.set_title(f"{preset}: mean error in % of the people inside")
            for index, rule in enumerate(RULES):
                found = [sized.count_errors(preset, rule, name) for name in names]
                panel.plot(
                    range(len(names)),
                    [100 * errors.mae / max(errors.truth, 1e-9) for errors in found],
                    color=COLOURS[index % len(COLOURS)],
                    label=rule,
                    linewidth=2.2 if rule == OURS else 1.0,
                    marker="o",
                    markersize=3,
                )
            panel.set_ylim(0, 100)
        panels[0].legend(loc="upper right", ncols=2)
        panels[-1].set_xticks(range(len(names)), names)
        panels[-1].set_xlabel("size of the building")
        return as_svg(drawn, "Mean error of each rule by the size of the building")


def plot_margins(results: AccuracyResults) -> str:
    """Mean absolute error by `leave_margin_acc`, for each preset and reported accuracy."""
    with figure([PANEL_IN] * len(PRESETS)) as (drawn, panels):
        for panel, preset in zip(panels, PRESETS, strict=True):
            panel.set_title(f"{preset}: mean absolute error in devices")
            for index, (report, name) in enumerate(REPORT_NAMES.items()):
                values = [results.campus.margin_errors(preset, report, margin).mae for margin in MARGINS]
                colour = COLOURS[index % len(COLOURS)]
                panel.plot(MARGINS, values, color=colour, label=f"acc {name}", marker="o", markersize=3)
            panel.set_ylim(bottom=0)
        legend(panels[0])
        panels[-1].set_xticks(MARGINS)
        panels[-1].set_xlabel("leave_margin_acc")
        return as_svg(drawn, "Mean error by leave_margin_acc and reported accuracy")


def plot_example(results: AccuracyResults) -> str:
    """The truth, our count and its bounds in the fullest building of three sizes, over the first run."""
    sized = results.sized
    names = [name for name in sized.classes if name != ALL_ZONES]
    bound = sized.bounds[EXAMPLE_PRESET, "honest"][0]
    count = sized.counts[EXAMPLE_PRESET, "honest", OURS][0].counts
    minutes = np.arange(len(count)) * GRID_S / 60
    with figure([PANEL_IN] * 3) as (drawn, panels):
        for panel, name in zip(panels, (names[1], names[3], names[5]), strict=True):
            zones = sized.classes[name].zones
            zone = zones[int(np.argmax(bound.truth[:, zones, 0].mean(axis=0)))]
            panel.set_title(f"a building of {name}, {EXAMPLE_PRESET}: people")
            low, high = bound.low[:, zone, 0], bound.high[:, zone, 0]
            panel.fill_between(
                minutes, low, high, color=COLOURS[4], alpha=0.35, label="low to high", linewidth=0
            )
            panel.plot(minutes, count[:, zone, 0], color=COLOURS[0], label="count")
            panel.plot(minutes, bound.truth[:, zone, 0], color=COLOURS[6], label="truth", linewidth=1.0)
            panel.set_ylim(bottom=0)
        legend(panels[0])
        panels[-1].set_xlabel(f"minutes; seed {results.plan.seed}")
        panels[-1].set_xlim(0, minutes[-1])
        return as_svg(drawn, "Truth, count, low and high in three buildings")
