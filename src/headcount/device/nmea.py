"""NMEA 0183 sentences → positions; pure.

A position comes with each valid RMC, with the accuracy of the last GST, else of the last GGA or GSA.
"""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta

from headcount.device.positions import DevicePosition

MAX_SENTENCE_CHARS = 128  # the standard has 82
#: Metres of horizontal error (68 %) for a dilution of precision of 1, of a receiver without corrections.
METRES_PER_HDOP = 5.0
#: Radius that contains 68 % of a two-dimensional normal error of deviation 1.
RADIUS_68 = math.sqrt(-2 * math.log(1 - 0.68))
#: An accuracy is used for this time.
ACCURACY_AGE_S = 10.0
KMH_PER_KNOT = 1.852
#: Receivers count weeks modulo 1024: after about 20 years, some report a date that much too early.
ROLLOVER = timedelta(weeks=1024)
#: A live date before this is one of those.
EARLIEST_LIVE = date(2026, 1, 1)


class NmeaReader:
    """Reads sentences in the order in which a receiver sends them; others and damaged ones are ignored."""

    def __init__(self, earliest: date = EARLIEST_LIVE) -> None:
        """Take the earliest possible date; `date.min` for recordings of any age."""
        self._earliest = earliest
        self._acc_m = self._hdop_acc_m = self._alt_m = math.nan
        self._acc_s = self._hdop_s = self._alt_s = -math.inf  # seconds of the day
        self._time_s = 0.0
        self.damaged = 0  # sentences with a wrong checksum

    def read(self, line: str) -> DevicePosition | None:
        """Take a sentence; returns a position if it completes one."""
        start = line.rfind("$")
        sentence, _, checksum = line[start + 1 :].strip().partition("*")
        if start < 0 or len(line) > MAX_SENTENCE_CHARS:
            return None
        if not _is_intact(sentence, checksum):
            self.damaged += 1
            return None
        name, *fields = sentence.split(",")
        try:
            match name[2:]:
                case "RMC":
                    return self._rmc(fields)
                case "GGA":
                    self._gga(fields)
                case "GSA":
                    self._take_hdop(float(fields[15]), self._time_s)
                case "GST":
                    self._acc_s = _seconds(fields[0])
                    self._acc_m = RADIUS_68 * math.hypot(float(fields[5]), float(fields[6])) / math.sqrt(2)
        except (ValueError, IndexError):  # empty fields: the receiver does not know
            return None
        return None

    def _rmc(self, fields: list[str]) -> DevicePosition | None:
        time_s = self._time_s = _seconds(fields[0])
        if fields[1] != "A":
            return None
        day = datetime.strptime(fields[8], "%d%m%y").replace(tzinfo=UTC)
        while day.date() < self._earliest:
            day += ROLLOVER
        return DevicePosition(
            day.timestamp() + time_s,
            _degrees(fields[2], fields[3]),
            _degrees(fields[4], fields[5]),
            acc=_fresh(self._acc_m, self._acc_s, time_s) or _fresh(self._hdop_acc_m, self._hdop_s, time_s),
            vel=float(fields[6]) * KMH_PER_KNOT if fields[6] else None,
            cog=float(fields[7]) if fields[7] else None,
            alt=_fresh(self._alt_m, self._alt_s, time_s),
        )

    def _gga(self, fields: list[str]) -> None:
        time_s = self._time_s = _seconds(fields[0])
        if fields[5] == "0":
            return
        self._take_hdop(float(fields[7]), time_s)
        self._alt_m, self._alt_s = float(fields[8]), time_s

    def _take_hdop(self, hdop: float, time_s: float) -> None:
        self._hdop_acc_m, self._hdop_s = METRES_PER_HDOP * hdop, time_s


def _is_intact(sentence: str, checksum: str) -> bool:
    found = 0
    for char in sentence:
        found ^= ord(char)
    try:
        return found == int(checksum[:2], 16)
    except ValueError:
        return False


def _seconds(text: str) -> float:
    """Seconds of the day of `hhmmss.sss`."""
    return int(text[:2]) * 3600 + int(text[2:4]) * 60 + float(text[4:])


def _degrees(text: str, direction: str) -> float:
    """Degrees of `dddmm.mmmm`."""
    point = text.index(".") if "." in text else len(text)
    degrees = int(text[: point - 2]) + float(text[point - 2 :]) / 60
    return -degrees if direction in "SW" else degrees


def _fresh(value: float, at_s: float, now_s: float) -> float | None:
    """A value that is at most `ACCURACY_AGE_S` old, also across midnight."""
    return value if math.isfinite(at_s) and (now_s - at_s) % 86_400 <= ACCURACY_AGE_S else None
