"""The load of a campus day: low at night, with peaks in the morning and in the afternoon. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

HOURS = 24.0
#: Hours of the two peaks, their standard deviation in hours, and the share of devices at night.
PEAKS_H, WIDTH_H, NIGHT = (9.5, 16.0), 1.7, 0.05
#: Reporting rate of a device at night relative to a peak.
NIGHT_PACE = 0.4


def presence(hour: float) -> float:
    """The share of all devices that are connected at an hour of the day, `NIGHT` to 1."""
    bumps = sum(math.exp(-(((hour - peak) / WIDTH_H) ** 2) / 2) for peak in PEAKS_H)
    return min(1.0, NIGHT + (1 - NIGHT) * bumps)


def pace(hour: float) -> float:
    """The reporting rate of a device at an hour, relative to a peak."""
    return NIGHT_PACE + (1 - NIGHT_PACE) * presence(hour)


@dataclass(frozen=True, slots=True)
class DayProfile:
    """A day that lasts `seconds`."""

    seconds: float

    def hour(self, at_s: float) -> float:
        """The hour of the day at a time since the start; midnight before and after the day."""
        return HOURS * min(max(at_s / self.seconds, 0.0), 1.0)

    def connected(self, at_s: float, devices: int) -> float:
        """Number of connected devices at a time."""
        return devices * presence(self.hour(at_s))

    def rate(self, at_s: float, peak_per_s: float) -> float:
        """Fixes per second of all devices at a time, given the rate at a peak."""
        hour = self.hour(at_s)
        return peak_per_s * presence(hour) * pace(hour)
