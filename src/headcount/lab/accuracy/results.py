"""The samples of a comparison, and the errors over all runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from headcount.counting.fix_columns import I8
from headcount.counting.site import Site
from headcount.lab.accuracy.error_model import AccuracyReport
from headcount.lab.accuracy.measures import BoundErrors, CountErrors, EventErrors
from headcount.lab.accuracy.zone_geometry import ZoneGeometry

#: Under which low and high are compared: honest accuracy, twice as large, or honest with phones that sleep and
#: deliver late.
Condition = Literal["honest", "double", "sleeping"]
#: The class of cars, and those of people in all zones but the boundary, and in all buildings.
CAR_PARKS, ALL_ZONES = "cars in car parks", "all zones"
BUILDINGS = "all buildings"


@dataclass(frozen=True, slots=True)
class AccuracyPlan:
    """The size of a comparison; the default takes some minutes."""

    site: Site
    people: int = 1000
    hours: float = 1.5
    runs: int = 2
    seed: int = 1


@dataclass(frozen=True, slots=True)
class ZoneClass:
    """Zones whose errors are reported together, for one kind of devices."""

    zones: I8
    kind: int = 0


@dataclass(frozen=True, slots=True)
class CountSample:
    """Counts and truth of one run, each [T, Z, kinds]."""

    counts: I8
    truth: I8


@dataclass(frozen=True, slots=True)
class BoundSample:
    """Low, high and truth of one run, each [T, Z, kinds]."""

    low: I8
    high: I8
    truth: I8


def _lists() -> Any:
    return defaultdict(list)


@dataclass(slots=True)
class SiteResults:
    """The samples of all runs on one site."""

    classes: dict[str, ZoneClass]
    devices: int = 0
    fixes: int = 0
    #: By preset, reported accuracy and rule.
    counts: dict[tuple[str, AccuracyReport, str], list[CountSample]] = field(default_factory=_lists)
    #: By preset, rule and class of zones.
    events: dict[tuple[str, str, str], list[EventErrors]] = field(default_factory=_lists)
    #: By preset, reported accuracy and `leave_margin_acc`.
    margins: dict[tuple[str, AccuracyReport, float], list[CountSample]] = field(default_factory=_lists)
    #: By preset and condition.
    bounds: dict[tuple[str, Condition], list[BoundSample]] = field(default_factory=_lists)
    #: Minutes per hour by preset and population.
    wrong: dict[tuple[str, str], list[float]] = field(default_factory=_lists)
    #: Phones per person.
    phones_per_person: list[float] = field(default_factory=list)

    def count_errors(
        self, preset: str, rule: str, name: str = ALL_ZONES, report: AccuracyReport = "honest"
    ) -> CountErrors:
        """The errors of a rule in a class of zones."""
        return _count_errors(self.counts[preset, report, rule], self.classes[name])

    def margin_errors(self, preset: str, report: AccuracyReport, margin: float) -> CountErrors:
        """The errors with a margin in all zones."""
        return _count_errors(self.margins[preset, report, margin], self.classes[ALL_ZONES])

    def bound_errors(
        self, preset: str, name: str = ALL_ZONES, condition: Condition = "honest"
    ) -> BoundErrors:
        """How good low and high are in a class of zones."""
        chosen = self.classes[name]
        columns = (
            _joined((getattr(each, part) for each in self.bounds[preset, condition]), chosen)
            for part in BoundSample.__slots__
        )
        return BoundErrors.of(*columns)

    def event_errors(self, preset: str, rule: str, name: str = ALL_ZONES) -> EventErrors:
        """The wrong events of a rule in a class of zones, the mean of all runs."""
        found = self.events[preset, rule, name]
        return EventErrors(
            *(float(np.mean([getattr(each, part) for each in found])) for part in EventErrors.__slots__)
        )


@dataclass(slots=True)
class AccuracyResults:
    """The samples of a comparison."""

    plan: AccuracyPlan
    campus: SiteResults
    sized: SiteResults
    #: CPU time per fix by rule.
    microseconds: dict[str, list[float]] = field(default_factory=_lists)
    #: Cars of SUMO by preset and rule; or the reason why there are none.
    sumo: dict[tuple[str, str], list[CountSample]] = field(default_factory=_lists)
    sumo_missing: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def sumo_errors(self, preset: str, rule: str) -> CountErrors:
        """The errors of a rule for the cars of SUMO in all zones."""
        zones = self.campus.classes[ALL_ZONES].zones
        return _count_errors(self.sumo[preset, rule], ZoneClass(zones, kind=1))


def zone_classes(zones: ZoneGeometry) -> dict[str, ZoneClass]:
    """The classes of a campus's zones whose errors are reported."""
    classes = {name: ZoneClass(found) for name, found in zones.classes().items()}
    classes[CAR_PARKS] = ZoneClass(np.array(_of_type(zones, "car_park")), kind=1)
    classes[BUILDINGS] = ZoneClass(np.array(_of_type(zones, "building")))
    classes[ALL_ZONES] = ZoneClass(np.arange(1, len(zones)))
    return classes


def _of_type(zones: ZoneGeometry, type_: str) -> list[int]:
    return [index for index, zone in enumerate(zones.site.zones) if zone.type == type_]


def _count_errors(samples: list[CountSample], chosen: ZoneClass) -> CountErrors:
    counts = _joined((each.counts for each in samples), chosen)
    return CountErrors.of(counts, _joined((each.truth for each in samples), chosen))


def _joined(arrays: Iterable[I8], chosen: ZoneClass) -> I8:
    return np.concatenate([each[:, chosen.zones, chosen.kind] for each in arrays])
