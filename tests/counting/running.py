"""The same messages through the oracle and through the engine, with results that compare."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from random import Random
from typing import Any, NamedTuple

import numpy as np

from counting.walks import FIX, FORGET, ONLINE, Message, steps
from headcount.counting.engine import Engine
from headcount.counting.events import REASONS, Events
from headcount.counting.fix_columns import FixColumns, Removal
from headcount.counting.site import Site
from headcount.counting.site_file import parse_site
from headcount.counting.zone_lookup import ZoneLookup
from headcount.devices.pseudonyms import Pseudonyms
from headcount.lab.chaos.oracle import KINDS, Oracle, OracleCount, OracleEvent
from headcount.messages.fixes import VERDICTS
from headcount.messages.times import DAY_S

NO_VERDICT = 255
#: Some day of the walks, which last weeks.
FIRST_DAY = 1_790_000_000 // DAY_S
PSEUDONYMS = Pseudonyms({FIRST_DAY - 2 + i: bytes([i]) * 32 for i in range(200)})
NAMES = PSEUDONYMS.on("campus")
Counts = dict[str, dict[str, OracleCount]]


class CountQuery(NamedTuple):
    """A query for the counts at `now`, after the first `after` messages."""

    after: int
    now: float


class SiteChange(NamedTuple):
    """Another version of the site, which takes effect at `now`, after the first `after` messages."""

    after: int
    now: float
    geojson: dict[str, Any]


class Outcome(NamedTuple):
    """The results of a list of messages."""

    verdicts: list[str | None]  # None for a status
    stored: list[bool]  # in the history
    events: dict[tuple[str, str], list[list[OracleEvent]]]  # of each device, in order; see `in_order`
    counts: list[Counts]  # one for each query


def in_order(events: Iterable[OracleEvent]) -> dict[tuple[str, str], list[list[OracleEvent]]]:
    """Each device's events in their order; those of one moment, in which zones have none, sorted."""
    devices: dict[tuple[str, str], list[OracleEvent]] = {}
    for event in events:
        devices.setdefault((event.kind, event.device), []).append(event)
    return {
        key: [sorted(moment) for _, moment in groupby(own, key=lambda e: (e.t, e.reason == "silent"))]
        for key, own in devices.items()
    }


def count_queries(
    rng: Random, messages: Sequence[Message], waits_s: Sequence[float], many: int
) -> list[CountQuery]:
    """`many` count queries at random places, some of them exactly when a wait ends."""
    found = list[CountQuery]()
    for after in sorted(rng.randint(1, len(messages)) for _ in range(many)):
        start = messages[after - 1].received
        end = messages[after].received if after < len(messages) else start + 2000.0
        start = max(start, found[-1].now) if found and found[-1].after == after else start
        ends = [m.t + wait for m in messages[max(0, after - 5) : after] for wait in waits_s]
        ends = [t for t in ends if math.isfinite(t) and start <= t <= end]
        now = rng.choice(ends) if ends and rng.random() < 0.5 else start + steps(rng, end - start)
        found.append(CountQuery(after, now))
    return found


def stops(at: Sequence[CountQuery], changes: Sequence[SiteChange]) -> list[CountQuery | SiteChange]:
    """Queries and changes in their order; the counts of the moment of a change are those of the new version."""
    return sorted([*changes, *at], key=lambda stop: (stop.after, stop.now, isinstance(stop, CountQuery)))


def by_oracle(
    geojson: dict[str, Any],
    messages: Sequence[Message],
    at: Sequence[CountQuery],
    changes: Sequence[SiteChange] = (),
) -> Outcome:
    """The oracle's results for the messages."""
    oracle, verdicts, counts = Oracle(geojson), list[str | None](), list[Counts]()
    stored = list[bool]()
    wanted = stops(at, changes)
    for done, m in enumerate(messages, 1):
        if m.what == FIX:
            verdict = oracle.fix(m.received, m.kind, m.device, m.t, m.lat, m.lon, m.acc)
            verdicts.append(verdict)
        elif m.what == FORGET:
            oracle.forget(m.received, m.kind, m.device)
            verdicts.append(None)
        else:
            oracle.status(m.received, m.kind, m.device, m.what == ONLINE)
            verdicts.append(None)
        stored.append(m.what == FIX and oracle.is_stored(verdict, m.lat, m.lon))
        while wanted and wanted[0].after == done:
            stop = wanted.pop(0)
            if isinstance(stop, SiteChange):
                oracle.change_site(stop.now, stop.geojson)
            else:
                counts.append(oracle.counts(stop.now))
    return Outcome(verdicts, stored, in_order(oracle.events), counts)


class Runner:
    """An engine that takes messages and returns names instead of numbers."""

    def __init__(self, site: Site, engine: Engine | None = None) -> None:
        """Start with an empty engine, or with the one given."""
        self.site = site
        self.engine = engine or Engine(site, names=NAMES)
        self.verdicts: list[str | None] = []
        self.stored: list[bool] = []
        self.events: list[OracleEvent] = []
        self.met: dict[tuple[str, int], tuple[str, str]] = {}  # pseudonym and day → device

    def feed(self, messages: Sequence[Message]) -> None:
        """Process the messages as one batch, or as several, separated by markers."""
        start = 0
        for row, message in enumerate(messages):
            if message.what == FORGET:
                if row > start:
                    self._step(messages[start:row])
                self._sweep_devices(message)
                start = row + 1
        if start < len(messages):
            self._step(messages[start:])

    def _sweep_devices(self, m: Message) -> None:
        """Remove a device by its pseudonyms of all retained days, as an erasure does."""
        today = int(m.received // DAY_S)
        key = f"{m.kind}.{m.device}".encode()
        pseudonyms = {day: int(NAMES.many([key], day)[0]) for day in range(today - 2, today + 2)}
        removed = self.engine.remove(Removal(KINDS.index(m.kind), pseudonyms), m.received)
        self._note(removed)
        assert self.engine.find(key) is None
        self.verdicts.append(None)
        self.stored.append(False)

    def _step(self, messages: Sequence[Message]) -> None:
        self._meet(messages)
        keys = [f"{m.kind}.{m.device}".encode() for m in messages]
        step = self.engine.step(self.fixes(messages), self.engine.slots(keys))
        codes = step.verdicts.tolist()
        assert len(codes) == len(messages)
        self.verdicts += [None if code == NO_VERDICT else VERDICTS[code] for code in codes]
        self.stored += step.stored.tolist()
        self._note(step.events)

    def fixes(self, messages: Sequence[Message]) -> FixColumns:
        """The messages as columns."""

        def column(name: str) -> Any:
            return np.array([getattr(m, name) for m in messages], np.float64)

        return FixColumns(
            what=np.array([m.what for m in messages], np.uint8),
            received_s=column("received"),
            t_s=column("t"),
            lat_deg=column("lat"),
            lon_deg=column("lon"),
            acc_m=column("acc"),
        )

    def counts(self, now: float) -> Counts:
        """All numbers of all zones then."""
        self._note(self.engine.advance(now))
        values = self.engine.counts(now)
        assert values.dtype == np.int32
        assert values.shape == (len(self.site.zones), 2, 4)
        return {
            zone.id: {kind: _numbers(four) for kind, four in zip(KINDS, row, strict=True)}
            for zone, row in zip(self.site.zones, values.tolist(), strict=True)
        }

    def restored(self, zones: ZoneLookup | None = None) -> Runner:
        """The same, with an engine that was saved and read again, into zones of the site where given."""
        other = Runner(self.site, Engine.restore(self.site, self.engine.snapshot(), zones, NAMES))
        other.verdicts, other.stored = self.verdicts, self.stored
        other.events, other.met = self.events, self.met
        return other

    def change_site(self, geojson: dict[str, Any], at: float) -> None:
        """Count by another version of the site from then on."""
        site = parse_site(geojson, "test")
        left, entered = self.engine.change_site(ZoneLookup(site), at)
        self._note(left)
        self.site = site
        self._note(entered)

    def _note(self, events: Events) -> None:
        columns = (events.device, events.zone, events.enter, events.t_s, events.reason, events.day)
        for slot, zone, enter, t, reason, day in zip(*(c.tolist() for c in columns), strict=True):
            name = self.engine.names(np.array([slot], np.int32), day).tobytes().hex()
            change = "enter" if enter else "exit"
            self.events.append(
                OracleEvent(change, self.site.zones[zone].id, *self.met[name, day], t, REASONS[reason], day)
            )

    def _meet(self, messages: Sequence[Message]) -> None:
        """Record the pseudonyms under which these devices may be published."""
        for m in messages:
            day = int(m.received // DAY_S)
            self.met[NAMES.of(f"{m.kind}.{m.device}".encode(), day), day] = m.key


def _numbers(four: list[int]) -> OracleCount:
    count, low, high, stale = four
    return count, low, high, stale


def by_engine(
    geojson: dict[str, Any],
    messages: Sequence[Message],
    at: Sequence[CountQuery],
    cuts: Iterable[int] = (),
    restores: Iterable[int] = (),
    zones: ZoneLookup | None = None,
    changes: Sequence[SiteChange] = (),
) -> Outcome:
    """The engine's results, in batches that end at queries, changes, cuts and restores (into `zones`)."""
    runner, counts, done = Runner(parse_site(geojson, "test")), list[Counts](), 0
    restores = set(restores)
    planned = stops(at, changes)
    for stop in sorted({*cuts, *restores, *(each.after for each in planned), len(messages)}):
        runner.feed(messages[done:stop])
        done = stop
        for each in planned:
            if each.after == stop and isinstance(each, SiteChange):
                runner.change_site(each.geojson, each.now)
            elif each.after == stop:
                counts.append(runner.counts(each.now))
        if stop in restores:
            runner = runner.restored(zones)
    return Outcome(runner.verdicts, runner.stored, in_order(runner.events), counts)


def compare(expected: Outcome, got: Outcome, messages: Sequence[Message], at: Sequence[CountQuery]) -> None:
    """Fail with the first difference, in words."""
    for i, (message, want, have) in enumerate(zip(messages, expected.verdicts, got.verdicts, strict=True)):
        assert have == want, f"message {i} {message}: {have}, by the rules {want}"
        assert got.stored[i] == expected.stored[i], f"message {i} {message}: stored {got.stored[i]}"
    for key in expected.events.keys() | got.events.keys():
        assert got.events.get(key, []) == expected.events.get(key, []), f"events of {key}"
    for query, wanted, had in zip(at, expected.counts, got.counts, strict=True):
        assert had.keys() == wanted.keys()
        for zone, kinds in wanted.items():
            assert had[zone] == kinds, f"zone {zone} at {query}: (count, low, high, stale)"
