"""Where a message of a source goes: to the log, to a decoder, or nowhere; pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from headcount.decoders.formats import Format
from headcount.messages.records import Device
from headcount.messages.topics import HANDLE, ID_PATTERN, KINDS, subject_of

_CANONICAL = re.compile(
    rf"headcount/(?P<site>{ID_PATTERN})/(?P<kind>{'|'.join(KINDS)})/(?P<device>{ID_PATTERN})/(?:fix|status)"
)
LOG, FOREIGN = "log", "foreign"


class Route(NamedTuple):
    """Where a message goes: to `subject`, or nowhere."""

    subject: str
    #: `LOG` or `FOREIGN`; without a subject the reason why it is ignored.
    what: str


class KnownDevices(Protocol):
    """The part of the registry's copy in memory that is used here."""

    def get(self, id_: str) -> Device | None:
        """The device with this id."""


class Router:
    """Routes messages by their topic."""

    def __init__(
        self, devices: KnownDevices, formats: Sequence[Format], max_bytes: int, *, accounts: bool
    ) -> None:
        """Route for a deployment.

        Args:
            devices: the registered devices.
            formats: the formats that the role `adapters` decodes.
            max_bytes: the largest message that the log accepts.
            accounts: whether devices have accounts, so that an id of the form of a registered device must be one.
        """
        self._devices = devices
        self._formats = formats
        self._max_bytes = max_bytes
        self._accounts = accounts

    def route(self, topic: str, payload: bytes) -> Route:
        """The destination of a message."""
        subject = subject_of(topic)
        if subject is None:
            return Route("", "topic")
        canonical = _CANONICAL.fullmatch(topic)
        if canonical is None and not any(each.matches(topic) for each in self._formats):
            return Route("", "topic")
        if len(payload) > self._max_bytes:
            return Route("", "too_large")
        if canonical is None:
            return Route(subject, FOREIGN)
        device = self._devices.get(canonical["device"])
        if device is None:
            # an erased device must not come back out of a queue
            unregistered = self._accounts and HANDLE.fullmatch(canonical["device"])
            return Route("", "unregistered") if unregistered else Route(subject, LOG)
        if device.status != "active":
            return Route("", device.status)
        if (device.site, device.kind) != (canonical["site"], canonical["kind"]):
            return Route("", "not_its_topic")
        return Route(subject, LOG)
