"""All rules on the same fixes: every preset, every kind of reported accuracy, several independent runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from headcount.counting.fix_columns import B1, I8, U1
from headcount.counting.site import Site
from headcount.counting.zone_lookup import ZoneLookup
from headcount.lab.accuracy.campus import Progress, campus_movement
from headcount.lab.accuracy.error_model import PRESETS, REPORTED, AccuracyReport, ReceivedFixes, draw_errors
from headcount.lab.accuracy.measures import EventErrors, device_hours, wrong_minutes
from headcount.lab.accuracy.membership import members_at, true_members
from headcount.lab.accuracy.movement import POPULATIONS, Movement
from headcount.lab.accuracy.phone_behaviour import always_reporting, behave
from headcount.lab.accuracy.results import (
    AccuracyPlan,
    AccuracyResults,
    BoundSample,
    Condition,
    CountSample,
    SiteResults,
    zone_classes,
)
from headcount.lab.accuracy.rules.engine_rule import EngineCounts, engine_counts, engine_seconds
from headcount.lab.accuracy.rules.filtered_fixes import filtered_fixes
from headcount.lab.accuracy.rules.kalman_filter import kalman_filter
from headcount.lab.accuracy.rules.last_fix import last_fix
from headcount.lab.accuracy.rules.two_fences import two_fences
from headcount.lab.accuracy.rules.two_state_hmm import two_state_hmm
from headcount.lab.accuracy.rules.widened_zones import widened_zones
from headcount.lab.accuracy.sized_site import size_classes, sized_site
from headcount.lab.accuracy.sumo import sumo_movement
from headcount.lab.accuracy.zone_geometry import ZoneGeometry
from headcount.messages.counts import COUNT_FIELDS
from headcount.messages.topics import KINDS

OURS = "headcount"
OTHER_RULES: dict[str, Callable[[ReceivedFixes, ZoneGeometry], B1]] = {
    "last fix in polygon": last_fix,
    "accuracy widens the zone": widened_zones,
    "two fences": two_fences,
    "filter, then polygon": filtered_fixes,
    "Kalman filter": kalman_filter,
    "two-state HMM": two_state_hmm,
}
RULES = (OURS, *OTHER_RULES)
#: Values of `leave_margin_acc` that are compared.
MARGINS = (1.0, 1.5, 2.0, 3.0)
#: Cars of SUMO for each person of our campus, and their presets: a car has no roof above its aerial.
SUMO_CARS = 2
SUMO_PRESETS = ("open sky", "street canyon")
LOW, HIGH = COUNT_FIELDS.index("low"), COUNT_FIELDS.index("high")


def compare(plan: AccuracyPlan, progress: Progress) -> AccuracyResults:
    """Run the comparison; `progress` is called with a text and the share that is done."""
    began_s, began_cpu_s = time.monotonic(), time.process_time()
    sized = sized_site(plan.seed)
    campus = SiteResults(zone_classes(ZoneGeometry(plan.site)))
    results = AccuracyResults(plan, campus, SiteResults(size_classes(sized)))
    for run in range(plan.runs):

        def show(text: str, share: float, run: int = run) -> None:
            progress(f"run {run + 1} of {plan.runs}: {text}", (run + share) / plan.runs)

        seed = plan.seed + run
        one = _SiteRun(plan, plan.site, campus, seed, lambda text, share: show(text, 0.75 * share))
        one.compare_all(results.microseconds)
        _compare_on_sumo(plan, results, seed)
        other = _SiteRun(
            plan, sized, results.sized, seed, lambda text, share: show(text, 0.75 + 0.25 * share)
        )
        other.compare_rules_only()
    results.seconds = time.monotonic() - began_s
    results.cpu_seconds = time.process_time() - began_cpu_s
    return results


class _SiteRun:
    """One run on one site: the movement of one seed, with the errors of the same seed."""

    def __init__(
        self, plan: AccuracyPlan, site: Site, results: SiteResults, seed: int, progress: Progress
    ) -> None:
        self._results, self._seed, self._progress = results, seed, progress
        self._zones = ZoneGeometry(site)
        self._lookups = {
            margin: ZoneLookup(replace(site, leave_margin_acc=margin))
            for margin in {*MARGINS, site.leave_margin_acc}
        }
        self._movement = campus_movement(site, plan.people, plan.hours, seed, progress)
        self._truth = true_members(self._movement, self._zones)
        self._reporting = behave(always_reporting(self._movement), seed)
        results.devices += len(self._movement)
        results.fixes += len(self._reporting.fixes)
        phones = self._movement.kind == 0
        results.phones_per_person.append(phones.sum() / len(np.unique(self._movement.person[phones])))

    def compare_all(self, microseconds: dict[str, list[float]]) -> None:
        """Rules, margins and phones that sleep."""
        for number, preset in enumerate(PRESETS):
            self._progress(preset, number / len(PRESETS))
            fixes = self._errors(self._reporting, preset)
            for report in REPORTED:
                reported = fixes.reporting(report)
                costs = self._compare_rules(preset, report, reported)
                self._compare_margins(preset, report, reported)
                if report == "honest":
                    costs[OURS] = engine_seconds(fixes, self._movement.kind, self._lookup)
                    for rule, seconds in costs.items():
                        microseconds[rule].append(1e6 * seconds / len(fixes))
            self._count_sleeping(preset)

    def compare_rules_only(self) -> None:
        """Rules with honest accuracy, and our bounds with one twice as large."""
        for number, preset in enumerate(PRESETS):
            self._progress(f"{preset}, buildings by size", number / len(PRESETS))
            fixes = self._errors(self._reporting, preset)
            self._compare_rules(preset, "honest", fixes)
            self._keep_bounds(preset, "double", self._count(fixes.reporting("double"), bounds=True))

    def _errors(self, movement: Movement, preset: str) -> ReceivedFixes:
        return draw_errors(movement.fixes, len(movement), PRESETS[preset], self._seed)

    def _compare_rules(self, preset: str, report: AccuracyReport, fixes: ReceivedFixes) -> dict[str, float]:
        """Compare all rules; returns the CPU seconds of those that aren't ours."""
        costs = {}
        for rule in RULES:
            if rule == OURS:
                with_bounds = report in ("honest", "double")
                counted = self._count(fixes, bounds=with_bounds)
                members = counted.members
                if with_bounds:
                    self._keep_bounds(preset, "honest" if report == "honest" else "double", counted)
            else:
                members, costs[rule] = _members(rule, self._movement, fixes, self._zones)
            self._results.counts[preset, report, rule].append(self._sample(members))
            if report == "honest":
                self._compare_events(preset, rule, members)
        return costs

    def _compare_events(self, preset: str, rule: str, members: B1) -> None:
        for name, chosen in self._results.classes.items():
            of_kind = self._movement.kind == chosen.kind
            ours, true = members[:, of_kind], self._truth[:, of_kind]
            errors = EventErrors.of(ours[:, :, chosen.zones], true[:, :, chosen.zones], device_hours(true))
            self._results.events[preset, rule, name].append(errors)

    def _compare_margins(self, preset: str, report: AccuracyReport, fixes: ReceivedFixes) -> None:
        """Our rule with other margins; where `acc` is missing, the factor has no effect."""
        known = self._results.counts[preset, report, OURS][-1]
        for margin in MARGINS:
            sample = known
            if margin != self._zones.site.leave_margin_acc and report != "missing":
                sample = self._sample(self._count(fixes, bounds=False, margin=margin).members)
            self._results.margins[preset, report, margin].append(sample)

    def _count_sleeping(self, preset: str) -> None:
        """Our rule where some phones sleep and some deliver late."""
        sleeping = behave(self._movement, self._seed)
        counted = self._count(self._errors(sleeping, preset), bounds=True)
        self._keep_bounds(preset, "sleeping", counted)
        for number, name in enumerate(POPULATIONS):
            chosen = self._movement.population == number
            minutes = wrong_minutes(counted.members[:, chosen], self._truth[:, chosen])
            self._results.wrong[preset, name].append(minutes)

    def _count(self, fixes: ReceivedFixes, *, bounds: bool, margin: float | None = None) -> EngineCounts:
        """Count with a margin, that of the site by default."""
        lookup = self._lookup if margin is None else self._lookups[margin]
        return engine_counts(fixes, self._movement.kind, lookup, self._movement.at_s, bounds=bounds)

    @property
    def _lookup(self) -> ZoneLookup:
        return self._lookups[self._zones.site.leave_margin_acc]

    def _keep_bounds(self, preset: str, condition: Condition, counted: EngineCounts) -> None:
        truth = by_kind(self._truth, self._movement.kind)
        bounds = counted.bounds.astype(np.int64)
        sample = BoundSample(bounds[:, :, :, LOW], bounds[:, :, :, HIGH], truth)
        self._results.bounds[preset, condition].append(sample)

    def _sample(self, members: B1) -> CountSample:
        kind = self._movement.kind
        return CountSample(by_kind(members, kind), by_kind(self._truth, kind))


def _compare_on_sumo(plan: AccuracyPlan, results: AccuracyResults, seed: int) -> None:
    """The rules on cars of SUMO, if it is installed."""
    movement = sumo_movement(plan.site, SUMO_CARS * plan.people, plan.hours, seed)
    if isinstance(movement, str):
        results.sumo_missing = movement
        return
    zones, lookup = ZoneGeometry(plan.site), ZoneLookup(plan.site)
    truth = by_kind(true_members(movement, zones), movement.kind)
    for preset in SUMO_PRESETS:
        fixes = draw_errors(movement.fixes, len(movement), PRESETS[preset], seed)
        for rule in RULES:
            if rule == OURS:
                members = engine_counts(fixes, movement.kind, lookup, movement.at_s, bounds=False).members
            else:
                members, _ = _members(rule, movement, fixes, zones)
            results.sumo[preset, rule].append(CountSample(by_kind(members, movement.kind), truth))


def _members(rule: str, movement: Movement, fixes: ReceivedFixes, zones: ZoneGeometry) -> tuple[B1, float]:
    """The devices in zones by a rule that isn't ours, and its CPU seconds."""
    began_s = time.process_time()
    found = OTHER_RULES[rule](fixes, zones)
    took_s = time.process_time() - began_s
    return members_at(found, fixes, movement.kind, zones, movement.at_s), took_s


def by_kind(members: B1, kind: U1) -> I8:
    """The number of devices in each zone by kind. Shape [T, Z, kinds]."""
    return np.stack([members[:, kind == each].sum(axis=1) for each in range(len(KINDS))], axis=2)
