"""Changes of membership as messages under daily pseudonyms. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from headcount.counting.engine import Engine
from headcount.counting.events import REASONS, SILENT, Events
from headcount.counting.fix_columns import I4, I8, U8
from headcount.counting.site import Zone
from headcount.devices.pseudonyms import event_id
from headcount.messages.counts import Event
from headcount.messages.topics import KINDS


def event_messages(engine: Engine, events: Events, site: str, zones: Sequence[Zone], seqs: I8) -> list[Event]:
    """Events as messages, in their order.

    Args:
        engine: that they come from; its slots are still valid.
        events: n events.
        site: id of the site.
        zones: of the version that the events are of.
        seqs: the sequences of the rows that led to them; empty if none did.
    """
    columns = zip(
        pseudonyms_on(engine, events.device, events.day).tobytes().hex(" ", 8).split(),
        engine.kinds(events.device).tolist(),
        events.zone.tolist(),
        events.enter.tolist(),
        events.t_s.tolist(),
        events.reason.tolist(),
        _led_to(events, seqs),
        strict=True,
    )
    found = []
    for name, kind, index, enter, t_s, reason, seq in columns:
        change: Literal["enter", "exit"] = "enter" if enter else "exit"
        zone, why = zones[index].id, REASONS[reason]
        id_ = event_id(name, zone, change, t_s, why, seq)
        found.append(Event(id_, site, zone, change, KINDS[kind], name, t_s, why))
    return found


def pseudonyms_on(engine: Engine, slots: I4, days: I4) -> U8:
    """The pseudonym of each slot's device on a day."""
    if len(days) and (days == days[0]).all():
        return engine.names(slots, int(days[0]))
    found = np.empty(len(slots), dtype=np.uint64)
    for day in np.unique(days).tolist():
        found[days == day] = engine.names(slots[days == day], day)
    return found


def _led_to(events: Events, seqs: I8) -> list[int]:
    """The sequence of the message that led to each event; 0 for expired devices."""
    if not len(seqs):
        return [0] * len(events)
    led: list[int] = np.where(events.reason == SILENT, 0, seqs[np.maximum(events.row, 0)]).tolist()
    return led
