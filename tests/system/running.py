"""The whole system as a user runs it: `headcount up` on free ports, in the test's own folder.

with Up(tmp_path) as up:
    up.http("/v1/sites/s/counts")
    up.kill9("count")
    up.stop()

Whatever was started is ended with the block, however the test came out of it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
import psutil

from headcount.decoders.device_aliases import AliasResolver
from headcount.devices.registry_cache import RegistryCache
from headcount.runtime.ports import free_ports
from waiting import BUSY_S, LIMIT_S, wait_until

ROOT = Path(__file__).resolve().parents[2]
UL = ROOT / "sites" / "ul.geojson"
#: The processes under `up`.
ROLES = ("broker", "devices", "count", "history", "adapters", "api")
#: The limit for a start while eight others use the machine too.
START_S = 150.0
PORTS = ("mqtt", "ws", "http", "nats")

T = TypeVar("T")


def environment() -> dict[str, str]:
    """Ours, without what could configure headcount."""
    return {name: value for name, value in os.environ.items() if not name.startswith("HEADCOUNT_")}


def headcount(
    *arguments: str | Path, cwd: Path, timeout_s: float = 180.0
) -> subprocess.CompletedProcess[str]:
    """Run a command of headcount to its end."""
    return subprocess.run(
        [sys.executable, "-m", "headcount", *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )


class Up:
    """A running `headcount up` (or `demo`)."""

    def __init__(
        self,
        folder: Path,
        site: Path = UL,
        *,
        site_id: str = "ul",
        command: str = "up",
        partitions: int = 4,
        arguments: Sequence[str] = (),
        open: bool = True,  # noqa: A002  # as the option is called
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Run in `folder`, with the data in `folder/data` and these variables in the environment."""
        self.folder, self.data = folder, folder / "data"
        self.site_id, self.partitions = site_id, partitions
        self.ports: dict[str, int] = {}
        self.ready_s = 0.0  # how long the last start took
        self._arguments = [command, "--site", str(site), "--data", str(self.data)]
        self._arguments += ["--partitions", str(partitions), *(["--open"] if open else []), *arguments]
        self._environment = environment() | dict(variables or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._seen: set[psutil.Process] = set()
        self._http = httpx.Client(trust_env=False, timeout=60)

    # --- start and stop ------------------------------------------------------------------------
    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> float:
        """Start, on the ports of the last time if there was one; returns the seconds until it greets."""
        self.ready_s = self._start()
        return self.ready_s

    def _start(self) -> float:
        began_s = time.monotonic()
        for _ in range(3):
            first = not self.ports
            if first:
                self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
            with self.output.open("ab") as output:
                mark = output.tell()
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "headcount", *self._arguments, *self.port_options()],
                    cwd=self.folder,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    process_group=0,
                )
            wait_until(lambda: self._ended() or b"Ctrl-C" in self._printed_since(mark), "start", START_S)  # noqa: B023
            if not self._ended():
                self.roles()
                return time.monotonic() - began_s
            if not first or b"is taken" not in self._printed_since(mark):
                break
            self.ports = {}  # another test was faster
        message = f"headcount doesn't start:\n{self.printed()}"
        raise AssertionError(message)

    def stop(self) -> float:
        """Ctrl-C; returns the seconds until it has ended, which it must do with exit code 0."""
        assert self._process is not None
        self.roles()
        began_s = time.monotonic()
        self._process.send_signal(signal.SIGINT)
        code = self._process.wait(LIMIT_S)
        took_s = time.monotonic() - began_s
        assert code == 0, f"exit code {code}:\n{self.printed()}"
        return took_s

    def kill9(self, role: str | None = None) -> int | None:
        """Kill a role, or `up` itself, without a clean end; its pid, None if it doesn't run."""
        if role is None:
            assert self._process is not None
            self.roles()
            self._process.kill()
            self._process.wait()
            return self._process.pid
        return self.signal(role, signal.SIGKILL)

    def signal(self, role: str, number: signal.Signals) -> int | None:
        """Send a role a signal; its pid, None if it doesn't run now."""
        process = self.roles().get(role)
        if process is None:
            return None
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
        return process.pid

    def close(self) -> None:
        """End everything that was started here."""
        self._http.close()
        process = self._process
        if process is not None and process.poll() is None:
            self.roles()
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(BUSY_S)
            if process.poll() is None:
                process.kill()
                process.wait()
        for left in self.left():
            with suppress(psutil.NoSuchProcess):
                left.kill()

    # --- looking -------------------------------------------------------------------------------
    def roles(self) -> dict[str, psutil.Process]:
        """The running processes of the roles; the broker is the NATS server itself."""
        assert self._process is not None
        found: dict[str, psutil.Process] = {}
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self._process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    self._seen.add(child)
                    name = _role(child.cmdline())
                    if name and child.status() != psutil.STATUS_ZOMBIE:
                        found[name] = child
        return found

    def pids(self) -> dict[str, int]:
        """Role → process id."""
        return {role: process.pid for role, process in self.roles().items()}

    def left(self) -> list[psutil.Process]:
        """The processes still running of all that `up` has ever started, as far as they were seen."""
        return [process for process in self._seen if _runs(process)]

    @property
    def running(self) -> bool:
        """Whether `up` itself runs."""
        return not self._ended()

    @property
    def mqtt_port(self) -> int:
        """Where devices connect."""
        return self.ports["mqtt"]

    @property
    def password(self) -> str:
        """Of the internal user."""
        return (self.data / "secret").read_text().strip()

    def port_options(self) -> list[str]:
        """The ports as arguments."""
        return [word for name, port in self.ports.items() for word in (f"--{name}-port", str(port))]

    @property
    def output(self) -> Path:
        """The file with its output."""
        return self.folder / "output.txt"

    def printed(self) -> str:
        """The end of what it has printed."""
        return self._printed_since(0).decode(errors="replace")[-6000:]

    def _printed_since(self, since: int) -> bytes:
        return self.output.read_bytes()[since:] if self.output.exists() else b""

    def _ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    # --- asking ----------------------------------------------------------------------------------
    def get(self, path: str, **parameters: Any) -> httpx.Response:
        """GET a path."""
        return self._http.get(f"http://127.0.0.1:{self.ports['http']}{path}", params=parameters)

    def http(self, path: str, **parameters: Any) -> Any:
        """The JSON of a path that answers 200."""
        answer = self.get(path, **parameters)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
        return answer.json()

    def handle(self, foreign: str) -> str:
        """Under which id the system has a device of another format that isn't registered: `iotp/<id>`."""
        format_, _, name = foreign.partition("/")
        names = AliasResolver(self.password, RegistryCache(), "")
        return names.derived(format_, name, "person").device

    def is_ready(self) -> bool:
        """Whether the numbers are live."""
        with suppress(httpx.TransportError):
            return self.get("/readyz").status_code == 200
        return False

    def counts(self) -> dict[str, tuple[int, int]]:
        """People and vehicles in each zone now."""
        zones = self.http(f"/v1/sites/{self.site_id}/counts")["zones"]
        return {z["zone"]: (z["person"]["count"], z["vehicle"]["count"]) for z in zones}

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        total = 0.0
        for line in self.get("/metrics").text.splitlines():
            if line.startswith((f"{name}{{", f"{name} ")) and all(
                f'{k}="{v}"' in line for k, v in labels.items()
            ):
                total += float(line.rsplit(" ", 1)[1])
        return total


def _role(command: list[str]) -> str | None:
    if command and Path(command[0]).name == "nats-server":
        return "broker"
    if len(command) > 4 and command[1:4] == ["-m", "headcount", "run"]:
        return command[4]
    if len(command) > 3 and command[1:4] == ["-m", "headcount", "simulate"]:
        return "simulate"
    return None


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
