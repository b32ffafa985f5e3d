"""The AsyncAPI document is valid, complete, and agrees with topics.md."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from headcount.messages import topics
from npm_packages import installed

from .pages import REFERENCE, ROOT

FILE = REFERENCE / "asyncapi.yaml"
DOCUMENT: dict[str, Any] = yaml.safe_load(FILE.read_text())
CHECKS = ROOT / "packages" / "checks"


def _validator(name: str) -> jsonschema.Draft7Validator:
    payload = DOCUMENT["components"]["messages"][name]["payload"]
    return jsonschema.Draft7Validator({"components": DOCUMENT["components"], **payload})


@pytest.mark.parametrize("name", DOCUMENT["channels"])
def test_examples_are_valid(name: str) -> None:
    """Each topic has an example, and each example is valid for the schema of its topic."""
    examples = DOCUMENT["components"]["messages"][name]["examples"]
    assert examples
    for example in examples:
        _validator(name).validate(example["payload"])


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("fix", {"lat": 52.6, "lon": -8.5}),
        ("fix", {"lat": "52.6", "lon": -8.5, "tst": 1}),
        ("status", "away"),
        ("counts", {"site": "ul", "zone": "site", "at": "2026-11-24T15:02:00.000Z", "person": 3}),
        ("cmd", {"id": "1", "command": "explode", "expires": 1.0}),
        ("ack", {"ok": True}),
        ("owntracks", {"lat": 1}),
    ],
)
def test_schemas_refuse_invalid_payloads(name: str, payload: object) -> None:
    """A payload without a required key, or with a wrong type, is not valid."""
    assert not _validator(name).is_valid(payload)


def test_each_topic_is_in_the_document() -> None:
    """Every topic and foreign subject of `messages/topics.py` is there, with the QoS and retention of its publisher."""
    declared = {value for name, value in vars(topics).items() if name.endswith("_TOPIC")}
    foreign = {re.sub(r"\*", "{}", subject.replace(".", "/")) for subject in topics.FOREIGN_SUBJECTS}
    found = {channel["address"] for channel in DOCUMENT["channels"].values()}
    assert declared <= found
    assert {re.sub(r"\{\w+\}", "{}", address) for address in found - declared} == foreign
    for operation in DOCUMENT["operations"].values():
        address = DOCUMENT["channels"][operation["channel"]["$ref"].rsplit("/", 1)[1]]["address"]
        mqtt = operation["bindings"]["mqtt"]
        sent = topics.DELIVERY.get(address)
        assert operation["action"] == ("send" if sent else "receive")
        assert sent is None or sent == (mqtt["qos"], mqtt["retain"])


def test_the_page_names_what_is_retained() -> None:
    """The section of a topic contains **retained** exactly if its messages are."""
    for name, channel in DOCUMENT["channels"].items():
        if channel["address"].startswith("headcount/"):
            section = (REFERENCE / "topics.md").read_text().split(f"\n## {name}\n")[1].split("\n## ")[0]
            sent = topics.DELIVERY.get(channel["address"])
            assert ("**retained**" in section) == (sent is not None and sent.retain), name


@pytest.mark.doors
@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
def test_the_official_parser_accepts_it(tmp_path: Path) -> None:
    """@asyncapi/parser finds no error and no warning, and an error if there is one."""
    (tmp_path / "node_modules").symlink_to(installed(CHECKS) / "node_modules")
    shutil.copy(CHECKS / "asyncapi.mjs", tmp_path)

    def check(text: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "asyncapi.yaml").write_text(text)
        command = ["node", "asyncapi.mjs", "asyncapi.yaml"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    valid = check(FILE.read_text())
    print(valid.stdout)
    assert valid.returncode == 0, valid.stderr
    assert check(FILE.read_text().replace("action: send", "action: say", 1)).returncode == 1
