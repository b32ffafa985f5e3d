"""Where positions come from, by the text of `--from`."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from headcount.device.gpsd import HOST, PORT, gpsd_positions
from headcount.device.nmea import NmeaReader
from headcount.device.positions import DevicePosition, position_of_payload
from headcount.device.recordings import Pace, read_gpx, read_nmea, replayed
from headcount.device.serial_lines import DEFAULT_BAUD, read_lines, serial_lines
from headcount.errors import DeviceLibraryError


def positions_from(source: str, stop: threading.Event, pace: Pace = "real") -> Iterator[DevicePosition]:
    """Positions of a source until `stop`, or until its end.

    Args:
        source: `gpsd`, `gpsd:HOST[:PORT]`, `serial:PATH[@BAUD]`, `nmea:FILE`, `gpx:FILE`, or `-` for standard input
            with NMEA sentences or a fix in JSON on each line.
        stop: ends a source that has no end of its own.
        pace: of a recording.

    Raises:
        DeviceLibraryError: the source cannot be opened, or is not one of these.
    """
    kind, _, place = source.partition(":")
    match kind:
        case "gpsd":
            host, _, port = place.partition(":")
            if port and not port.isdecimal():
                raise DeviceLibraryError(f"source {source}", f"{port!r} is not a port", "Use gpsd:HOST:PORT")
            return gpsd_positions(host or HOST, int(port or PORT), stop)
        case "serial" if place:
            path, _, baud = place.partition("@")
            rate = int(baud) if baud.isdecimal() else DEFAULT_BAUD if not baud else 0
            return _positions_of(serial_lines(Path(path), rate, stop))
        case "nmea" if place:
            return replayed(read_nmea(Path(place)), pace, stop)
        case "gpx" if place:
            return replayed(read_gpx(Path(place)), pace, stop)
        case "-":
            return _positions_of(read_lines(sys.stdin.fileno(), stop))
    raise DeviceLibraryError(
        f"source {source}", "is unknown", "Use gpsd, serial:PATH, nmea:FILE, gpx:FILE or -"
    )


def _positions_of(lines: Iterable[str]) -> Iterator[DevicePosition]:
    """The positions of lines with NMEA sentences or fixes in JSON; other lines are ignored."""
    reader = NmeaReader()
    for line in lines:
        try:
            position = position_of_payload(line) if line.startswith("{") else reader.read(line)
        except (ValueError, RecursionError):
            continue
        if position:
            yield position
