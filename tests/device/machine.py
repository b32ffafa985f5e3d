"""A machine that runs the device library, as a process that a test can kill."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, Queue
from typing import Any, Self

from headcount.device import DevicePosition
from headcount.device.reporting import DEFAULT_RULES, Reporter
from headcount.device.site_areas import DeviceKind, SiteAreas
from waiting import LIMIT_S

#: Reports each position of standard input; a printed line means that `report` has returned.
PROGRAM = """
import json, sys
from pathlib import Path
from headcount.device import DeviceClient, credentials_of
from headcount.device.positions import position_of_payload

options = json.loads(sys.argv[1])
client = DeviceClient(
    credentials_of(options.pop("credentials"), "test"), buffer=Path(options.pop("buffer")), **options
)
with client:
    for line in sys.stdin:
        print(json.dumps(client.report(position_of_payload(line))), flush=True)
"""


class Machine:
    """A device that takes positions from the test."""

    def __init__(self, credentials: dict[str, Any], buffer: Path, **options: Any) -> None:
        """Start it; `options` are those of `DeviceClient`."""
        given = json.dumps({"credentials": credentials, "buffer": str(buffer), **options})
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, given], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._printed: Queue[str] = Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill9()

    def report(self, positions: Sequence[DevicePosition]) -> list[str | None]:
        """Why each of these positions is reported, once the machine has taken all of them."""
        assert self.process.stdin is not None
        for position in positions:
            self.process.stdin.write(position.payload().decode() + "\n")
        self.process.stdin.flush()
        try:
            return [json.loads(self._printed.get(timeout=LIMIT_S)) for _ in positions]
        except Empty:
            message = f"the machine has ended with {self.process.poll()}"
            raise AssertionError(message) from None

    def kill9(self) -> None:
        """Kill it without a clean end."""
        self.process.kill()
        self._end()

    def end(self) -> None:
        """End it cleanly: its input ends."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(LIMIT_S) == 0
        self._end()

    def _end(self) -> None:
        self.process.wait()
        self._reader.join()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._printed.put(line)


def reports_of(track: Sequence[DevicePosition], site: Any, kind: DeviceKind) -> list[DevicePosition]:
    """The positions that a device reports that runs without interruption."""
    reporter = Reporter(kind, DEFAULT_RULES[kind])
    reporter.site = SiteAreas(site, kind)
    return [position for position in track if reporter.judge(position)]
