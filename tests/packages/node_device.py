"""A Node.js program with the package @headcount/device, as a process that a test can kill."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from npm_packages import installed
from system.running import ROOT
from waiting import LIMIT_S, wait_until

SOURCE = ROOT / "packages" / "device"
#: A report each second: a walk of ten minutes leaves a backlog of hundreds of fixes.
EACH_SECOND = {"intervalS": 1, "gapS": 1}


def built_package(folder: Path) -> Path:
    """The package, built in this folder from the sources and its lock."""
    tools = installed(SOURCE) / "node_modules"
    package = folder / "device"
    shutil.copytree(SOURCE, package, ignore=shutil.ignore_patterns("node_modules", "dist"))
    (package / "node_modules").symlink_to(tools)
    subprocess.run(["npm", "run", "--silent", "build"], cwd=package, check=True, timeout=LIMIT_S)
    return package


class NodeDevice:
    """A device that takes positions from the test."""

    def __init__(self, package: Path, **options: Any) -> None:
        """Start it; `options` are those of packages/device/test/program.mjs."""
        self.reasons: list[str | None] = []
        self.status: dict[str, Any] = {}
        self.node = ""
        self._process = subprocess.Popen(
            ["node", "test/program.mjs"],
            cwd=package,
            env=os.environ | {"DEVICE": json.dumps(options)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        wait_until(lambda: self.node, "the program starts")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill9()

    def report(self, positions: Iterable[dict[str, float]]) -> list[str | None]:
        """Why each of these positions is reported, once all that are reported are stored on disk."""
        assert self._process.stdin is not None
        first, sent = len(self.reasons), 0
        for position in positions:
            self._process.stdin.write(json.dumps(position) + "\n")
            sent += 1
        self._process.stdin.flush()
        wait_until(lambda: len(self.reasons) == first + sent, "all positions are judged")
        return self.reasons[first:]

    def becomes(self, **expected: Any) -> None:
        """Wait until the status has these values."""
        wait_until(
            lambda: self.status and all(self.status[name] == value for name, value in expected.items()),
            f"{expected} in {self.status}",
        )

    def end(self) -> None:
        """End it cleanly: its input ends."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(LIMIT_S) == 0

    def kill9(self) -> None:
        """Kill it without a clean end."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for text in self._process.stdout:
            line = json.loads(text)
            self.status = line.get("status", self.status)
            self.node = line.get("node", self.node)
            if "reason" in line:
                self.reasons.append(line["reason"])
