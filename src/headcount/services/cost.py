"""The cost of storing and counting, from measured sizes and a price file.

A month is 730 hours, a GB is 10^9 bytes.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib import resources
from pathlib import Path

import msgspec

from headcount.errors import SettingsError

MONTH_H, GB = 730.0, 1e9
#: `minutes` and `flows` are kept this long, whatever the retention of the rest.
AGGREGATES_DAYS = 400
#: Segments that a flush writes: fixes, counts, events. Each data set of an hour is merged or derived once.
FLUSH_SEGMENTS, HOURLY_COMMITS = 3, 5
#: Stored per fix, kept as long as asked for; stored per hour, kept as long as asked for, or for AGGREGATES_DAYS.
BY_FIX, BY_HOUR, AGGREGATES = ("fixes", "events"), ("counts",), ("minutes", "flows")


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A unit price; without one, the part is listed and not added up."""

    source: str
    date: date
    price: float | None = None


class PriceList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The prices of a file."""

    currency: str
    disk_gb_month: Price
    object_gb_month: Price
    put_1000: Price
    get_1000: Price
    egress_gb: Price
    core_hour: Price


@dataclass(frozen=True, slots=True)
class StoredSize:
    """Bytes of a data set of the history, its rows, and the hours that they cover."""

    bytes: int
    rows: int
    hours: float


@dataclass(frozen=True, slots=True)
class DeploymentSizes:
    """Measurements of a deployment; None where one is missing."""

    history: Mapping[str, StoredSize]
    log_bytes_per_fix: float | None
    log_bytes_per_hour: float  # of ticks
    cpu_s_per_million: float | None  # CPU seconds of a million fixes


class FleetUsage(msgspec.Struct, frozen=True):
    """The usage of one fleet in a load test."""

    fixes: int
    total_cpu_s: float  # of all parts
    unit_s: float  # running time of brokers and workers


class DayUsage(msgspec.Struct, frozen=True):
    """The usage of both fleets on the same simulated day."""

    devices: int  # at the peak
    seconds: float  # the duration of the day
    elastic: FleetUsage
    fixed: FleetUsage | None = None


@dataclass(frozen=True, slots=True)
class CostScenario:
    """Devices and stores whose cost is estimated."""

    devices: int
    interval_s: float  # between two fixes of a device
    active_h: float  # hours a day in which a device reports
    replicas: int  # of the log
    is_object_store: bool  # the history is on S3, not on a disk
    flush_s: float  # of a history writer
    egress_gb: float  # each month

    @property
    def fixes_per_day(self) -> float:
        """Fixes of all devices."""
        return self.devices * self.active_h * 3600 / self.interval_s


@dataclass(frozen=True, slots=True)
class CostPart:
    """A part of the cost of each month, for each number of days that data are kept."""

    name: str
    amounts: tuple[float | None, ...]  # None: not measured
    unit: str
    price: Price
    per: float = 1.0  # units of one price

    def costs(self) -> tuple[float | None, ...]:
        """The money of each month."""
        price = self.price.price
        return tuple(
            None if amount is None or price is None else amount / self.per * price for amount in self.amounts
        )


def read_prices(path: Path) -> PriceList:
    """Read a price file.

    Raises:
        SettingsError: it cannot be read, or lacks a price, its source or its date.
    """
    try:
        found = msgspec.convert(tomllib.loads(path.read_text()), PriceList)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise SettingsError("prices", f"{path}: {error}") from error
    for name in found.__struct_fields__[1:]:
        price = getattr(found, name).price
        if price is not None and not 0 <= price < 1e9:
            raise SettingsError("prices", f"{path}: {name}: {price} is not a price")
    return found


def example_prices() -> Path:
    """The price file that comes with headcount."""
    return Path(str(resources.files("headcount"))) / "services" / "prices.toml"


def cost_parts(
    sizes: DeploymentSizes, scenario: CostScenario, prices: PriceList, days: Sequence[int]
) -> list[CostPart]:
    """The parts of the cost of each month, when the store has filled up."""
    store = prices.object_gb_month if scenario.is_object_store else prices.disk_gb_month
    month = MONTH_H / 24 * scenario.fixes_per_day / 1e6
    parts = [CostPart("log, one hour", (_log_gb(sizes, scenario),) * len(days), "GB", prices.disk_gb_month)]
    for dataset in (*BY_FIX, *BY_HOUR, *AGGREGATES):
        amounts = tuple(_history_gb(sizes, scenario, dataset, kept) for kept in days)
        parts.append(CostPart(f"history: {dataset}", amounts, "GB", store))
    if scenario.is_object_store:
        for name, hourly, price in zip(
            ("put", "get"),
            _requests_per_hour(scenario.flush_s),
            (prices.put_1000, prices.get_1000),
            strict=True,
        ):
            parts.append(
                CostPart(f"S3 requests: {name}", (MONTH_H * hourly,) * len(days), "requests", price, 1000)
            )
    core_h = None if sizes.cpu_s_per_million is None else sizes.cpu_s_per_million * month / 3600
    parts.append(CostPart("CPU", (core_h,) * len(days), "core hours", prices.core_hour))
    parts.append(CostPart("egress", (scenario.egress_gb,) * len(days), "GB", prices.egress_gb))
    return parts


def fleet_costs(day: DayUsage, prices: PriceList) -> dict[str, float | None]:
    """The cost of each month of the brokers and workers of a load test, by fleet, at a core each."""
    price = prices.core_hour.price
    return {
        name: None if price is None else fleet.unit_s / day.seconds * MONTH_H * price
        for name, fleet in (("elastic", day.elastic), ("fixed", day.fixed))
        if fleet is not None
    }


def totals(parts: Sequence[CostPart]) -> list[float]:
    """The sums of all known costs."""
    return [sum(cost or 0.0 for cost in column) for column in zip(*(p.costs() for p in parts), strict=True)]


def unknown(parts: Sequence[CostPart]) -> list[str]:
    """The parts that the sums lack, each with the reason."""
    return [
        f"{part.name} ({'not measured' if None in part.amounts else 'no price'})"
        for part in parts
        if None in part.costs() and (None in part.amounts or any(part.amounts))
    ]


def _log_gb(sizes: DeploymentSizes, scenario: CostScenario) -> float | None:
    """An hour in which all devices report, on each replica."""
    if sizes.log_bytes_per_fix is None:
        return None
    fixes = scenario.devices * 3600 / scenario.interval_s
    return scenario.replicas * (sizes.log_bytes_per_fix * fixes + sizes.log_bytes_per_hour) / GB


def _history_gb(sizes: DeploymentSizes, scenario: CostScenario, dataset: str, days: int) -> float | None:
    found, fixes = sizes.history.get(dataset), sizes.history.get("fixes")
    if found is None:
        return None
    if dataset in BY_FIX:
        if fixes is None or not fixes.rows or not fixes.hours or not found.hours:
            return None
        # of events: those of an hour beside the fixes of an hour
        share = (found.bytes / found.hours) / (fixes.rows / fixes.hours)
        return share * scenario.fixes_per_day * days / GB
    kept = max(days, AGGREGATES_DAYS) if dataset in AGGREGATES else days
    return found.bytes / found.hours * 24 * kept / GB if found.hours else None


def _requests_per_hour(flush_s: float) -> tuple[float, float]:
    """PUT and GET requests of a history writer: a flush writes its segments and replaces the manifest."""
    flushes = 3600 / flush_s
    put = flushes * (FLUSH_SEGMENTS + 1) + 2 * HOURLY_COMMITS
    get = flushes + flushes * FLUSH_SEGMENTS + HOURLY_COMMITS  # the manifest; each segment once, to be merged
    return put, get
