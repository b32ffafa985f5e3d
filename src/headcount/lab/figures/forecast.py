"""Back-test of the forecast beside "same time last week" and "last value"; `--write` updates the documentation.

A forecast is made at instants spread over all hours, from what was known then, and compared with what came.
Errors are scaled by the mean absolute difference between a count and that of the same time a week before (MASE:
Hyndman and Koehler, "Another look at measures of forecast accuracy", 2006), for each zone: 1 is as good as
"same time last week" in the whole series. Recorded days have no week before: their scale is the mean change from
slot to slot.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from headcount.counting.fix_columns import B1
from headcount.history import forecast as model
from headcount.history.forecast import SLOTS
from headcount.lab.figures.forecast_days import recorded_day, simulated_weeks
from headcount.lab.figures.forecast_errors import ForecastErrors, back_test
from headcount.lab.figures.forecast_plots import plot_example, plot_horizons
from headcount.lab.machine import machine
from headcount.lab.marked_page import filled, markdown
from headcount.sites.files import bundled_site, load_site

ROOT = Path(__file__).parents[4]
PAGE = ROOT / "docs" / "concepts" / "forecast.md"
IMAGES = ROOT / "docs" / "images"
#: Real days, in the folder beside the checkout.
TRACES = ROOT.parent / "shared" / "data" / "traces"
RECORDINGS = ("capmetro_2015-03-08.csv.gz", "capmetro_2017-03-21.csv.gz", "liverpool_bus14.csv")
HORIZONS = {1: "15 min", 4: "1 h", 8: "2 h", 16: "4 h", 48: "12 h", 96: "24 h"}
#: Slots from one forecast to the next: comes to all hours of the day.
EVERY = 7
#: Working days from 8 to 18 h: at night, nearly all counts are 0.
DAY_SLOTS = (32, 72)
HEAD = ("forecast", "same time last week", "last value", "in the interval", "width / count")


def cells(errors: Sequence[ForecastErrors], beside: Sequence[str] = ("last_week", "last")) -> list[str]:
    """The cells of a row: MASE of the forecast and of those beside it, coverage, width."""
    columns = ["expected", *beside]
    mases = [f"{np.mean([each.mase(column) for each in errors]):.2f}" for column in columns]
    shown = [f"**{mase}**" if mase == min(mases) else mase for mase in mases]
    width = float(np.mean([each.width() for each in errors]))
    count = float(np.mean([np.mean(each.actual) for each in errors]))
    coverage = np.mean([each.coverage() for each in errors])
    return [*shown, f"{coverage:.2f}", f"{width / max(count, 1e-9):.2f}"]


def where(errors: Sequence[ForecastErrors], rows: Callable[[ForecastErrors], B1]) -> list[ForecastErrors]:
    """Some forecasts of each zone; zones without one are left out."""
    return [part for each in errors if len((part := each.only(rows(each))).actual)]


def with_last_week(errors: Sequence[ForecastErrors]) -> list[ForecastErrors]:
    """The forecasts that can be compared with "same time last week": from the second week on."""
    return where(errors, lambda each: ~np.isnan(each.last_week))


def parts(errors: Sequence[ForecastErrors]) -> dict[str, str]:
    """The tables of simulated weeks."""
    later = with_last_week(errors)
    return {
        "horizons": markdown(
            ["horizon", *HEAD, "in the interval by day"],
            [
                [name, *cells(found), cells(where(found, _is_by_day))[-2]]
                for h, name in HORIZONS.items()
                for found in [[e for e in later if e.horizon == h]]
            ],
        ),
        "types": markdown(
            ["zone", "horizon", *HEAD],
            [
                [
                    zone_type,
                    HORIZONS[h],
                    *cells([e for e in later if (e.zone_type, e.horizon) == (zone_type, h)]),
                ]
                for zone_type in sorted({each.zone_type for each in later})
                for h in (4, 16, 96)
            ],
        ),
        "special": markdown(
            ["horizon", *HEAD],
            [
                [name, *cells(where([e for e in later if e.horizon == h], lambda each: each.special))]
                for h, name in HORIZONS.items()
            ],
        ),
        "young": markdown(
            ["day", "horizon", "forecast", "same time yesterday", "last value", *HEAD[3:]],
            [
                [str(day + 1), HORIZONS[h], *cells(_on_day(errors, day, h), ("yesterday", "last"))]
                for day in (1, 2, 4, 6)
                for h in (4, 16)
            ],
        ),
    }


def _is_by_day(errors: ForecastErrors) -> B1:
    day, slot = np.divmod(errors.made + errors.horizon, SLOTS)  # the series start on a Monday
    return (day % 7 < 5) & (slot >= DAY_SLOTS[0]) & (slot < DAY_SLOTS[1])


def _on_day(errors: Sequence[ForecastErrors], day: int, horizon: int) -> list[ForecastErrors]:
    of_horizon = [each for each in errors if each.horizon == horizon]
    return where(of_horizon, lambda each: (each.made // SLOTS == day) & ~np.isnan(each.yesterday))


def buses() -> str:
    """The table of recorded days, or why there is none."""
    rows = []
    for name in RECORDINGS:
        path = TRACES / name
        if not path.exists():
            rows.append([name.split(".")[0], "-", "-", "skipped: the file is absent", *["-"] * 4])
            continue
        series = recorded_day(path)
        errors = [error for each in series for error in back_test(each, 0, 1, HORIZONS)]
        hours = len(series[0].values) * 24 / SLOTS
        for horizon in sorted({each.horizon for each in errors}):
            found = [each for each in errors if each.horizon == horizon]
            number = str(sum(len(each.actual) for each in found))
            rows.append(
                [name.split(".")[0], f"{hours:.1f}", HORIZONS[horizon], number, *cells(found, ("last",))]
            )
        if not errors:
            rows.append([name.split(".")[0], f"{hours:.1f}", "-", "0: too short", *["-"] * 4])
    return markdown(["recording", "hours", "horizon", "forecasts", "forecast", "last value", *HEAD[3:]], rows)


def main() -> None:
    """Print the tables; with `--write`, update the page and its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=28)
    parser.add_argument("--seeds", default="11,12,13", help="one simulated campus for each")
    parser.add_argument("--every", type=int, default=EVERY, help="slots from one forecast to the next")
    parser.add_argument(
        "--set", metavar="NAME=NUMBER", action="append", default=[], help="a constant of history/forecast.py"
    )
    parser.add_argument("--write", action="store_true", help=f"update {PAGE.name} of the documentation")
    options = parser.parse_args()
    for name, _, number in (each.partition("=") for each in options.set):
        if not isinstance(getattr(model, name, None), (int, float)):
            parser.error(f"{name} is not a number of history/forecast.py")
        setattr(model, name, type(getattr(model, name))(number))
    began_s = time.process_time()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    site = load_site(bundled_site("ul"))
    series = [each for seed in seeds for each in simulated_weeks(site, options.days, seed)]
    errors = [found for each in series for found in back_test(each, SLOTS, options.every, HORIZONS)]
    made = sum(len(each.actual) for each in errors)
    run = (
        f"- machine: {machine()}; {time.process_time() - began_s:.0f} s of CPU\n- date: {datetime.now(UTC):%Y-%m-%d}\n"
        f"- seeds {', '.join(map(str, seeds))}: for each, {options.days} days of the campus `ul`; "
        f"{len(series)} series of counts, {made} forecasts"
    )
    results = {"run": run} | parts(errors) | {"buses": buses()}
    for name, text in results.items():
        print(f"== {name} ==\n{text}\n")
    if options.write:
        PAGE.write_text(filled(PAGE.read_text(), "forecast", results))
        (IMAGES / "forecast-horizons.svg").write_text(plot_horizons(with_last_week(errors), HORIZONS) + "\n")
        (IMAGES / "forecast-example.svg").write_text(plot_example(series, seeds[0]) + "\n")


if __name__ == "__main__":
    main()
