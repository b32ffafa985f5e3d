"""A GNSS receiver on a pseudo-terminal, and a real gpsd."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

GPSD = shutil.which("gpsd") or shutil.which("gpsd", path="/usr/sbin") or ""
#: A receiver in Limerick at 52° 40' 24.42" N, 8° 34' 23.23" W.
LAT, LON = 52 + 40.4070 / 60, -(8 + 34.3872 / 60)


def sentence(text: str) -> str:
    """A sentence with its checksum."""
    checksum = 0
    for char in text:
        checksum ^= ord(char)
    return f"${text}*{checksum:02X}"


def epoch(clock: str = "101530.00", day: str = "281126", *, hdop: str = "0.9", valid: str = "A") -> list[str]:
    """The sentences of one second, as a receiver sends them."""
    return [
        sentence(f"GNGGA,{clock},5240.4070,N,00834.3872,W,1,09,{hdop},23.4,M,54.0,M,,"),
        sentence(f"GNGSA,A,3,01,02,03,04,05,06,07,08,09,,,,1.7,{hdop},1.4,1"),
        sentence(f"GNRMC,{clock},{valid},5240.4070,N,00834.3872,W,010.0,084.4,{day},,,A"),
    ]


needs_gpsd = pytest.mark.skipif(not GPSD, reason="gpsd is not installed")


class Receiver:
    """A GNSS receiver on a pseudo-terminal, which sends an epoch every tenth of a second."""

    def __init__(self) -> None:
        self._controller, self._line = pty.openpty()
        self.path = os.ttyname(self._line)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Unplug it."""
        self._stop.set()
        self._thread.join()
        os.close(self._controller)
        os.close(self._line)

    def _run(self) -> None:
        os.set_blocking(self._controller, False)
        while not self._stop.wait(0.1):
            now = datetime.now(UTC)
            for line in epoch(f"{now:%H%M%S}.{now.microsecond // 10_000:02}", f"{now:%d%m%y}"):
                try:
                    os.write(self._controller, f"{line}\r\n".encode())
                except BlockingIOError:
                    break  # the buffer is full


@contextmanager
def gpsd(receiver: Receiver, port: int) -> Iterator[None]:
    """A gpsd that reads the receiver, killed at the end."""
    print(subprocess.run([GPSD, "-V"], capture_output=True, text=True, check=True).stdout)
    daemon = subprocess.Popen([GPSD, "-N", "-n", "-b", "-S", str(port), receiver.path])
    try:
        yield
    finally:
        daemon.kill()
        daemon.wait()
