"""The flows of examples/node-red/ that need no package, headless in a real Node-RED, against a whole system."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from node_red_fixture import EXAMPLES, PACKAGE, NodeRed, package
from system.running import ROOT, Up
from waiting import wait_until

__all__ = ["package"]
PHONES, CARS = 17, 10
CHECKS = ROOT / "packages" / "checks"


@pytest.mark.slow
@pytest.mark.doors
def test_every_car_and_phone_of_the_flows_is_counted(tmp_path: Path, package: Path) -> None:
    """As many people and vehicles are on site as the flows send, and nothing is rejected."""
    with Up(tmp_path, arguments=["--elastic"]) as up:
        variables = {
            "HEADCOUNT_PORT": str(up.ports["mqtt"]),
            "HEADCOUNT_PHONES": str(PHONES),
            "HEADCOUNT_CARS": str(CARS),
        }
        with NodeRed(tmp_path, package, EXAMPLES / "flows.json", variables) as node_red:
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
                print(node_red.printed(), up.printed())
                raise
            assert up.counts()["site"] == (PHONES, CARS)
            assert not node_red.errors()


@pytest.mark.parametrize("folder", [EXAMPLES, PACKAGE, CHECKS])
def test_the_lock_names_no_address(folder: Path) -> None:
    """The locks have versions and hashes, and no registry."""
    lock = json.loads((folder / "package-lock.json").read_text())
    assert all("resolved" not in package for package in lock["packages"].values())
    assert all(
        "integrity" in package or package.get("inBundle")
        for name, package in lock["packages"].items()
        if name
    )


def test_devices_write_in_all_three_ways() -> None:
    """Plain JSON, Base64, and an object around Base64: each flow with older formats has each of them."""
    for name in ("flows.json", "gateway.json"):
        flows = json.loads((EXAMPLES / name).read_text())
        (wrap,) = (node for node in flows if node.get("name") == "plain or Base64")
        assert len(re.findall(r"msg\.payload = ", wrap["func"])) == 3


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
def test_the_queue_of_the_package() -> None:
    """The package's own tests pass: its queue, and its parser of events."""
    ran = subprocess.run(
        ["node", "--test", "test/"], cwd=PACKAGE, capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.returncode == 0, ran.stdout
