"""The days as they go by: what is now goes into the profile, what was comes out as a forecast. Pure."""

from __future__ import annotations

import math
from datetime import tzinfo

from headcount.scaling import forecast
from headcount.scaling.scale_settings import ScaleSettings

#: A profile is stored when a slot ends, but in time-lapse not more often than this.
STORE_S = 30.0


class Days:
    """The profile, and the slot that is going on."""

    def __init__(self, settings: ScaleSettings, zone: tzinfo) -> None:
        """An empty profile, in days of the site's time zone."""
        self.profile = forecast.Profile()
        self._zone = zone
        self._day_s = settings.day_s
        self._lead = max(math.ceil(settings.forecast_lead_s / (settings.day_s / forecast.SLOTS)), 1)
        self._place: forecast.Place | None = None
        self._sums: dict[str, tuple[float, int]] = {}
        self._stored_s = 0.0

    def ahead(self, now_s: float) -> dict[str, float | None]:
        """The loads to be ready for."""
        where = forecast.place(now_s, self._zone, self._day_s)
        lead = min(self._lead, forecast.SLOTS - 1)
        return {load: forecast.forecast(self.profile, load, where, lead) for load in self.profile.days}

    def note(self, loads: dict[str, float], now_s: float) -> bool:
        """Add what is now; whether the profile should be stored."""
        where = forecast.place(now_s, self._zone, self._day_s)
        before, self._place = self._place, where
        changed = before is not None and where != before and bool(self._sums)
        if changed and before is not None:
            means = {load: total / count for load, (total, count) in self._sums.items()}
            self.profile = forecast.with_slot(self.profile, before, means)
            self._sums = {}
        for load, value in loads.items():
            total, count = self._sums.get(load, (0.0, 0))
            self._sums[load] = total + value, count + 1
        if not changed or now_s - self._stored_s < STORE_S:
            return False
        self._stored_s = now_s
        return True
