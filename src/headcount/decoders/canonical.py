"""Decoded fixes and statuses of a device → messages for the log; pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from headcount.decoding import DecodedFix, DecodedStatus, DecodeError, Ignored
from headcount.messages.fixes import encode_fix
from headcount.messages.topics import Kind

#: Probability that a device is within the accuracy of a canonical fix.
CANONICAL_PROBABILITY = 0.68


class Sender(NamedTuple):
    """The device that a message is of."""

    site: str
    kind: Kind
    device: str


@dataclass(frozen=True, slots=True)
class CanonicalMessage:
    """A message for `headcount/{site}/{kind}/{device}/{what}`."""

    sender: Sender
    what: Literal["fix", "status"]
    payload: bytes

    @property
    def subject(self) -> str:
        """The NATS subject that stores the message in the log."""
        return f"headcount.{'.'.join(self.sender)}.{self.what}"


Outcome = CanonicalMessage | Ignored | DecodeError


def canonical(sender: Sender, decoded: DecodedFix | DecodedStatus) -> CanonicalMessage:
    """The message of a device; a negative accuracy, which means "none" on iOS, is omitted."""
    if isinstance(decoded, DecodedStatus):
        return CanonicalMessage(sender, "status", b"online" if decoded.online else b"offline")
    acc_m = decoded.acc
    if acc_m is not None and acc_m < 0:
        acc_m = None
    elif acc_m is not None and decoded.acc_probability != CANONICAL_PROBABILITY:
        acc_m = round(radius_68(acc_m, decoded.acc_probability), 1)
    payload = encode_fix(
        decoded.t,
        decoded.lat,
        decoded.lon,
        acc=acc_m,
        vel=decoded.vel,
        cog=decoded.cog,
        alt=decoded.alt,
        batt=decoded.batt,
    )
    return CanonicalMessage(sender, "fix", payload)


def radius_68(acc_m: float, probability: float) -> float:
    """The radius of 68 % from that of another probability, for an error that is normal and equal in all directions."""
    return acc_m * math.sqrt(math.log(1 - CANONICAL_PROBABILITY) / math.log(1 - probability))
