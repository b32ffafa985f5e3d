"""Figures as SVG, drawn with matplotlib, which is imported when the first one is drawn."""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from headcount.errors import HeadcountError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Distinguishable with every kind of colour vision (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
GREY, RED = "#999999", "#cc2b2b"
WIDTH_IN = 11.0
_STYLE = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": "medium",
    "axes.titleweight": "bold",
    "font.size": 9,
    "grid.color": "#dfe3e6",
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "headcount",  # the same figure gives the same file
}


def require_matplotlib() -> None:
    """Check that figures can be drawn.

    Raises:
        HeadcountError: matplotlib is not installed.
    """
    try:
        importlib.import_module("matplotlib")
    except ImportError as error:
        raise HeadcountError("figures need matplotlib: pip install 'headcount[lab]'") from error


@contextmanager
def figure(heights_in: Sequence[float]) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure with one panel above the other, which share the time axis.

    Args:
        heights_in: of the panels, in inches.
    """
    require_matplotlib()
    matplotlib = importlib.import_module("matplotlib")
    with matplotlib.rc_context(_STYLE):
        figure_class: type[Figure] = importlib.import_module("matplotlib.figure").Figure
        created = figure_class(
            figsize=(WIDTH_IN, sum(heights_in) + 0.6 * len(heights_in)), layout="constrained"
        )
        panels = created.subplots(len(heights_in), sharex=True, squeeze=False, height_ratios=heights_in)
        yield created, list(panels[:, 0])


def as_svg(drawn: Figure, description: str) -> str:
    """The figure as an SVG element that can stand alone or in HTML; call it inside `figure`."""
    buffer = io.StringIO()
    drawn.savefig(buffer, format="svg", metadata={"Date": None, "Title": description})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def legend(panel: Axes) -> None:
    """A legend in the line of the title, at the right."""
    if panel.get_legend_handles_labels()[1]:
        panel.legend(loc="lower right", bbox_to_anchor=(1, 0.98), ncols=8, borderaxespad=0.2)
