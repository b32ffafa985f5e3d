"""The history's folders, one an hour."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

HOUR_S = 3600
#: The years 1970 to 9999; a hostile `t` is moved to the nearer end, because the row must not be lost.
T_MIN_S, T_MAX_S = 0.0, 253_402_300_799.0
_NAME = "hour=%Y-%m-%dT%H"


def folder(data: Path) -> Path:
    """Return the history's folder in the data folder."""
    return data / "history"


def hour_name(t_s: float) -> str:
    """Return the folder name of the hour of `t_s` (Unix seconds): `hour=2026-11-24T13`, in UTC."""
    return datetime.fromtimestamp(t_s // HOUR_S * HOUR_S, UTC).strftime(_NAME)


def hour_start(name: str) -> float | None:
    """Return the start of the hour of a folder name in Unix seconds; None for other names."""
    try:
        return datetime.strptime(name, _NAME).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
