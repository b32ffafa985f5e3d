"""Recorded positions: GPX tracks and NMEA files, sent as if the movement happened now."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree as ET

from headcount.device.nmea import METRES_PER_HDOP, NmeaReader
from headcount.device.positions import DevicePosition
from headcount.errors import DeviceLibraryError

Pace = Literal["real", "fast"]
#: A recording is read whole.
MAX_FILE_BYTES = 64 << 20


def read_gpx(path: Path) -> list[DevicePosition]:
    """The track points of a GPX file, with their times.

    Raises:
        DeviceLibraryError: it cannot be read, or a point has no time or position.
    """
    try:
        root = ET.fromstring(_text(path))  # noqa: S314  # expat limits the expansion of entities
    except ET.ParseError as error:
        raise _unreadable(path, f"is not XML: {error}") from error
    found = []
    for point in root.iter():
        if _name(point) == "trkpt":
            try:
                found.append(_point(point))
            except (ValueError, KeyError) as error:
                raise _unreadable(path, f"track point {len(found) + 1}: no valid {error}") from error
    return _in_order(path, found)


def read_nmea(path: Path) -> list[DevicePosition]:
    """The positions of a file of NMEA sentences.

    Raises:
        DeviceLibraryError: it cannot be read, or has no position.
    """
    reader = NmeaReader(earliest=date.min)
    read = map(reader.read, _text(path).splitlines())
    return _in_order(path, [position for position in read if position])


def replayed(
    track: Sequence[DevicePosition], pace: Pace, stop: threading.Event, now_s: float | None = None
) -> Iterator[DevicePosition]:
    """The positions of a track at new times.

    Args:
        track: positions in the order of time.
        pace: `real`: the first is now, and the others follow at their pace. `fast`: the last is now, and all come
            immediately.
        stop: ends the replay.
        now_s: the time now, if not that of the clock.
    """
    start_s = time.time() if now_s is None else now_s
    shift_s = start_s - track[0 if pace == "real" else -1].t
    for position in track:
        moved = replace(position, t=position.t + shift_s)
        if pace == "real" and stop.wait(max(0.0, moved.t - time.time())):
            return
        yield moved


def _point(point: ET.Element) -> DevicePosition:
    values = {_name(child): (child.text or "").strip() for child in point.iter() if child is not point}
    if "time" not in values:
        raise KeyError("time")
    moment = datetime.fromisoformat(values["time"])
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    hdop, speed_mps = _number(values, "hdop"), _number(values, "speed")
    return DevicePosition(
        moment.timestamp(),
        float(point.attrib["lat"]),
        float(point.attrib["lon"]),
        acc=None if hdop is None else hdop * METRES_PER_HDOP,
        vel=None if speed_mps is None else speed_mps * 3.6,
        cog=_number(values, "course"),
        alt=_number(values, "ele"),
    )


def _number(values: dict[str, str], name: str) -> float | None:
    try:
        number = float(values[name])
    except (KeyError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _name(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise _unreadable(path, f"has more than {MAX_FILE_BYTES >> 20} MiB")
        return path.read_text("utf-8", "replace")
    except OSError as error:
        raise _unreadable(path, f"cannot be read: {error.strerror}") from error


def _in_order(path: Path, found: list[DevicePosition]) -> list[DevicePosition]:
    if not found:
        raise _unreadable(path, "has no position")
    return sorted(found, key=lambda position: position.t)


def _unreadable(path: Path, problem: str) -> DeviceLibraryError:
    return DeviceLibraryError(str(path), problem, "Use a GPX track with times, or NMEA sentences with RMC")
