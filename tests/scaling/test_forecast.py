"""The forecast from the load profile of earlier days."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headcount.scaling.forecast import DAYS, SLOTS, LoadProfile, TimeSlot, add_slot, forecast_load, time_slot

DUBLIN = ZoneInfo("Europe/Dublin")


def known(days: dict[str, float], slot: int = 120, *, working: bool = True) -> LoadProfile:
    """A profile in which some days have a load in one slot."""
    profile = LoadProfile()
    for day, value in days.items():
        profile = add_slot(profile, TimeSlot(day, working, slot), {"fixes": value})
    return profile


def test_slots_are_of_the_local_day() -> None:
    """Ten in the morning is the same slot in winter and in summer, and Saturday is not a working day."""
    winter = datetime(2026, 1, 12, 10, 2, tzinfo=DUBLIN).timestamp()
    summer = datetime(2026, 7, 4, 10, 2, tzinfo=DUBLIN).timestamp()
    assert time_slot(winter, DUBLIN) == TimeSlot("2026-01-12", working=True, slot=120)
    assert time_slot(summer, DUBLIN) == TimeSlot("2026-07-04", working=False, slot=120)


def test_the_median_of_earlier_days_is_forecast() -> None:
    """The median of three working days is forecast up to the lead time, and nothing where no day is known."""
    profile = known({"2026-11-23": 100.0, "2026-11-24": 300.0, "2026-11-25": 5000.0})
    today = TimeSlot("2026-11-26", working=True, slot=118)
    assert forecast_load(profile, "fixes", today, 2) == 300.0
    assert forecast_load(profile, "fixes", today, 1) is None
    assert forecast_load(profile, "connections", today, 2) is None


def test_weekends_are_forecast_from_weekends() -> None:
    """Working days give no forecast for a Saturday."""
    profile = known({"2026-11-23": 100.0})
    assert forecast_load(profile, "fixes", TimeSlot("2026-11-28", working=False, slot=119), 1) is None


def test_a_day_counts_for_a_week() -> None:
    """The profile holds today and the last seven days for every load."""
    profile = LoadProfile()
    for day in range(1, 20):
        profile = add_slot(
            profile, TimeSlot(f"2026-11-{day:02d}", True, 3), {"fixes": 1.0, "connections": 2.0}
        )
    assert sorted(profile.working) == [f"2026-11-{day:02d}" for day in range(19 - DAYS, 20)]
    assert set(profile.days["fixes"]) == set(profile.days["connections"]) == set(profile.working)


def test_a_holiday_is_forecast_lower() -> None:
    """A day with a tenth of the usual load in its last hour is forecast at about a tenth, one with more not higher."""
    profile = LoadProfile()
    for day in ("2026-11-23", "2026-11-24"):
        for slot in range(100, 140):
            profile = add_slot(profile, TimeSlot(day, True, slot), {"fixes": 1000.0})
    for had, expected in ((100.0, 1000 * 150 / 1050), (2000.0, 1000.0)):
        today = profile
        for slot in range(100, 112):
            today = add_slot(today, TimeSlot("2026-11-25", True, slot), {"fixes": had})
        ahead = forecast_load(today, "fixes", TimeSlot("2026-11-25", True, 112), 2)
        assert ahead == pytest.approx(expected)


def test_a_profile_survives_json_and_stays_small() -> None:
    """A full week of three loads survives JSON unchanged and fits into a message."""
    profile = LoadProfile()
    for day in range(1, 9):
        for slot in range(SLOTS):
            loads = dict.fromkeys(("fixes", "connections", "messages"), 123456.78)
            profile = add_slot(profile, TimeSlot(f"2026-11-{day:02d}", True, slot), loads)
    encoded = msgspec.json.encode(profile)
    assert msgspec.json.decode(encoded, type=LoadProfile) == profile
    assert len(encoded) < 200_000


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 28), st.integers(0, SLOTS - 1), st.floats(allow_nan=True)), max_size=40
    ),
    st.integers(0, SLOTS - 1),
    st.integers(1, 12),
)
def test_a_forecast_is_within_what_was(rows: list[tuple[int, int, float]], slot: int, lead: int) -> None:
    """Any recorded loads give a forecast between 0 and the largest load, or none."""
    profile = LoadProfile()
    for day, at, value in rows:
        profile = add_slot(profile, TimeSlot(f"2026-11-{day:02d}", True, at), {"fixes": value})
    ahead = forecast_load(profile, "fixes", TimeSlot("2026-11-29", True, slot), lead)
    usable = [value for _, _, value in rows if 0 <= value < 1e12]
    assert ahead is None or 0 <= ahead <= max(usable) + 0.01
