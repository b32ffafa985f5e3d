"""The accounts of devices as the files of a Mosquitto that receives them in front of headcount; pure.

The registry stores hashes in Mosquitto's own format, so its password file needs no secrets.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from headcount.devices.authentication import DeviceAccount
from headcount.devices.permissions import device_permissions

#: The user that the bridge logs in as.
BRIDGE_USER = "headcount-bridge"


def password_file(accounts: Iterable[DeviceAccount], bridge_hash: str) -> str:
    """A line `user:hash` for each device that may connect with a secret, and for the bridge."""
    lines = [f"{BRIDGE_USER}:{bridge_hash}"]
    lines += [
        f"{account.id}:{account.secret}"
        for account in accounts
        if account.secret and device_permissions(account) is not None
    ]
    return "\n".join(lines) + "\n"


def acl_file(accounts: Iterable[DeviceAccount], bridge_topics: Sequence[str]) -> str:
    """The topics of each device, as the broker of headcount permits them, and those that the bridge reads."""
    lines = [f"user {BRIDGE_USER}", *(f"topic read {topic}" for topic in bridge_topics)]
    for account in accounts:
        permissions = device_permissions(account)
        if permissions is None:
            continue
        lines += ["", f"user {account.id}"]
        # rights on the log's own subjects are for the mapping of our broker
        publish = [subject for subject in permissions.publish if not subject.startswith("fix.")]
        lines += [f"topic write {_topic(subject)}" for subject in publish]
        lines += [f"topic read {_topic(subject)}" for subject in permissions.subscribe]
    return "\n".join(lines) + "\n"


def _topic(subject: str) -> str:
    return subject.replace(".", "/").replace("*", "+").replace(">", "#")
