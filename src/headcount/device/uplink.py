"""The connection of a device to the system, by one protocol or another."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from headcount.device.outbox import FixOutbox

#: Seconds after which a connection attempt or an answer is given up.
TIMEOUT_S = 15.0


@dataclass(slots=True)
class LinkStatus:
    """The state of the connection."""

    connected: bool = False
    acknowledged: int = 0  # fixes that the system has stored
    refused: int = 0  # fixes that it will never store
    problem: str = ""  # why there is no connection


@dataclass(frozen=True, slots=True)
class LinkCallbacks:
    """The client's side; each may be called from the thread of the connection."""

    may_send: Callable[[], bool]
    on_site: Callable[[bytes], None]
    on_command: Callable[[bytes], bytes | None]  # returns the answer


class Uplink(Protocol):
    """Sends the fixes of an outbox, the oldest first, until they are acknowledged."""

    status: LinkStatus

    def start(self, outbox: FixOutbox, callbacks: LinkCallbacks) -> None:
        """Start a thread that connects, and connects again whenever the connection breaks."""

    def wake(self) -> None:
        """There is a new fix."""

    def close(self, flush_s: float) -> None:
        """Send what is waiting for at most this long, and end the connection cleanly."""


def random_share() -> float:
    """A random number from 0 to below 1, for a pause."""
    return secrets.randbelow(1 << 30) / (1 << 30)
