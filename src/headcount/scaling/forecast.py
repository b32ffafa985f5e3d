"""What the last days say about the next minutes: pure. A forecast may only raise the floor.

A profile keeps, for each of the last seven days and each kind of load, the mean rate of every five
minutes of the local day: rates, nothing of any person. The forecast for the next minutes is the
median over the days of the same kind (working days, or weekends), of the highest slot within the lead time. A day that
has so far had less than those days, a holiday, is forecast that much lower.
"""

from __future__ import annotations

import statistics
from datetime import UTC, date, datetime, timedelta, tzinfo

import msgspec

DAYS = 7
SLOTS = 288
SLOT_S = 86_400 // SLOTS
#: A day is compared with the earlier ones by its last hour.
COMPARED_SLOTS = 12
#: This share of a day's peak is added on both sides before comparing: at night one car is no trend.
_NOISE_SHARE = 0.05


class Place(msgspec.Struct, frozen=True):
    """A moment in the local calendar: the day, whether it is a working day, and the slot of the day."""

    day: str
    working: bool
    slot: int


class Profile(msgspec.Struct):
    """Mean loads by kind of load, day and slot; None where nothing was seen."""

    days: dict[str, dict[str, list[float | None]]] = {}  # load → day → SLOTS values
    working: dict[str, bool] = {}  # day → whether it is a working day


def place(at_s: float, zone: tzinfo = UTC, day_s: float = 86_400.0) -> Place:
    """Where Unix seconds lie in the local calendar.

    `day_s` is there for time-lapse: days of another length are counted from 1970, without weekends.
    """
    if day_s != 86_400.0:
        number, inside = divmod(at_s, day_s)
        return Place(f"day-{int(number)}", True, min(int(inside / day_s * SLOTS), SLOTS - 1))
    local = datetime.fromtimestamp(at_s, zone)
    slot = (local.hour * 3600 + local.minute * 60 + local.second) // SLOT_S
    return Place(local.date().isoformat(), local.weekday() < 5, slot)


def with_slot(profile: Profile, where: Place, loads: dict[str, float]) -> Profile:
    """The profile with the mean loads of a slot that has ended; days that are too old are dropped."""
    days = {load: dict(of_load) for load, of_load in profile.days.items()}
    for load, value in loads.items():
        if not 0 <= value < 1e12:
            continue
        of_load = days.setdefault(load, {})
        values = list(of_load.get(where.day) or [None] * SLOTS)
        values[where.slot] = round(value, 2)
        of_load[where.day] = values
    working = {**profile.working, where.day: where.working}
    kept = _newest(working)
    return Profile(
        {
            load: {day: values for day, values in of_load.items() if day in kept}
            for load, of_load in days.items()
        },
        {day: kind for day, kind in working.items() if day in kept},
    )


def forecast(profile: Profile, load: str, where: Place, lead_slots: int) -> float | None:
    """The load to be ready for within the next `lead_slots` slots; None where no earlier day says."""
    of_load = profile.days.get(load, {})
    earlier = [
        values
        for day, values in sorted(of_load.items())
        if day != where.day and profile.working.get(day) == where.working and len(values) == SLOTS
    ]
    ahead = [(where.slot + step) % SLOTS for step in range(1, lead_slots + 1)]
    peaks = [peak for values in earlier if (peak := _highest(values, ahead)) is not None]
    if not peaks:
        return None
    return statistics.median(peaks) * _compared(of_load.get(where.day), earlier, where.slot)


def _highest(values: list[float | None], slots: list[int]) -> float | None:
    found = [value for slot in slots if (value := values[slot]) is not None]
    return max(found, default=None)


def _compared(today: list[float | None] | None, earlier: list[list[float | None]], slot: int) -> float:
    """How much of the earlier days' last hour this day had, at most 1."""
    last = range(max(slot - COMPARED_SLOTS, 0), slot)
    now = _mean([today[s] for s in last]) if today else None
    before = [mean for values in earlier if (mean := _mean([values[s] for s in last])) is not None]
    if now is None or not before:
        return 1.0
    noise = _NOISE_SHARE * max((v for values in earlier for v in values if v is not None), default=0.0)
    base = statistics.median(before) + noise
    return 1.0 if base <= 0 else min((now + noise) / base, 1.0)


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _newest(working: dict[str, bool]) -> set[str]:
    """The newest day and those at most a week before it: today and the last seven."""
    newest = max(working, key=_order)
    try:
        oldest = (date.fromisoformat(newest) - timedelta(days=DAYS)).isoformat()
    except ValueError:  # days of a time-lapse
        return set(sorted(working, key=_order)[-DAYS - 1 :])
    return {day for day in working if day >= oldest and not day.startswith("day-")}


def _order(day: str) -> tuple[bool, int, str]:
    number = day.removeprefix("day-")
    return (day.startswith("day-"), int(number) if number.isdecimal() else 0, day)
