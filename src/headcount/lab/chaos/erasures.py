"""Erasure of devices that keep sending: markers in the log, as the product writes them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

import msgspec

from headcount.devices.pseudonym_keys import PseudonymKeys
from headcount.errors import LogError
from headcount.messages.fixes import ForgetMarker
from headcount.messages.topics import FORGET_SUBJECT, KINDS, Kind, partition_of
from headcount.messaging.connection import Connection
from headcount.messaging.jetstream import append

#: Mean time between two erasures.
EVERY_S = 2.0
#: The load has at least these devices, d0 to d19.
DEVICES = 20
#: Share of markers that are written twice.
TWICE_SHARE = 0.2
ANSWER_S, RETRY_S = 2.0, 0.3


class PlannedErasure(NamedTuple):
    """A device, and the time of its erasure after the start of the load."""

    at_s: float
    kind: Kind
    device: str


def plan_erasures(seed: int, seconds: float) -> list[PlannedErasure]:
    """The erasures of a run in the order of time: a pure function of the seed."""
    rng = Random(f"forgetting {seed}")
    found: list[PlannedErasure] = []
    now_s = rng.expovariate(1 / EVERY_S)
    while now_s < seconds:
        one = PlannedErasure(round(now_s, 2), rng.choice(KINDS), f"d{rng.randrange(DEVICES)}")
        found += [one] * (2 if rng.random() < TWICE_SHARE else 1)
        now_s += rng.expovariate(1 / EVERY_S)
    return found


async def erase_all(
    connection: Connection, planned: Sequence[PlannedErasure], site: str, partitions: int, start_s: float
) -> None:
    """Write a marker for each into the log, at its time or as soon as the log is available."""
    days = PseudonymKeys(connection)
    for one in planned:
        await asyncio.sleep(max(0.0, start_s + one.at_s - time.time()))
        subject = FORGET_SUBJECT.format(partition=partition_of(site, one.device, partitions))
        while True:
            try:
                names = await days.pseudonyms_of(site, one.kind, one.device)
                marker = ForgetMarker(one.kind, {str(day): name for day, name in names.items()})
                await append(connection, subject, msgspec.json.encode(marker), timeout_s=ANSWER_S)
                break
            except LogError:
                await asyncio.sleep(RETRY_S)  # the broker is down
