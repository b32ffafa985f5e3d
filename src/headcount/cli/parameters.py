"""Values of options: durations and times of day."""

from __future__ import annotations

import re

import click

_UNITS_S = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def duration(text: str) -> float:
    """Return the seconds of `90`, `90s`, `5m`, `2h` or `1d`.

    Raises:
        click.BadParameter: it is none of these.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?", text)
    if match is None or float(match[1]) <= 0:
        raise click.BadParameter(f"{text!r} is not a valid duration; use 30s, 5m, 8h or 2d")
    return float(match[1]) * _UNITS_S[match[2] or ""]


def time_of_day(text: str) -> float:
    """Return the seconds since midnight of `09:30`.

    Raises:
        click.BadParameter: it is no time of day.
    """
    match = re.fullmatch(r"(\d{1,2}):(\d{2})", text)
    if match is None or int(match[1]) > 23 or int(match[2]) > 59:
        raise click.BadParameter(f"{text!r} is not a valid time of day; use 09:30")
    return 3600.0 * int(match[1]) + 60.0 * int(match[2])
