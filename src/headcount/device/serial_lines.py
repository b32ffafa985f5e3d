"""Lines of a serial GNSS receiver."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

from headcount.errors import DeviceLibraryError

_log = logging.getLogger(__name__)

#: The bit rates of receivers.
BAUD_RATES = {
    rate: getattr(termios, f"B{rate}") for rate in (4800, 9600, 19_200, 38_400, 57_600, 115_200, 230_400)
}
DEFAULT_BAUD = 9600
MAX_LINE_BYTES = 4096
POLL_INTERVAL_S = 0.5
#: Seconds before a receiver that was unplugged is opened again.
RETRY_S = 2.0


def serial_lines(path: Path, baud: int, stop: threading.Event) -> Iterator[str]:
    """Lines until `stop`; opens the port again when the receiver is unplugged.

    Raises:
        DeviceLibraryError: the port cannot be opened at the start, or the bit rate is not supported.
    """
    if baud not in BAUD_RATES:
        rates = ", ".join(map(str, BAUD_RATES))
        raise DeviceLibraryError(
            f"serial port {path}", f"{baud} baud is not supported", f"Use one of {rates}"
        )
    try:
        port = _open(path, baud)
    except (OSError, termios.error) as error:
        raise DeviceLibraryError(
            f"serial port {path}", f"cannot be opened: {error}", "Is the receiver plugged in?"
        ) from error
    while not stop.is_set():
        with contextlib.suppress(OSError):
            yield from read_lines(port, stop)
        os.close(port)
        if not stop.is_set():
            _log.warning("%s: the receiver is unplugged; waiting for it", path)
        while not stop.wait(RETRY_S):
            try:
                port = _open(path, baud)
                break
            except (OSError, termios.error):
                continue


def _open(path: Path, baud: int) -> int:
    """Open the port: 8 bits, no parity, no control characters, no flow control."""
    port = os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        attributes = termios.tcgetattr(port)
        control = termios.CS8 | termios.CREAD | termios.CLOCAL
        attributes[:6] = [termios.IGNBRK, 0, control, 0, BAUD_RATES[baud], BAUD_RATES[baud]]
        termios.tcsetattr(port, termios.TCSANOW, attributes)
    except termios.error:
        os.close(port)
        raise
    return port


def read_lines(descriptor: int, stop: threading.Event) -> Iterator[str]:
    """Lines of an open file until its end, or until `stop`."""
    rest = b""
    while not stop.is_set():
        if not select.select([descriptor], [], [], POLL_INTERVAL_S)[0]:
            continue
        data = os.read(descriptor, 4096)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        rest = rest[-MAX_LINE_BYTES:]
        for line in lines:
            yield line.decode("ascii", "replace")
