"""A real Node-RED with the package of this repository, headless, with flows of a test or of the examples."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from headcount.runtime.ports import free_ports
from npm_packages import installed
from system.running import ROOT
from waiting import BUSY_S, wait_until

EXAMPLES = ROOT / "examples" / "node-red"
PACKAGE = ROOT / "packages" / "node-red-contrib-headcount"


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that `npm pack` of the package contains, with its dependencies."""
    dependencies = installed(PACKAGE)
    folder = tmp_path_factory.mktemp("package")
    command = ["npm", "pack", "--pack-destination", str(folder), "--ignore-scripts", "--silent"]
    subprocess.run(command, cwd=PACKAGE, check=True, capture_output=True, timeout=60)
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as content:
        content.extractall(folder, filter="data")
    (folder / "package" / "node_modules").symlink_to(dependencies / "node_modules")
    return folder / "package"


class NodeRed:
    """A Node-RED whose user directory and flows are in a folder; `kill9` and `start` again as you like."""

    def __init__(
        self,
        folder: Path,
        package: Path,
        flow: Path | list[dict[str, Any]],
        variables: Mapping[str, str],
        credentials: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        """Run these flows with these environment variables and credentials (node → field → value)."""
        self._folder = folder
        self._port = free_ports(1)[0]
        self._process: subprocess.Popen[bytes] | None = None
        # connections that are kept would be those of a killed process
        self._http = httpx.Client(
            trust_env=False, timeout=60, limits=httpx.Limits(max_keepalive_connections=0)
        )
        self._environment = os.environ | {"HEADLESS": "1", "PORT": str(self._port)} | dict(variables)
        self.log = folder / "node-red.txt"
        modules = folder / "user" / "node_modules"
        modules.mkdir(parents=True)
        (modules / PACKAGE.name).symlink_to(package)
        shutil.copy(EXAMPLES / "settings.js", folder)
        nodes = json.loads(flow.read_text()) if isinstance(flow, Path) else flow
        (folder / "user" / "flows.json").write_text(json.dumps(nodes))
        (folder / "user" / "flows_cred.json").write_text(json.dumps(credentials or {}))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()
        self.stop()

    def start(self) -> None:
        """Start, and wait until the flows run."""
        # not through npm: a signal to npm doesn't always reach what it runs
        program = installed(EXAMPLES) / "node_modules" / ".bin" / "node-red"
        command = [str(program), "--userDir", "user", "--settings", "settings.js", "flows.json"]
        before = self._started()
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                command, cwd=self._folder, env=self._environment, stdout=output, stderr=output
            )
        wait_until(lambda: self._started() > before or self._process.poll() is not None, "Node-RED", BUSY_S)  # type: ignore[union-attr]
        assert self._process.poll() is None, self.printed()

    def stop(self) -> None:
        """End it as an administrator does."""
        if self._process is None:
            return
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(BUSY_S)
        self.kill9()

    def kill9(self) -> None:
        """End it without a chance to do anything."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def post(self, path: str, body: object) -> httpx.Response:
        """Send a request to an `http in` node, or to the API of Node-RED."""
        answer = self._http.post(f"http://127.0.0.1:{self._port}{path}", json=body)
        assert answer.is_success, answer.text
        return answer

    def deploy(self, flow: list[dict[str, Any]]) -> None:
        """Replace the flows, as the editor does, and wait until they run."""
        before = self._started()
        self.post("/flows", flow)
        wait_until(lambda: self._started() > before, "the new flows", BUSY_S)

    def printed(self) -> str:
        """Everything that it has printed."""
        return self.log.read_text() if self.log.exists() else ""

    def version(self) -> str:
        """The version that it printed."""
        found = re.search(r"Node-RED version: (\S+)", self.printed())
        return found[1] if found else ""

    def errors(self) -> list[str]:
        """The lines with errors."""
        return [line for line in self.printed().splitlines() if "[error]" in line]

    def _started(self) -> int:
        return self.printed().count("Started flows")


@contextmanager
def mosquitto(folder: Path) -> Iterator[int]:
    """A Mosquitto for this machine only; gives its port. The test is skipped without the program."""
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if program is None:
        pytest.skip("mosquitto is not installed")
    port = free_ports(1)[0]
    log = folder / "mosquitto.txt"
    with (
        log.open("wb") as output,
        subprocess.Popen([program, "-v", "-p", str(port)], stdout=output, stderr=output) as process,
    ):
        wait_until(lambda: "running" in log.read_text(), "mosquitto")
        try:
            yield port
        finally:
            process.terminate()
