"""The flows of examples/node-red/ that need no package, headless in a real Node-RED, against a whole system."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from node_red_fixture import EXAMPLES, PACKAGE, NodeRed, package
from npm_packages import installed
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


@pytest.mark.doors
def test_the_scorecard_of_node_red(tmp_path: Path, package: Path) -> None:
    """node-red-dev finds nothing in the packed package; `offline.cjs` names the checks that need a network."""
    (tmp_path / "node_modules").symlink_to(installed(CHECKS) / "node_modules")
    shutil.copy(CHECKS / "offline.cjs", tmp_path)
    shutil.copytree(package, tmp_path / "package", ignore=shutil.ignore_patterns("node_modules"))
    environment = os.environ | {
        "PACKAGE": str(PACKAGE),
        "NODE_RED": str(installed(EXAMPLES) / "node_modules" / "node-red"),
    }
    command = ["node", "--require", "./offline.cjs", "node_modules/node-red-dev/bin/run", "validate"]
    command += ["--path", str(tmp_path / "package"), "--output", "scorecard.json"]
    ran = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    print(ran.stdout)
    scorecard = json.loads((tmp_path / "scorecard.json").read_text())
    assert scorecard.pop("package")["name"] == PACKAGE.name
    assert len(scorecard) == 12
    assert [check for check, result in scorecard.items() if not result["test"]] == []


def test_locales_have_the_same_keys() -> None:
    """Each locale has every text of the nodes, and the help of every node."""
    files = [PACKAGE / "nodes" / "locales" / language for language in ("en-US", "de")]
    texts = [json.loads((folder / "headcount.json").read_text())["headcount"] for folder in files]
    keys = [{(group, key) for group in text for key in text[group]} for text in texts]
    assert keys[0] == keys[1]
    code = (PACKAGE / "nodes" / "headcount.html").read_text()
    code += "".join(path.read_text() for path in (PACKAGE / "lib").glob("*.js"))
    used = set(re.findall(r"headcount\.(label|placeholder|option|palette|status|error)\.(\w+)", code))
    assert used <= keys[0]
    types = set(re.findall(r'data-template-name="([\w-]+)"', code))
    for folder in files:
        assert set(re.findall(r'data-help-name="([\w-]+)"', (folder / "headcount.html").read_text())) == types
