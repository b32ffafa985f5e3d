"""The examples work against a running headcount."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from headcount.runtime.ports import free_ports
from waiting import LIMIT_S, wait_until

from .pages import ROOT

EXAMPLES = ROOT / "examples"
#: Seconds; only a busy machine needs that long.
PATIENCE_S = LIMIT_S


@dataclass(frozen=True)
class Running:
    """The addresses of a running headcount."""

    http: str
    mqtt_port: int


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """`headcount up` with the University of Limerick, on free ports, in a folder of its own."""
    folder = tmp_path_factory.mktemp("up")
    names = ("mqtt", "ws", "http", "nats")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    command = [
        sys.executable,
        "-m",
        "headcount",
        "up",
        "--open",
        "--site",
        str(ROOT / "sites" / "ul.geojson"),
    ]
    command += ["--data", str(folder / "data"), "--partitions", "4"]
    for name, port in ports.items():
        command += [f"--{name}-port", str(port)]
    log = (folder / "log").open("w+")
    with log, subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=_environment()) as process:
        try:
            http = f"http://127.0.0.1:{ports['http']}"
            _wait_until_ready(http, process, folder / "log")
            yield Running(http, ports["mqtt"])
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE_S)


def _environment() -> dict[str, str]:
    """The environment without settings of headcount, so that only the command line counts."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADCOUNT_")}
    return kept | {"PYTHONUNBUFFERED": "1"}


def _wait_until_ready(http: str, process: subprocess.Popen[bytes], log: Path) -> None:
    def is_ready() -> bool:
        assert process.poll() is None, f"headcount up has ended:\n{log.read_text()[-2000:]}"
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(f"{http}/readyz"):  # noqa: S310 - ours
            return True
        return False

    wait_until(is_ready, "headcount up is ready")


@contextlib.contextmanager
def _example(*command: str) -> Iterator[queue.Queue[str]]:
    """Run an example; its lines come through the queue."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_environment()) as process:
        lines: queue.Queue[str] = queue.Queue()
        reader = threading.Thread(target=_read, args=(process, lines), daemon=True)
        reader.start()
        try:
            yield lines
        finally:
            process.terminate()
            process.wait(PATIENCE_S)
            reader.join(PATIENCE_S)


def _read(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    for line in process.stdout or ():
        lines.put(line)


def _line_with(lines: queue.Queue[str], text: str) -> str:
    """The next line that contains the text."""
    deadline = time.monotonic() + PATIENCE_S
    seen = []
    while time.monotonic() < deadline:
        with contextlib.suppress(queue.Empty):
            seen.append(lines.get(timeout=0.5))
            if text in seen[-1]:
                return seen[-1]
    pytest.fail(f"no line with {text!r} in {seen}")


def _people(running: Running, zone: str) -> int:
    with urllib.request.urlopen(f"{running.http}/v1/sites/ul/zones/{zone}") as answer:  # noqa: S310 - ours
        count: int = json.load(answer)["person"]["count"]
    return count


def test_a_phone_is_counted_and_seen_by_both_applications(running: Running) -> None:
    """publish.py moves the library's count to 1; counts.py and counts.mjs show it as the busiest zone."""
    assert _people(running, "glucksman-library") == 0
    with _example(sys.executable, str(EXAMPLES / "publish.py"), "127.0.0.1", str(running.mqtt_port)) as phone:
        _line_with(phone, "sent")
        with _example(sys.executable, str(EXAMPLES / "counts.py"), running.http) as lines:
            _line_with(lines, " glucksman-library 1  ")
        assert _people(running, "glucksman-library") == 1
        node = shutil.which("node")
        if node is None:
            pytest.skip("counts.mjs needs node, which is not installed")
        with _example(node, str(EXAMPLES / "counts.mjs"), running.http) as lines:
            _line_with(lines, " glucksman-library 1  ")


def test_the_readmes_first_request(running: Running) -> None:
    """The fix of the README, sent with mosquitto_pub, puts one person more into the library."""
    program = shutil.which("mosquitto_pub")
    if program is None:
        pytest.skip("mosquitto_pub is not installed")
    before = _people(running, "glucksman-library")
    fix = json.dumps({"tst": int(time.time()), "lat": 52.67345, "lon": -8.57312, "acc": 8})
    topic = "headcount/ul/person/me/fix"
    assert json.dumps({"lat": 52.67345, "lon": -8.57312})[1:-1].replace(" ", "") in (
        (ROOT / "README.md").read_text().replace("\\", "")
    )
    subprocess.run([program, "-p", str(running.mqtt_port), "-t", topic, "-m", fix], check=True)
    wait_until(lambda: _people(running, "glucksman-library") != before, "the fix is counted")
    assert _people(running, "glucksman-library") == before + 1


def test_a_phone_that_obeys(running: Running) -> None:
    """obey.py executes an `interval` command and refuses a `message`."""
    where = (sys.executable, str(EXAMPLES / "obey.py"), "127.0.0.1", str(running.mqtt_port), "obedient", "")
    with _example(*where) as phone:
        sent = _command(running, {"command": "interval", "interval_s": 2})
        _line_with(phone, "command interval")
        assert _ended(sent) == "acknowledged"
        assert _ended(_command(running, {"command": "message", "text": "hello"})) == "refused"


def _command(running: Running, command: dict[str, object]) -> str:
    body = json.dumps(command | {"kind": "person"}).encode()
    address = f"{running.http}/v1/sites/ul/devices/obedient/commands"
    request = urllib.request.Request(address, body, {"content-type": "application/json"})  # noqa: S310 - ours
    with urllib.request.urlopen(request) as answer:  # noqa: S310 - ours
        return f"{address}/{json.load(answer)['id']}"


def _ended(address: str) -> str:
    def ended() -> str:
        with urllib.request.urlopen(address) as answer:  # noqa: S310 - ours
            state = str(json.load(answer)["state"])
        return state if state in ("acknowledged", "refused", "expired") else ""

    return wait_until(ended, "the command ends", every_s=0.1)
