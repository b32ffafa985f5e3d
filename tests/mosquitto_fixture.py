"""A real Mosquitto for a test: on a free port, in the test's own folder, gone at the end.

with Mosquitto(tmp_path) as mosquitto:
    mosquitto.port
    mosquitto.kill()     # SIGKILL
    mosquitto.start()    # again, with what it stored
"""

from __future__ import annotations

import getpass
import shutil
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest

from headcount.runtime.ports import free_port
from waiting import BUSY_S, wait_until

#: Debian's folder for servers is not on every user's PATH.
PROGRAM = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin") or ""

needs_mosquitto = pytest.mark.skipif(not PROGRAM, reason="mosquitto is not installed")


class Mosquitto:
    """A broker that stores sessions and messages on disk after each change."""

    def __init__(self, folder: Path, *lines: str, anonymous: bool = True) -> None:
        """Add `lines` to its configuration."""
        self.folder = folder / "mosquitto"
        self.folder.mkdir()
        self.port = free_port(0)
        self.process: subprocess.Popen[bytes] | None = None
        (self.folder / "mosquitto.conf").write_text(
            "\n".join(
                [
                    f"listener {self.port} 127.0.0.1",
                    f"allow_anonymous {str(anonymous).lower()}",
                    f"user {getpass.getuser()}",  # started by root, it would become another user
                    "persistence true",
                    f"persistence_location {self.folder}/",
                    "autosave_on_changes true",
                    "autosave_interval 1",
                    "max_queued_messages 0",
                    *lines,
                    "",
                ]
            )
        )

    def __enter__(self) -> Self:
        print(version())
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        with (self.folder / "log").open("ab") as log:
            command = [PROGRAM, "-c", str(self.folder / "mosquitto.conf"), "-v"]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until(self._accepts, "mosquitto starts", BUSY_S)

    def _accepts(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text()
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it with a signal."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)
            self.process.wait(BUSY_S)
            self.process = None


def version() -> str:
    """The version that is installed."""
    done = subprocess.run([PROGRAM, "-h"], capture_output=True, text=True, check=False)
    return done.stdout.splitlines()[0]
