"""How long the data sets of the history are kept: `fixes=24h,fixes.vehicle=6h,minutes=400d`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from headcount.messages.topics import KINDS
from headcount.settings.formats import TextFormat, split

_HOUR_S, _DAY_S = 3600.0, 86_400.0
_PART = re.compile(r"([a-z]+)(?:\.([a-z]+))?=(\d{1,5})([hd])")


@dataclass(frozen=True, slots=True)
class DataSetPeriod:
    """The default and the limits of a data set's retention period, in seconds."""

    default_s: float
    min_s: float
    max_s: float
    by_kind: bool = True  # whether each row has a kind


#: Rows with pseudonyms must not outlive the keys of their pseudonyms: they could not be erased.
PERIODS = {
    "fixes": DataSetPeriod(_DAY_S, _HOUR_S, _DAY_S),
    "counts": DataSetPeriod(_DAY_S, _HOUR_S, 400 * _DAY_S, by_kind=False),
    "events": DataSetPeriod(_DAY_S, _HOUR_S, _DAY_S),
    "minutes": DataSetPeriod(400 * _DAY_S, _DAY_S, 4000 * _DAY_S),
    "flows": DataSetPeriod(400 * _DAY_S, _DAY_S, 4000 * _DAY_S),
}


@dataclass(frozen=True, slots=True)
class RetentionPeriods:
    """The retention periods of all data sets; those that are not set have their defaults."""

    by_name: Mapping[str, float] = field(default_factory=dict)  # `fixes` or `fixes.vehicle` → seconds

    def period_s(self, dataset: str, kind: str | None = None) -> float:
        """How long rows are kept, in seconds."""
        default_s = self.by_name.get(dataset, PERIODS[dataset].default_s)
        return default_s if kind is None else self.by_name.get(f"{dataset}.{kind}", default_s)

    def longest_s(self, dataset: str) -> float:
        """How long some rows of a data set are kept, in seconds."""
        if not self.by_kinds(dataset):
            return self.period_s(dataset)
        return max(self.period_s(dataset, kind) for kind in KINDS)

    def by_kinds(self, dataset: str) -> bool:
        """Whether the kinds of a data set have periods of their own."""
        return any(f"{dataset}.{kind}" in self.by_name for kind in KINDS)


DEFAULT_PERIODS = RetentionPeriods()


def retention_periods(text: str) -> RetentionPeriods:
    """Parse the setting.

    Raises:
        ValueError: it has an unknown data set, kind or unit, or a period out of range.
    """
    found: dict[str, float] = {}
    for part in split(text):
        match = _PART.fullmatch(part)
        if match is None or match[1] not in PERIODS or (match[2] and match[2] not in KINDS):
            raise ValueError(part)
        limits = PERIODS[match[1]]
        period_s = int(match[3]) * (_DAY_S if match[4] == "d" else _HOUR_S)
        if not limits.min_s <= period_s <= limits.max_s or (match[2] and not limits.by_kind):
            raise ValueError(part)
        found[part.partition("=")[0]] = period_s
    return RetentionPeriods(found)


def _is_valid(text: str) -> bool:
    try:
        retention_periods(text)
    except ValueError:
        return False
    return True


RETAIN = TextFormat(
    _is_valid,
    "list of retention periods",
    "data sets with hours or days, such as fixes=24h,fixes.vehicle=6h,minutes=400d (fixes, events: 1h to 24h; "
    "counts: 1h to 400d; minutes, flows: 1d to 4000d)",
    "PERIODS",
)
