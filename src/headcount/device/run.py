"""A device as a program: its account, and the loop from its positions to its reports."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from headcount.device.client import ClientStatus, DeviceClient
from headcount.device.credentials import (
    DeviceCertificates,
    DeviceCredentials,
    credentials_of,
    read_credentials,
    redeem,
    write_credentials,
)
from headcount.device.positions import DevicePosition
from headcount.errors import DeviceLibraryError

#: Seconds for which waiting fixes are sent at the end of the positions, and after a signal.
FLUSH_END_S, FLUSH_SIGNAL_S = 30.0, 3.0
SHOW_INTERVAL_S = 1.0


def account(
    credentials: str, link: str | None = None, url: str = "", certificates: DeviceCertificates | None = None
) -> DeviceCredentials:
    """The credentials in a file; if it does not exist, those of a link, which are written to it.

    Args:
        credentials: the path, or the JSON itself.
        link: one-time link or claim code.
        url: URL of the API, for a claim code.
        certificates: to trust, if not the system's.

    Raises:
        DeviceLibraryError: there are none.
    """
    if credentials.lstrip().startswith("{"):
        try:
            return credentials_of(json.loads(credentials), "credentials")
        except ValueError as error:
            raise DeviceLibraryError("credentials", "are not JSON", "Correct them") from error
    path = Path(credentials)
    if link is None or path.exists():
        return read_credentials(path)
    try:
        path.touch(mode=0o600)  # an exchange uses the link up: first find out whether the file can be written
    except OSError as error:
        problem = f"cannot be written: {error.strerror}"
        raise DeviceLibraryError(f"credentials {path}", problem, "Choose another file") from error
    try:
        found = redeem(link, url, certificates)
    except DeviceLibraryError:
        path.unlink()
        raise
    write_credentials(path, found)
    return found


def report_all(
    client: DeviceClient,
    positions: Iterator[DevicePosition],
    stop: threading.Event,
    show: Callable[[str], None],
) -> str:
    """Report positions until their end, or until `stop`; shows the status each second, and returns the last one.

    Raises:
        DeviceLibraryError: fixes could not be delivered, and there is no file that retains them.
    """
    taken, reported = 0, 0
    client.start()
    try:
        shown_s = 0.0
        for position in positions:
            taken += 1
            reported += client.report(position) is not None
            if time.monotonic() >= shown_s:
                show(status_text(client.status, reported))
                shown_s = time.monotonic() + SHOW_INTERVAL_S
            if stop.is_set():
                break
    finally:
        client.close(FLUSH_SIGNAL_S if stop.is_set() else FLUSH_END_S)
    status = client.status
    if status.waiting and not client.has_file:
        remedy = "Use a buffer file, and run it again"
        raise DeviceLibraryError(
            f"{status.waiting} fixes", f"could not be delivered: {_cause(status)}", remedy
        )
    return f"{taken} positions, {status_text(status, reported)}"


def _cause(status: ClientStatus) -> str:
    return status.problem or ("no answer in time" if status.knows_site else "the broker publishes no site")


def status_text(status: ClientStatus, reported: int) -> str:
    """The status in a line."""
    place = "site unknown" if not status.knows_site else "off site" if status.is_off_site else "on site"
    refused = f", {status.refused} refused" if status.refused else ""
    problem = f", {status.problem}" if status.problem else ""
    return f"{place}, {reported} reported, {status.acknowledged} delivered{refused}, {status.waiting} waiting{problem}"
