"""Received events of the history that are not yet in a segment. Pure: no clock, no file."""

from __future__ import annotations

from dataclasses import dataclass

from headcount.history.hours import T_MAX_S, T_MIN_S
from headcount.history.manifest import EventMark
from headcount.messages.counts import Event


@dataclass(frozen=True, slots=True)
class EventFlush:
    """Events that are stored together, and the marks before and after."""

    events: list[Event]
    before: EventMark
    after: EventMark


class EventBuffer:
    """Events in memory, from the mark in the manifest on.

    The stream refuses an id that it received in the last hour; `storing` drops ids that are stored.
    """

    def __init__(self) -> None:
        self.stored: EventMark | None = None  # None: another writer reads the events
        self.seq = 0  # of the newest message that was added
        self._events: dict[str, Event] = {}

    def __len__(self) -> int:
        return len(self._events)

    def start(self, stored: EventMark) -> None:
        """Accept events after this mark; the waiting ones are dropped."""
        self.stored, self.seq = stored, stored.seq
        self._events.clear()

    def stop(self) -> None:
        """Accept no more events, and drop the waiting ones."""
        self.stored = None
        self._events.clear()

    def add(self, seq: int, event: Event | None) -> None:
        """Add the event of the next message; None if it cannot be decoded."""
        if seq <= self.seq:
            return
        self.seq = seq
        if event is not None and T_MIN_S <= event.t <= T_MAX_S:
            self._events.setdefault(event.id, event)

    def skip(self, seq: int) -> None:
        """Move past messages that were removed from the stream."""
        self.seq = max(self.seq, seq)

    def take(self) -> EventFlush | None:
        """Remove and return the waiting events; None if no message was added."""
        if self.stored is None or self.seq <= self.stored.seq:
            return None
        events, self._events = list(self._events.values()), {}
        return EventFlush(events, self.stored, EventMark(self.stored.stream, self.seq))

    def confirm(self, flush: EventFlush) -> None:
        """Note that a flush is stored."""
        if self.stored == flush.before:
            self.stored = flush.after
