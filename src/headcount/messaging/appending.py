"""Store messages in the log, in order for each subject, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from headcount.errors import LogError
from headcount.messaging.connection import Connection
from headcount.messaging.jetstream import NewMessage, append_all
from headcount.runtime.retry import RETRY_S
from headcount.runtime.tasks import wait_any

_log = logging.getLogger(__name__)


async def append_in_order(
    connection: Connection, messages: Iterable[NewMessage], stop: asyncio.Event
) -> bool:
    """Publish until the log has acknowledged all messages; False: `stop` was set before.

    A message is published when those before it on the same subject are acknowledged, so that a lost connection
    can't change their order. Messages on different subjects are published together.
    """
    for round_ in _rounds(messages):
        while True:
            try:
                await append_all(connection, round_)
                break
            except LogError as error:
                _log.warning(
                    "the log did not accept all of %d messages, trying again: %s", len(round_), error
                )
            if stop.is_set():
                return False
            await wait_any(stop, timeout_s=RETRY_S)
    return True


def _rounds(messages: Iterable[NewMessage]) -> list[list[NewMessage]]:
    """Lists in which each subject occurs once: the first message of each, then the second, and so on."""
    rounds: list[list[NewMessage]] = []
    number: dict[str, int] = {}
    for message in messages:
        at = number.get(message.subject, 0)
        number[message.subject] = at + 1
        if at == len(rounds):
            rounds.append([])
        rounds[at].append(message)
    return rounds
