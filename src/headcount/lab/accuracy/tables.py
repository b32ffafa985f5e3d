"""The results of a comparison as Markdown tables."""

from __future__ import annotations

import numpy as np

from headcount.lab.accuracy.comparison import MARGINS, OURS, RULES, SUMO_PRESETS
from headcount.lab.accuracy.error_model import PRESETS, REPORTED, AccuracyReport
from headcount.lab.accuracy.measures import CountErrors
from headcount.lab.accuracy.movement import POPULATIONS
from headcount.lab.accuracy.results import ALL_ZONES, BUILDINGS, AccuracyResults, Condition, SiteResults
from headcount.lab.accuracy.zone_geometry import WHOLE_SITE
from headcount.lab.marked_page import markdown

#: How `acc` is described in a table.
REPORT_NAMES: dict[AccuracyReport, str] = {
    "honest": "honest",
    "half": "half of it",
    "double": "twice",
    "missing": "missing",
}
#: Mean error over the mean count up to which a class of zones is counted well, and roughly.
WELL, ROUGHLY = 0.1, 0.25


def _short(value: float) -> str:
    """Two decimals below 1, one below 100."""
    return f"{value:.2f}" if abs(value) < 1 else f"{value:.1f}" if abs(value) < 100 else f"{value:.0f}"


def _signed(value: float) -> str:
    return f"{'+' if value >= 0 else '-'}{_short(abs(value))}"


def _cell(errors: CountErrors) -> str:
    return f"{_short(errors.mae)} ({_signed(errors.bias)})"


def by_size(results: AccuracyResults) -> str:
    """Our errors and bounds by the size of the building."""
    sized = results.sized
    rows = []
    for name in sized.classes:
        if name != ALL_ZONES:
            found = [sized.count_errors(preset, OURS, name) for preset in PRESETS]
            cells = [f"{_cell(errors)}, {_short(errors.p95)}" for errors in found]
            rows.append([name, _short(found[0].truth), *cells])
    return markdown(["building", "people", *PRESETS], rows)


def verdicts(results: AccuracyResults) -> str:
    """Which sizes can be counted with which phones."""
    sized = results.sized
    rows = []
    for name in sized.classes:
        if name != ALL_ZONES:
            found = [sized.count_errors(preset, OURS, name) for preset in PRESETS]
            rows.append([name, *(_verdict(errors.mae / max(errors.truth, 1e-9)) for errors in found)])
    return markdown(["building", *PRESETS], rows)


def _verdict(relative: float) -> str:
    word = "well" if relative <= WELL else "roughly" if relative <= ROUGHLY else "**badly**"
    return f"{word} ({relative:.0%})".replace("%", " %")


def by_rule(results: AccuracyResults, site: SiteResults) -> str:
    """The errors of each rule in all zones of a site, and its cost; the best of each column is bold."""
    errors = {preset: {rule: site.count_errors(preset, rule) for rule in RULES} for preset in PRESETS}
    best = {preset: min(found, key=lambda rule: found[rule].mae) for preset, found in errors.items()}
    rows = []
    for rule in RULES:
        cells = [_bold(_cell(errors[preset][rule]), rule == best[preset]) for preset in PRESETS]
        rows.append([rule, *cells, f"{np.median(results.microseconds[rule]):.1f}"])
    return markdown(["rule", *PRESETS, "µs per fix"], rows)


def _bold(text: str, bold: bool) -> str:
    return f"**{text}**" if bold else text


def by_report(results: AccuracyResults) -> str:
    """The mean absolute error of each rule by what phones report, the mean of all presets."""
    campus = results.campus

    def mean(rule: str, report: AccuracyReport) -> float:
        return float(np.mean([campus.count_errors(preset, rule, report=report).mae for preset in PRESETS]))

    rows = [[rule, *(_short(mean(rule, report)) for report in REPORTED)] for rule in RULES]
    return markdown(["rule", *REPORT_NAMES.values()], rows)


def events(results: SiteResults, preset: str) -> str:
    """Wrong events of each rule in all zones."""
    rows = []
    for rule in RULES:
        found = results.event_errors(preset, rule)
        numbers = (found.false_enters, found.missed_enters, found.false_exits, found.missed_exits)
        times = f"{found.correct_p50_s:.0f} s, {found.correct_p95_s / 60:.0f} min"
        rows.append([rule, *map(_short, numbers), times])
    head = [
        "rule",
        "false enter",
        "missed enter",
        "false exit",
        "missed exit",
        "time to correct, p50 and p95",
    ]
    return markdown(head, rows)


def margins(results: SiteResults, preset: str | None = None) -> str:
    """The mean absolute error by `leave_margin_acc`, of a preset or the mean of all; the best of a row is bold."""
    rows = []
    for report, name in REPORT_NAMES.items():
        found = [
            float(
                np.mean(
                    [
                        results.margin_errors(each, report, margin).mae
                        for each in ([preset] if preset else PRESETS)
                    ]
                )
            )
            for margin in MARGINS
        ]
        low = min(found)
        rows.append([name, *(_bold(f"{value:.2f}", value == low and max(found) > low) for value in found)])
    return markdown(["`acc`", *(f"{margin:g}" for margin in MARGINS)], rows)


def bounds(results: AccuracyResults) -> str:
    """How often the truth is within low and high, and their distance."""
    campus, sized = results.campus, results.sized
    rows = []
    sizes = [name for name in sized.classes if name != ALL_ZONES]
    chosen: list[tuple[str, SiteResults, str, Condition]] = [
        ("campus, all zones", campus, ALL_ZONES, "honest"),
        ("campus, buildings", campus, BUILDINGS, "honest"),
        ("campus, whole site", campus, WHOLE_SITE, "honest"),
        ("campus, all zones, some phones sleep", campus, ALL_ZONES, "sleeping"),
        ("campus, whole site, some phones sleep", campus, WHOLE_SITE, "sleeping"),
        *((f"isolated building, {name}", sized, name, "honest") for name in sizes),
        ("all isolated buildings, `acc` twice as large", sized, ALL_ZONES, "double"),
    ]
    for title, found, name, condition in chosen:
        cells = []
        for preset in PRESETS:
            errors = found.bound_errors(preset, name, condition)
            share = f"{100 * errors.covered:.1f} %"
            cells.append(f"{_bold(share, errors.covered < 0.95)}, {_short(errors.width)}")
        rows.append([title, *cells])
    return markdown(["zones", *PRESETS], rows)


def populations(results: SiteResults) -> str:
    """Minutes per hour with wrong zones by population."""
    rows = [
        [name, *(_short(float(np.mean(results.wrong[preset, name]))) for preset in PRESETS)]
        for name in POPULATIONS
    ]
    return markdown(["population", *PRESETS], rows)


def sumo(results: AccuracyResults) -> str:
    """The errors of each rule for cars of SUMO, or the reason why there are none."""
    if not results.sumo:
        return f"Left out: {results.sumo_missing}."
    rows = [[rule, *(_cell(results.sumo_errors(preset, rule)) for preset in SUMO_PRESETS)] for rule in RULES]
    return markdown(["rule", *SUMO_PRESETS], rows)


def full(results: SiteResults, preset: str) -> str:
    """All numbers of a preset: each rule in each class of zones."""
    rows = []
    for name in results.classes:
        for rule in RULES:
            count = results.count_errors(preset, rule, name)
            event = results.event_errors(preset, rule, name)
            rows.append(
                [
                    name,
                    rule,
                    _short(count.truth),
                    _signed(count.bias),
                    _short(count.mae),
                    _short(count.p95),
                    *map(
                        _short,
                        (event.false_enters, event.missed_enters, event.false_exits, event.missed_exits),
                    ),
                    f"{event.correct_p50_s:.0f}",
                    f"{event.correct_p95_s:.0f}",
                ]
            )
    head = [
        *("zones", "rule", "truth", "bias", "MAE", "P95", "false enter", "missed enter", "false exit"),
        *("missed exit", "correct p50, s", "correct p95, s"),
    ]
    return markdown(head, rows)
