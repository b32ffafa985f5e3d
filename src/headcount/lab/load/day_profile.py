"""A campus day as a curve: quiet at night, one peak in the morning, one in the afternoon. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

HOURS = 24.0
#: Hours of the two peaks, how wide they are (standard deviation, hours), and what is left at night.
PEAKS_H, WIDTH_H, NIGHT = (9.5, 16.0), 1.7, 0.05
#: A device reports this much less often at night than at a peak.
NIGHT_PACE = 0.4


def presence(hour: float) -> float:
    """The share of all devices that are connected at an hour of the day, `NIGHT` to 1."""
    bumps = sum(math.exp(-(((hour - peak) / WIDTH_H) ** 2) / 2) for peak in PEAKS_H)
    return min(1.0, NIGHT + (1 - NIGHT) * bumps)


def pace(hour: float) -> float:
    """How often a device reports at an hour, as a share of how often it does at a peak."""
    return NIGHT_PACE + (1 - NIGHT_PACE) * presence(hour)


@dataclass(frozen=True, slots=True)
class DayProfile:
    """A day that lasts so many seconds."""

    seconds: float

    def hour(self, at_s: float) -> float:
        """The hour of the day after so many seconds; before and after the day it is midnight."""
        return HOURS * min(max(at_s / self.seconds, 0.0), 1.0)

    def connected(self, at_s: float, devices: int) -> float:
        """How many of the devices are connected then."""
        return devices * presence(self.hour(at_s))

    def rate(self, at_s: float, peak_per_s: float) -> float:
        """Fixes a second of all devices together then, when a peak has so many."""
        hour = self.hour(at_s)
        return peak_per_s * presence(hour) * pace(hour)
