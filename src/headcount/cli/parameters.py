"""Values of options: durations, times of day and instants."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

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


def instant(text: str) -> float:
    """Return the Unix seconds of `1764240000` or `2026-11-27T10:40:00Z`; without a time zone, it is UTC.

    Raises:
        click.BadParameter: it is neither.
    """
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        problem = f"{text!r} is not a valid time; use Unix seconds, or ISO 8601 such as 2026-11-27T10:40:00Z"
        raise click.BadParameter(problem) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def site_change(text: str) -> tuple[float, Path]:
    """Return the instant and the file of `2026-11-27T10:40:00Z=new.geojson`.

    Raises:
        click.BadParameter: it has another form.
    """
    at, equals, file = text.partition("=")
    if not equals or not file:
        raise click.BadParameter(f"{text!r} is not of the form TIME=FILE")
    return instant(at), Path(file)
