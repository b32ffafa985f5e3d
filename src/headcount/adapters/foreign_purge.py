"""Remove translated messages from the disk: they have names of people.

All messages up to the first one that is not acknowledged are removed together. While one decoder is behind, the
messages of the others are removed one by one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable

from headcount.errors import LogError
from headcount.messages.topics import FOREIGN_STREAM
from headcount.messaging.connection import Connection
from headcount.messaging.jetstream import ConsumerInfo, consumer_infos, get_message
from headcount.messaging.secure_delete import erase, purge

log = logging.getLogger(__name__)

#: Minimum interval at which translated messages are removed.
PURGE_INTERVAL_S = 0.2
#: A message that was acknowledged before is removed alone; those together cost less.
ALONE_AFTER_S = 2.0
#: Messages that are remembered for this; others expire.
MAX_REMEMBERED = 100_000
#: All consumers of the translator have names that start with this.
CONSUMER_PREFIX = "adapters"


class Acknowledged:
    """The messages that were acknowledged and may still be on the disk."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self._sequences: deque[tuple[int, float]] = deque(maxlen=MAX_REMEMBERED)

    def add(self, sequences: Iterable[int]) -> None:
        """Note that messages were acknowledged."""
        now_s = time.monotonic()
        self._sequences.extend((sequence, now_s) for sequence in sequences)
        self.event.set()

    def old(self, purged: int) -> list[int]:
        """Take the messages after `purged` that were acknowledged a while ago."""
        before_s = time.monotonic() - ALONE_AFTER_S
        old = []
        while self._sequences and (self._sequences[0][0] <= purged or self._sequences[0][1] < before_s):
            sequence = self._sequences.popleft()[0]
            if sequence > purged:
                old.append(sequence)
        return old

    def __bool__(self) -> bool:
        return bool(self._sequences)


async def purge_translated(connection: Connection, acknowledged: Acknowledged) -> None:
    """Remove acknowledged messages until cancelled."""
    acknowledged.event.set()  # at the start, those that were acknowledged before
    while True:
        await acknowledged.event.wait()
        acknowledged.event.clear()
        await asyncio.sleep(PURGE_INTERVAL_S)
        try:
            consumers = [
                info
                for info in await consumer_infos(connection, FOREIGN_STREAM)
                if info.name.startswith(CONSUMER_PREFIX)
            ]
            purged = await _translated_up_to(connection, consumers)
            if purged:
                await purge(connection, FOREIGN_STREAM, purged)
            await erase(connection, FOREIGN_STREAM, acknowledged.old(purged))
            if acknowledged or any(map(_is_behind, consumers)):
                acknowledged.event.set()  # while more messages arrive, some deleted ones remain in the newest file
        except LogError as error:
            log.debug("cannot remove translated messages, trying again: %s", error)
            acknowledged.event.set()


def _is_behind(consumer: ConsumerInfo) -> bool:
    return bool(consumer.num_ack_pending or consumer.num_pending)


async def _translated_up_to(connection: Connection, consumers: list[ConsumerInfo]) -> int:
    """The sequence up to which no consumer needs a message.

    A consumer that is not behind may have had no messages for a while. The stream itself is searched for messages that
    it still gets: the server updates `num_pending` a moment after it has stored a message.
    """
    top = found = max((consumer.acknowledged for consumer in consumers), default=0)
    for consumer in consumers:
        after = consumer.acknowledged
        if after < top and not _is_behind(consumer):
            subjects = consumer.config["filter_subjects"]
            after = min([top, *[await _before_next(connection, subject, after, top) for subject in subjects]])
        found = min(found, after)
    return found


async def _before_next(connection: Connection, subject: str, after: int, top: int) -> int:
    """The sequence before the first message on a subject after a sequence; `top` if there is none."""
    query = {"seq": after + 1, "next_by_subj": subject}
    found = await get_message(connection, FOREIGN_STREAM, query)
    return top if found is None else found.sequence - 1
