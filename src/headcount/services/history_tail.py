"""Read the rows that are not yet in a segment, after the workers have stored those that they have."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress

import msgspec

from headcount.errors import LogError
from headcount.history.manifest import Manifest
from headcount.history.tail import WaitingMessages
from headcount.messages.history import RowsStored
from headcount.messages.topics import EVENT_STREAM, HISTORY_STORE_SUBJECT, HISTORY_STREAM
from headcount.messaging.connection import Connection
from headcount.messaging.jetstream import direct_scan, stream_info

_log = logging.getLogger(__name__)

#: Between two requests to the workers: each message of rows is later overwritten on the disk, one by one.
STORE_INTERVAL_S = 0.5
STORE_TIMEOUT_S = 1.0
READ_TIMEOUT_S = 2.0
#: Bytes of messages that a query reads; a history whose writer is down answers without the others.
MAX_BYTES = 64 << 20


class HistoryTail:
    """The messages that a query reads beside the segments."""

    def __init__(self, connection: Connection, partitions: int) -> None:
        self._connection = connection
        self._partitions = partitions
        self._asked_s = 0.0
        self._asking: asyncio.Task[None] | None = None

    async def read(self, marks: Manifest) -> WaitingMessages:
        """Read the messages after the marks of a manifest, which may be an older one.

        Without the core, or where it does not answer in time, there are none.
        """
        if not self._connection.is_connected:
            return WaitingMessages()
        try:
            await self._store()
            async with asyncio.timeout(READ_TIMEOUT_S):
                return await self._messages(marks)
        except (LogError, TimeoutError) as error:
            _log.warning("rows that are not in a segment yet are missing in an answer: %s", error)
            return WaitingMessages()

    async def _store(self) -> None:
        """Have the workers store their rows, once for all queries at the same time."""
        if self._asking is None or self._asking.done():
            if time.monotonic() - self._asked_s < STORE_INTERVAL_S:
                return
            self._asked_s = time.monotonic()
            self._asking = asyncio.create_task(self._ask(), name="history: store waiting rows")
        await asyncio.shield(self._asking)

    async def _ask(self) -> None:
        missing = set(range(self._partitions))
        with suppress(LogError, TimeoutError):  # some partitions have no worker now
            async with asyncio.timeout(STORE_TIMEOUT_S), self._connection.inbox() as inbox:
                await self._connection.publish(HISTORY_STORE_SUBJECT, reply=inbox.subject)
                while missing:
                    answer = await inbox.next(STORE_TIMEOUT_S)
                    if not answer.data:  # there are no workers
                        return
                    missing -= set(msgspec.json.decode(answer.data, type=RowsStored).partitions)

    async def _messages(self, marks: Manifest) -> WaitingMessages:
        rows, events = await asyncio.gather(
            stream_info(self._connection, HISTORY_STREAM), stream_info(self._connection, EVENT_STREAM)
        )
        is_known = marks.stream == rows.created and marks.partitions.keys() >= set(range(self._partitions))
        first = min(mark.stream_seq for mark in marks.partitions.values()) + 1 if is_known else 1
        first_event = marks.events.seq + 1 if marks.events.stream == events.created else 1
        return WaitingMessages(
            rows.created,
            await self._scan(HISTORY_STREAM, "history.*", first, rows.state.last_seq),
            events.created,
            await self._scan(EVENT_STREAM, "event.*.*", first_event, events.state.last_seq),
        )

    async def _scan(self, stream: str, subjects: str, first: int, last: int) -> list[tuple[int, bytes]]:
        found, size = [], 0
        async for message in direct_scan(self._connection, stream, subjects, first=first, last=last):
            found.append((message.sequence, message.data))
            size += len(message.data)
            if size > MAX_BYTES:
                _log.warning("rows of %s are missing in an answer: too many are not in a segment", stream)
                break
        return found
