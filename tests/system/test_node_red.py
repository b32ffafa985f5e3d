"""The flows of examples/node-red/, headless in a real Node-RED, against a whole system."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from headcount.runtime.ports import free_ports
from system.running import ROOT, Up
from waiting import BUSY_S, wait_until

EXAMPLE = ROOT / "examples" / "node-red"
FILES = ("package.json", "package-lock.json", ".npmrc", "settings.js", "flows.json")
PHONES, CARS = 17, 10
INSTALL_S = 240

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(INSTALL_S + 180),
    pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed"),
]


@pytest.fixture(scope="module")
def node_red(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the flows and a Node-RED from the lock."""
    folder = tmp_path_factory.mktemp("node-red")
    for name in FILES:
        shutil.copy(EXAMPLE / name, folder / name)
    command = ["npm", "ci", "--no-fund", "--no-audit", "--ignore-scripts", "--loglevel=error"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=INSTALL_S)
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    return folder


@contextlib.contextmanager
def running(folder: Path, mqtt_port: int) -> Iterator[Path]:
    """Node-RED with the flows; gives the file with its output."""
    said = folder / "said.txt"
    environment = os.environ | {
        "HEADLESS": "1",
        "PORT": str(free_ports(1)[0]),
        "HEADCOUNT_PORT": str(mqtt_port),
        "HEADCOUNT_PHONES": str(PHONES),
        "HEADCOUNT_CARS": str(CARS),
    }
    # not through npm: a signal to npm doesn't always reach what it runs
    program = folder / "node_modules" / ".bin" / "node-red"
    arguments = ["--userDir", str(folder / ".node-red"), "--settings", "settings.js", "flows.json"]
    with (
        said.open("wb") as log,
        subprocess.Popen(
            [program, *arguments], cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            yield said
        finally:
            process.terminate()
            try:
                process.wait(BUSY_S)
            except subprocess.TimeoutExpired:
                process.kill()


def test_every_car_and_phone_of_the_flows_is_counted(tmp_path: Path, node_red: Path) -> None:
    """As many people and vehicles are on site as the flows send, and nothing is rejected."""
    with Up(tmp_path, arguments=["--elastic"]) as up, running(node_red, up.ports["mqtt"]) as said:
        try:
            wait_until(lambda: up.counts()["site"] == (PHONES, CARS), "all of them on site")
            before = up.metric("headcount_adapter_translated_messages_total", format="iotp")
            wait_until(
                lambda: (
                    up.metric("headcount_adapter_translated_messages_total", format="iotp")
                    >= before + 3 * (PHONES + CARS)
                ),
                "three more rounds translated",
                30,
            )
        except AssertionError:
            print(said.read_text(), up.printed())
            raise
        assert up.counts()["site"] == (PHONES, CARS)
    assert "[error]" not in said.read_text()


def test_the_lock_names_no_address() -> None:
    """The lock of the example has versions and hashes, and no registry."""
    lock = json.loads((EXAMPLE / "package-lock.json").read_text())
    assert all("resolved" not in package for package in lock["packages"].values())
    assert all(
        "integrity" in package or package.get("inBundle")
        for name, package in lock["packages"].items()
        if name
    )


def test_devices_write_in_all_three_ways() -> None:
    """Plain JSON, Base64, and an object around Base64: the flow has each of them."""
    flows = json.loads((EXAMPLE / "flows.json").read_text())
    (wrap,) = (node for node in flows if node.get("name") == "plain or Base64")
    assert len(re.findall(r"msg\.payload = ", wrap["func"])) == 3
