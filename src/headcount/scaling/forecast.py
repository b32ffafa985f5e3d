"""The load profile of the last days, and the forecast for the next minutes: pure.

The profile holds, for each of the last seven days and each kind of load, the mean rate of every five
minutes of the local day: rates, no personal data. The forecast is the median, over the days of the same
kind (working days, or weekends), of the highest slot within the lead time. A day that has so far had less
load than those days, such as a holiday, is forecast lower in proportion. A forecast may only raise the floor.
"""

from __future__ import annotations

import math
import statistics
from datetime import UTC, date, datetime, timedelta, tzinfo

import msgspec

DAYS = 7
SLOTS = 288
SLOT_S = 86_400 // SLOTS
#: A day is compared with the earlier ones by its last hour.
COMPARED_SLOTS = 12
#: The profile is stored at the end of a slot, in time-lapse at most this often.
STORE_INTERVAL_S = 30.0
#: This share of a day's peak is added on both sides before comparing: at night one car is no trend.
_NOISE_SHARE = 0.05


class TimeSlot(msgspec.Struct, frozen=True):
    """A slot of the local calendar: the day, whether it is a working day, and the number of the slot."""

    day: str
    working: bool
    slot: int


class LoadProfile(msgspec.Struct):
    """Mean loads by kind of load, day and slot; None where nothing was recorded."""

    days: dict[str, dict[str, list[float | None]]] = {}  # load → day → SLOTS values
    working: dict[str, bool] = {}  # day → whether it is a working day


class LoadForecaster:
    """Records the loads as time passes, and forecasts them."""

    def __init__(self, zone: tzinfo, day_s: float, lead_s: float) -> None:
        """Start with an empty profile.

        Args:
            zone: time zone of the site's days.
            day_s: length of a day; see `time_slot`.
            lead_s: how far ahead to forecast.
        """
        self.profile = LoadProfile()
        self._zone = zone
        self._day_s = day_s
        self._lead_slots = min(max(math.ceil(lead_s / (day_s / SLOTS)), 1), SLOTS - 1)
        self._slot: TimeSlot | None = None
        self._sums: dict[str, tuple[float, int]] = {}
        self._stored_s = 0.0

    def forecast(self, now_s: float) -> dict[str, float | None]:
        """The highest load expected within the lead time, by kind of load."""
        now = time_slot(now_s, self._zone, self._day_s)
        return {load: forecast_load(self.profile, load, now, self._lead_slots) for load in self.profile.days}

    def record(self, loads: dict[str, float], now_s: float) -> bool:
        """Record the current loads; returns whether the profile should be stored."""
        slot = time_slot(now_s, self._zone, self._day_s)
        before, self._slot = self._slot, slot
        changed = before is not None and slot != before and bool(self._sums)
        if changed and before is not None:
            means = {load: total / count for load, (total, count) in self._sums.items()}
            self.profile = add_slot(self.profile, before, means)
            self._sums = {}
        for load, value in loads.items():
            total, count = self._sums.get(load, (0.0, 0))
            self._sums[load] = total + value, count + 1
        if not changed or now_s - self._stored_s < STORE_INTERVAL_S:
            return False
        self._stored_s = now_s
        return True


def time_slot(at_s: float, zone: tzinfo = UTC, day_s: float = 86_400.0) -> TimeSlot:
    """The slot of the local calendar at an instant (Unix seconds).

    `day_s` serves time-lapse: days of another length are counted from 1970, without weekends.
    """
    if day_s != 86_400.0:
        number, inside = divmod(at_s, day_s)
        return TimeSlot(f"day-{int(number)}", True, min(int(inside / day_s * SLOTS), SLOTS - 1))
    local = datetime.fromtimestamp(at_s, zone)
    slot = (local.hour * 3600 + local.minute * 60 + local.second) // SLOT_S
    return TimeSlot(local.date().isoformat(), local.weekday() < 5, slot)


def add_slot(profile: LoadProfile, slot: TimeSlot, loads: dict[str, float]) -> LoadProfile:
    """The profile with the mean loads of a finished slot, without days that are too old."""
    days = {load: dict(of_load) for load, of_load in profile.days.items()}
    for load, value in loads.items():
        if not 0 <= value < 1e12:
            continue
        of_load = days.setdefault(load, {})
        values = list(of_load.get(slot.day) or [None] * SLOTS)
        values[slot.slot] = round(value, 2)
        of_load[slot.day] = values
    working = {**profile.working, slot.day: slot.working}
    recent = _recent_days(working)
    return LoadProfile(
        {
            load: {day: values for day, values in of_load.items() if day in recent}
            for load, of_load in days.items()
        },
        {day: kind for day, kind in working.items() if day in recent},
    )


def forecast_load(profile: LoadProfile, load: str, now: TimeSlot, lead_slots: int) -> float | None:
    """The highest load expected within the next `lead_slots` slots; None without earlier days."""
    of_load = profile.days.get(load, {})
    earlier = [
        values
        for day, values in sorted(of_load.items())
        if day != now.day and profile.working.get(day) == now.working and len(values) == SLOTS
    ]
    ahead = [(now.slot + step) % SLOTS for step in range(1, lead_slots + 1)]
    peaks = [peak for values in earlier if (peak := _peak(values, ahead)) is not None]
    if not peaks:
        return None
    return statistics.median(peaks) * _relative_to_earlier_days(of_load.get(now.day), earlier, now.slot)


def _peak(values: list[float | None], slots: list[int]) -> float | None:
    found = [value for slot in slots if (value := values[slot]) is not None]
    return max(found, default=None)


def _relative_to_earlier_days(
    today: list[float | None] | None, earlier: list[list[float | None]], slot: int
) -> float:
    """Today's load of the last hour as a share of the earlier days', at most 1."""
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


def _recent_days(working: dict[str, bool]) -> set[str]:
    """The newest day and those up to a week before it: today and the last seven."""
    newest = max(working, key=_order)
    try:
        oldest = (date.fromisoformat(newest) - timedelta(days=DAYS)).isoformat()
    except ValueError:  # days of a time-lapse
        return set(sorted(working, key=_order)[-DAYS - 1 :])
    return {day for day in working if day >= oldest and not day.startswith("day-")}


def _order(day: str) -> tuple[bool, int, str]:
    number = day.removeprefix("day-")
    return (day.startswith("day-"), int(number) if number.isdecimal() else 0, day)
