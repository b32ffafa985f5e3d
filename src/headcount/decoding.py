"""The interface of decoders: what the author of a plug-in imports.

A decoder is one function that turns a message of a format into fixes:

    def decode(payload: bytes, message: Message) -> list[Decoded]:
        tracker, lat, lon, t = unpack(payload)
        return [DecodedFix(tracker, t, lat, lon)]

It names devices as the format names them. Which registered device that is gets decided after decoding.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from headcount.messages.topics import Kind


class Message(msgspec.Struct, frozen=True, gc=False):
    """The facts about a message beside its payload."""

    topic: str  # of MQTT, without wildcards
    received_s: float  # Unix seconds


class DecodedFix(msgspec.Struct, frozen=True, gc=False, tag="fix"):
    """A position of a device. Values out of range are allowed: the counting rules judge them."""

    name: str  # of the device in the format: a serial number, a topic level
    t: float  # event time, Unix seconds
    lat: float  # degrees, WGS 84
    lon: float
    acc: float | None = None  # radius in m; below 0: none
    vel: float | None = None  # km/h
    cog: float | None = None  # degrees
    alt: float | None = None  # m
    batt: float | None = None  # %
    kind: Kind = "person"  # applies to devices that are not registered
    acc_probability: float = 0.68  # that the device is within `acc`


class DecodedStatus(msgspec.Struct, frozen=True, gc=False, tag="status"):
    """Whether a device is connected."""

    name: str
    online: bool
    kind: Kind = "person"


class Ignored(msgspec.Struct, frozen=True, gc=False, tag="ignored"):
    """A valid message, or part of one, without a position."""

    reason: str  # label of a metric: lower case letters, digits and _


class DecodeError(Exception):
    """A message is not valid. Raised for a whole message; returned in the list for one part of it."""

    def __init__(self, label: str, problem: str | Callable[[], str] = "") -> None:
        """`label` is short and for a metric; `problem` is for people and may be computed when it is needed.

        Neither contains values that identify a person: both are logged.
        """
        self.label = label
        self._problem = problem
        super().__init__(label)

    @property
    def problem(self) -> str:
        """A clause that names the fault and how to avoid it."""
        return self._problem if isinstance(self._problem, str) else self._problem()


Decoded = DecodedFix | DecodedStatus | Ignored | DecodeError
Decode = Callable[[bytes, Message], list[Decoded]]
