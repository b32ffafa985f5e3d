"""The section `bridge`: another broker or bus from which messages are copied."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from headcount.errors import SettingsError
from headcount.settings.formats import BRIDGE_URL, NAME
from headcount.settings.model import check_all, setting

BRIDGE_GROUP = "Bridge"

_bridge = partial(setting, group=BRIDGE_GROUP)


@dataclass(frozen=True, slots=True)
class BridgeSettings:
    """Where a bridge copies from, and how it logs in there."""

    SECTION: ClassVar = "bridge"
    FLAG_PREFIX: ClassVar = "bridge-"

    from_: str = _bridge(
        "",
        "URL of the broker or bus to copy from, such as mqtts://broker.example.",
        format=BRIDGE_URL,
        flag="--from",
        secret=True,
        default_text="none; there is no bridge",
    )
    topics: str = _bridge(
        "",
        "Topics to copy, separated by commas: filters of MQTT, names of topics or streams, or ids of a feed's "
        "vehicles.",
        flag="--topics",
        default_text="those of all formats that headcount reads",
    )
    name: str = _bridge(
        "",
        "Name at the source: client id, queue or consumer group. Of the bridges with the same name one is "
        "active; with Kafka all are.",
        format=NAME,
        default_text="headcount- and a part that is unique to the deployment",
    )
    user: str = _bridge("", "User at the source.", default_text="the one in the URL, else none")
    password_file: Path | None = _bridge(
        None, "File with the user's password.", default_text="the password in the URL, else none"
    )
    ca: Path | None = _bridge(
        None, "CA (PEM) of the source's certificate.", default_text="the authorities that this machine trusts"
    )
    cert: Path | None = _bridge(None, "Our client certificate (PEM) for the source.", default_text="none")
    key: Path | None = _bridge(None, "Private key of the client certificate (PEM).", default_text="none")
    mqtt_version: Literal["3.1.1", "5"] = _bridge("3.1.1", "Version of MQTT that the bridge uses.")
    share: str = _bridge(
        "",
        "Group of a shared subscription of MQTT ($share), whose bridges divide the messages among them; the order "
        "of a device's messages is then not kept.",
        format=NAME,
        default_text="none; one bridge receives all messages",
    )

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            SettingsError: one is not valid, or two contradict each other.
        """
        check_all(self)
        if (self.cert is None) != (self.key is None):
            missing = "key" if self.key is None else "cert"
            raise SettingsError(f"bridge.{missing}", "is not set; cert and key belong together")
