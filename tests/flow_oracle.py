"""Stays and flows by their definitions, one pair of events at a time."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

from headcount.history.stays import ZoneEvent

US = 1_000_000
HOUR_US = 3600 * US
DAY_US = 24 * HOUR_US
BINS = (0, 60, 300, 900, 1800, 3600, 7200, 14_400, 28_800)
LONGEST_US = 12 * HOUR_US

#: site, kind, table, zone, other
Cell = tuple[str, str, str, str, str]


#: Places where a device can be, and their zones.
PLACES = {"hall": ["hall", "stage"], "lib": ["lib"], "desk": ["lib", "desk"], "yard": ["yard"]}


def walk(
    rng: random.Random,
    *,
    start_s: float,
    hours: float,
    devices: int = 6,
    lost: float = 0.1,
    sites: tuple[str, ...] = ("ul", "dcu"),
    places: dict[str, list[str]] = PLACES,
) -> list[ZoneEvent]:
    """Events of devices on two sites with nested zones; some are lost, and pseudonyms change at midnight."""
    found: list[ZoneEvent] = []
    for device in range(devices):
        site, kind = rng.choice(sites), rng.choice(["person", "vehicle"])
        t_us, inside = round(start_s * US), set[str]()
        while True:
            t_us += round(rng.choice([5, 40, 200, 2000, 15_000]) * rng.random() * US) + 1
            if t_us >= round((start_s + hours * 3600) * US):
                break
            where = rng.choice([None, *places])
            new = {"site", *places[where]} if where else set[str](rng.choice([[], ["site"]]))
            day = t_us // DAY_US
            name = f"{device:04x}{day:012x}"
            reason = rng.choice(["moved", "outside", "silent", "site"])
            found += [
                ZoneEvent(site, kind, name, t_us, zone, zone in new, reason)
                for zone in sorted(inside ^ new)
                if rng.random() >= lost
            ]
            inside = new
    rng.shuffle(found)
    return found


def since(event: ZoneEvent, events: list[ZoneEvent]) -> int | None:
    """When the stay began that an exit ends."""
    before = [e for e in events if e[:3] == event[:3] and e.zone == event.zone and e.t_us < event.t_us]
    last = max(before, key=lambda e: e.t_us, default=None)
    return last.t_us if last is not None and last.is_enter else None


def occurrences(events: list[ZoneEvent]) -> list[tuple[int, str, Cell]]:
    """Time, pseudonym and cell of everything that flows count."""
    by_device: dict[tuple[str, str, str], list[ZoneEvent]] = defaultdict(list)
    for event in events:
        by_device[event[:3]].append(event)
    found: list[tuple[int, str, Cell]] = []
    for (site, kind, device), own in by_device.items():
        for e in own:
            table = "arrivals" if e.is_enter else "departures"
            found.append((e.t_us, device, (site, kind, table, e.zone, "")))
            if not e.is_enter:
                began = since(e, own)
                length = "unknown"
                if began is not None and e.t_us - began <= LONGEST_US:
                    length = str(max(b for b in BINS if b * US <= e.t_us - began))
                found.append((e.t_us, device, (site, kind, "dwell", e.zone, length)))
        found += [(t, device, (site, kind, "trips", o, d)) for t, o, d in _trips(own)]
    return found


def _trips(own: list[ZoneEvent]) -> list[tuple[int, str, str]]:
    entered = sorted({e.t_us for e in own if e.is_enter and e.zone != "site"})
    on_site = [e.t_us for e in own if e.is_enter and e.zone == "site"]
    off_site = [e.t_us for e in own if not e.is_enter and e.zone == "site"]
    found = []
    for left in (e for e in own if not e.is_enter and e.zone != "site"):
        t_us = next((t for t in entered if t >= left.t_us), None)
        off_us = min((t for t in off_site if t >= left.t_us), default=None)
        back_us = min((t for t in on_site if t >= left.t_us), default=None)
        if off_us is not None and (t_us is None or off_us <= t_us) and (back_us is None or off_us <= back_us):
            if off_us - left.t_us <= LONGEST_US:
                found.append((off_us, left.zone, "outside"))
        elif t_us is not None and (back_us is None or back_us > t_us) and t_us - left.t_us <= LONGEST_US:
            found += [
                (t_us, left.zone, e.zone) for e in own if e.is_enter and e.zone != "site" and e.t_us == t_us
            ]
    for came_us in on_site:
        t_us = next((t for t in entered if t >= came_us), None)
        if t_us is None or any(came_us < t <= t_us for t in (*on_site, *off_site)):
            continue
        if t_us - came_us <= LONGEST_US:
            found += [
                (t_us, "outside", e.zone) for e in own if e.is_enter and e.zone != "site" and e.t_us == t_us
            ]
    return found


def flows_of(found: list[tuple[int, str, Cell]], hour_s: float) -> dict[Cell, tuple[int, int]]:
    """Events and people of an hour, where no device is in more cells than count."""
    from_us = round(hour_s * US)
    day_us = from_us // DAY_US * DAY_US
    number: Counter[Cell] = Counter()
    first: dict[tuple[str, Cell], int] = {}
    for t_us, device, cell in sorted(found):
        if not day_us <= t_us < from_us + HOUR_US:
            continue
        hourly = cell[2] in ("arrivals", "departures")
        if t_us >= from_us:
            number[cell] += 1
        if not hourly or t_us >= from_us:
            first.setdefault((device, cell), t_us)
    people = Counter(cell for (_, cell), t_us in first.items() if t_us >= from_us)
    return {cell: (n, people[cell]) for cell, n in number.items()}
