"""Report the positions of a receiver: `python examples/raspberry_pi.py device.json gpsd`."""

import logging
import sys
import threading
from pathlib import Path

from headcount.device import DeviceClient, DeviceOrder, read_credentials
from headcount.device.position_sources import positions_from


def show(order: DeviceOrder) -> None:
    """Show a command, which the client has obeyed already."""
    print("command", order.name, order.text, flush=True)


logging.basicConfig(level=logging.INFO)
credentials, source = sys.argv[1:]
with DeviceClient(read_credentials(Path(credentials)), buffer=Path("fixes.db"), on_command=show) as device:
    for position in positions_from(source, threading.Event()):
        if reason := device.report(position):
            print("reported", reason, device.status, flush=True)
