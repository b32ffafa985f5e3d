"""`python -m headcount.device`: `headcount device run` for machines with headcount and paho-mqtt only."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from pathlib import Path

from headcount.device.client import DeviceClient
from headcount.device.credentials import DeviceCertificates
from headcount.device.position_sources import positions_from
from headcount.device.run import account, report_all
from headcount.errors import DeviceLibraryError

_log = logging.getLogger("headcount.device")


def main() -> int:
    """Run until the end of the source, SIGINT or SIGTERM; returns the exit code."""
    parser = argparse.ArgumentParser("python -m headcount.device", description=__doc__)
    parser.add_argument(
        "--from",
        dest="source",
        required=True,
        help="gpsd, gpsd:HOST:PORT, serial:PATH, serial:PATH@BAUD, nmea:FILE, gpx:FILE, or - for standard input",
    )
    parser.add_argument("--credentials", required=True, help="file with the device's credentials")
    parser.add_argument("--link", help="one-time link or claim code to exchange for them")
    parser.add_argument("--url", default="", help="URL of the API, for a claim code")
    parser.add_argument("--transport", choices=["mqtt", "websocket", "http"], default="mqtt", help="protocol")
    parser.add_argument("--ca", type=Path, help="certificates to trust (PEM)")
    parser.add_argument("--certificate", type=Path, help="certificate of the device (PEM)")
    parser.add_argument("--key", type=Path, help="its key (PEM)")
    parser.add_argument("--buffer", type=Path, help="file for fixes that are not delivered yet")
    parser.add_argument("--pace", choices=["real", "fast"], default="real", help="pace of a recording")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        certificates = DeviceCertificates(given.ca, given.certificate, given.key)
        client = DeviceClient(
            account(given.credentials, given.link, given.url, certificates),
            transport=given.transport,
            certificates=certificates,
            buffer=given.buffer,
            on_command=lambda order: _log.info("command %s %s", order.name, order.text),
        )
        positions = positions_from(given.source, stop, given.pace)
        _log.info("%s", report_all(client, positions, stop, lambda _: None))
    except DeviceLibraryError as error:
        _log.error("%s", error)  # the text has all that the user needs
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
