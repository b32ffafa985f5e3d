"""Store messages in the log, in order for each sender."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from headcount.errors import LogError
from headcount.messaging.connection import Connection
from headcount.messaging.jetstream import append
from headcount.runtime.retry import RETRY_S
from headcount.runtime.tasks import wait_any

_log = logging.getLogger(__name__)

#: Time after which a message that was not acknowledged is published again.
ACK_TIMEOUT_S = 5.0


class Appended(NamedTuple):
    """A message for a stream of the log."""

    subject: str
    payload: bytes


async def append_in_order(connection: Connection, messages: Iterable[Appended], stop: asyncio.Event) -> bool:
    """Publish until the log has acknowledged all messages; False: `stop` was set before.

    A message is published when those before it on the same subject are acknowledged, so that a lost connection
    can't change their order. Messages on different subjects are published together.
    """
    for round_ in _rounds(messages):
        left = round_
        while left:
            left = await _publish(connection, left)
            if left:
                _log.warning("the log did not accept %d messages, trying again", len(left))
                if stop.is_set():
                    return False
                await wait_any(stop, timeout_s=RETRY_S)
    return True


def _rounds(messages: Iterable[Appended]) -> Iterator[list[Appended]]:
    """Lists in which each subject occurs once: the first message of each, then the second, and so on."""
    rounds: list[list[Appended]] = []
    number: dict[str, int] = {}
    for message in messages:
        at = number.get(message.subject, 0)
        number[message.subject] = at + 1
        if at == len(rounds):
            rounds.append([])
        rounds[at].append(message)
    return iter(rounds)


async def _publish(connection: Connection, messages: list[Appended]) -> list[Appended]:
    """Publish all messages; returns those that the log has not acknowledged."""

    async def one(message: Appended) -> Appended | None:
        try:
            await append(connection, message.subject, message.payload, timeout_s=ACK_TIMEOUT_S)
        except LogError:
            return message
        return None

    return [message for message in await asyncio.gather(*map(one, messages)) if message is not None]
