"""Rows of messages that are not yet in a segment, by the same code as a writer's. Pure."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

import msgspec
import pyarrow as pa

from headcount.errors import LogError
from headcount.history.buffer import HistoryBuffer
from headcount.history.event_buffer import EventBuffer
from headcount.history.manifest import EventMark, Manifest, PartitionMark
from headcount.history.segments import counts_table, events_table, fixes_table
from headcount.messages.counts import Event
from headcount.messages.history import HistoryBatch

_batch = msgspec.msgpack.Decoder(HistoryBatch).decode
_event = msgspec.json.Decoder(Event).decode


@dataclass(frozen=True, slots=True)
class WaitingMessages:
    """Messages of the streams HISTORY and EVENT by their sequence, in order, read before the manifest.

    Those that a writer stored meanwhile are in the manifest's segments, and the manifest's marks leave them out.
    """

    stream: str = ""  # when HISTORY was created
    batches: list[tuple[int, bytes]] = field(default_factory=list)
    event_stream: str = ""
    events: list[tuple[int, bytes]] = field(default_factory=list)


def tables(manifest: Manifest, waiting: WaitingMessages, now_s: float) -> dict[str, pa.Table]:
    """The rows that are not in the manifest's segments, by data set."""
    rows = HistoryBuffer()
    for seq, payload in waiting.batches:
        with suppress(LogError, msgspec.MsgspecError):  # a writer leaves these out, too
            batch = _batch(payload)
            if batch.partition not in rows.partitions:
                mark = manifest.partitions.get(batch.partition, PartitionMark())
                if manifest.stream != waiting.stream:  # its sequences started again
                    mark = PartitionMark(0, mark.sites)
                rows.start(batch.partition, mark)
            rows.add(batch.partition, seq, batch)
    found: dict[str, pa.Table] = {}
    if (flush := rows.take(now_s)) is not None:
        if flush.fixes is not None:
            found["fixes"] = fixes_table(flush.fixes, flush.sites)
        if flush.counts is not None:
            found["counts"] = counts_table(flush.counts)
    events = _events(manifest.events, waiting)
    if events:
        found["events"] = events_table(events)
    return found


def _events(mark: EventMark, waiting: WaitingMessages) -> list[Event]:
    buffer = EventBuffer()
    buffer.start(mark if mark.stream == waiting.event_stream else EventMark(waiting.event_stream))
    for seq, payload in waiting.events:
        with suppress(msgspec.MsgspecError):
            buffer.add(seq, _event(payload))
    flush = buffer.take()
    return [] if flush is None else flush.events
