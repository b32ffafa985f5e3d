"""Positions from gpsd, by its JSON protocol over TCP."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from headcount.device.positions import DevicePosition, position_of
from headcount.device.retry_delay import retry_delay_s
from headcount.device.uplink import random_share

_log = logging.getLogger(__name__)

HOST, PORT = "127.0.0.1", 2947
_WATCH = b'?WATCH={"enable":true,"json":true};\n'
#: gpsd reports errors of 95 % confidence; this share of their radius contains 68 %.
SHARE_OF_95 = 0.62
KMH_PER_MPS = 3.6
MAX_LINE_BYTES = 64 << 10
POLL_INTERVAL_S = 0.5
CONNECT_TIMEOUT_S = 5.0
#: gpsd reports every second while it has a receiver; after this time the connection is opened again.
QUIET_S = 60.0


def gpsd_positions(host: str, port: int, stop: threading.Event) -> Iterator[DevicePosition]:
    """Positions until `stop`; connects again whenever the connection breaks."""
    failures = 0
    while not stop.is_set():
        try:
            for position in _watch(host, port, stop):
                failures = 0
                yield position
        except OSError as error:
            if failures == 0:
                _log.warning("gpsd %s:%d: %s; trying again", host, port, error)
        stop.wait(retry_delay_s(failures, random_share()))
        failures += 1


def _watch(host: str, port: int, stop: threading.Event) -> Iterator[DevicePosition]:
    with socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S) as connection:
        connection.sendall(_WATCH)
        connection.settimeout(POLL_INTERVAL_S)
        rest, received_s = b"", time.monotonic()
        while not stop.is_set():
            try:
                data = connection.recv(65_536)
            except TimeoutError:
                if time.monotonic() > received_s + QUIET_S:
                    return
                continue
            if not data:
                raise ConnectionError("gpsd closed the connection")
            received_s = time.monotonic()
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > MAX_LINE_BYTES:
                raise ConnectionError("gpsd sends a line that is too long")
            for line in lines:
                position = position_of_report(line)
                if position:
                    yield position


def position_of_report(line: bytes) -> DevicePosition | None:
    """The position in a report of gpsd, if it has one."""
    try:
        report = json.loads(line)
        if report["class"] != "TPV" or report["mode"] < 2:
            return None
        return position_of(
            {
                "tst": datetime.fromisoformat(report["time"]).timestamp(),
                "lat": report["lat"],
                "lon": report["lon"],
                "acc": _scaled(_error_m(report), SHARE_OF_95),
                "vel": _scaled(report.get("speed"), KMH_PER_MPS),
                "cog": report.get("track"),
                "alt": report.get("altMSL", report.get("alt")),
            }
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _error_m(report: dict[str, Any]) -> float | None:
    """The horizontal error: as a radius, or the larger one of both axes."""
    errors: list[float] = [report[name] for name in ("epx", "epy") if name in report]
    error_m: float | None = report.get("eph", max(errors, default=None))
    return error_m


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
