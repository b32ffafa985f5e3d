"""The accounts of devices as files of Mosquitto."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from headcount.devices import credentials
from headcount.devices.authentication import DeviceAccount
from headcount.devices.mosquitto import acl_file, password_file
from headcount.devices.permissions import device_permissions
from headcount.messages.topics import OWNTRACKS_SUBTOPICS
from mosquitto_fixture import PROGRAM

ACCOUNT = DeviceAccount(id="a" * 20, site="ul", kind="person", secret="$7$101$AAAA$BBBB")  # noqa: S106


def test_a_device_has_the_topics_that_our_broker_permits() -> None:
    """A device publishes and subscribes to its own topics; a gateway also publishes for others."""
    own = f"headcount/ul/person/{ACCOUNT.id}"
    lines = acl_file([ACCOUNT], ["headcount/+/+/+/fix"]).splitlines()
    assert lines == [
        "user headcount-bridge",
        "topic read headcount/+/+/+/fix",
        "",
        f"user {ACCOUNT.id}",
        f"topic write {own}/fix",
        f"topic write {own}/status",
        f"topic write {own}/ack",
        f"topic write owntracks/{ACCOUNT.id}/+",
        f"topic write owntracks/{ACCOUNT.id}/+/event",
        *(f"topic write owntracks/{ACCOUNT.id}/+/{name}" for name in OWNTRACKS_SUBTOPICS),
        "topic read headcount/ul/counts",
        "topic read headcount/ul/counts/#",
        "topic read headcount/ul/site",
        f"topic read {own}/cmd",
        f"topic read owntracks/{ACCOUNT.id}/+/cmd",
    ]
    gateway = DeviceAccount(id=ACCOUNT.id, site="ul", kind="person", gateway=True)
    assert "topic write car-iotp" in acl_file([gateway], []).splitlines()


@pytest.mark.parametrize("status", ["disabled", "erasing"])
def test_devices_that_may_not_connect_are_absent(status: str) -> None:
    """A device that our broker refuses has neither a password nor topics."""
    account = DeviceAccount(id=ACCOUNT.id, site="ul", kind="person", secret=ACCOUNT.secret, status=status)  # type: ignore[arg-type]
    assert device_permissions(account) is None
    assert account.id not in password_file([account], "") + acl_file([account], [])


@pytest.mark.skipif(not PROGRAM, reason="mosquitto is not installed")
def test_hashes_are_mosquittos_own(tmp_path: Path) -> None:
    """A hash of mosquitto_passwd verifies here; ours has the same form."""
    secret, path = credentials.new_secret(), tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-c", "-b", path, "a", secret], check=True, capture_output=True)
    theirs = path.read_text().strip().partition(":")[2]
    assert credentials.verify_secret(secret, theirs)
    ours = credentials.hash_secret(secret)
    assert [len(part) for part in ours.split("$")] == [len(part) for part in theirs.split("$")]
