"""Stays of devices in zones, from enter and exit events. Pure.

A stay is paired by zone and pseudonym. Because a pseudonym ends with its day (UTC), so does the pairing: a device
that stays over midnight has a stay without an end, and one without a beginning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from headcount.counting.site_feature import BOUNDARY

#: Microseconds in a second.
US = 1_000_000


class ZoneEvent(NamedTuple):
    """A stored event."""

    site: str
    kind: str
    device: str  # pseudonym of the day
    t_us: int
    zone: str
    is_enter: bool
    reason: str


class PairedEvent(NamedTuple):
    """An event, and of an exit the arrival that it ends."""

    event: ZoneEvent
    since_us: int | None  # None: an enter event, or the arrival is not known


@dataclass(frozen=True, slots=True)
class Stay:
    """A device's presence in a zone."""

    site: str
    zone: str
    kind: str
    device: str
    from_us: int | None  # None: not known
    to_us: int | None  # None: not over, or not known
    reason: str | None  # of the exit


def paired(events: Iterable[ZoneEvent]) -> Iterator[tuple[tuple[str, str, str], list[PairedEvent]]]:
    """The events of each device (site, kind, pseudonym) in order, with the arrivals that exits end.

    At one instant, a device leaves zones, the boundary last, before it enters others, the boundary first.
    Only a zone that it was not in before is entered first.
    """
    in_time = sorted(set(events), key=lambda event: event[:4])
    for device, own in groupby(in_time, key=lambda event: event[:3]):
        since: dict[str, int] = {}
        found: list[PairedEvent] = []
        for _, same in groupby(own, key=lambda event: event.t_us):
            instant = list(same)
            both = {event.zone for event in instant if event.is_enter} - since.keys()
            for event in sorted(instant, key=lambda event: _order(event, both)):
                if event.is_enter:
                    since[event.zone] = event.t_us
                    found.append(PairedEvent(event, None))
                else:
                    found.append(PairedEvent(event, since.pop(event.zone, None)))
        yield device, found


def _order(event: ZoneEvent, entered_before: set[str]) -> tuple[int, bool, str]:
    is_boundary = event.zone == BOUNDARY
    if event.is_enter:
        return 1, not is_boundary, event.zone
    return (2 if event.zone in entered_before else 0), is_boundary, event.zone


def stays(events: Iterable[ZoneEvent]) -> list[Stay]:
    """All stays, in the order of site, kind, device and beginning; unknown beginnings are ordered by the end."""
    found: list[Stay] = []
    for (site, kind, device), own in paired(events):
        unfinished: dict[str, int] = {}
        for event, since_us in own:
            if not event.is_enter:
                unfinished.pop(event.zone, None)
                found.append(Stay(site, event.zone, kind, device, since_us, event.t_us, event.reason))
            else:
                if event.zone in unfinished:  # its exit is missing
                    lost_us = unfinished[event.zone]
                    found.append(Stay(site, event.zone, kind, device, lost_us, None, None))
                unfinished[event.zone] = event.t_us
        found += [Stay(site, zone, kind, device, from_us, None, None) for zone, from_us in unfinished.items()]
    return sorted(found, key=lambda stay: (stay.site, stay.kind, stay.device, _start(stay), stay.zone))


def _start(stay: Stay) -> int:
    known = stay.to_us if stay.from_us is None else stay.from_us
    return known or 0
