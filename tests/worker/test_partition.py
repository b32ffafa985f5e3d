"""A partition being counted: the log in pieces, stopped and gone on anywhere, equals the oracle."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from random import Random
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from counting.running import PSEUDONYMS
from counting.walks import FIX, FORGET, ONLINE, Message, walk
from headcount.counting.site_file import parse_site
from headcount.counting.site_versions import Sites, SiteVersion, SiteVersions, only
from headcount.counting.zone_lookup import ZoneLookup
from headcount.devices.pseudonyms import Pseudonyms
from headcount.lab.chaos.expected_counts import site_of
from headcount.lab.chaos.oracle import KINDS, Oracle
from headcount.lab.chaos.scenarios import changed_site, random_scenario
from headcount.messages.counts import Event
from headcount.messages.fixes import VERDICTS
from headcount.messages.history import HistoryBatch
from headcount.messages.times import DAY_S, TICK_S, effect_tick
from headcount.messages.topics import partition_of
from headcount.messaging.raw_batch import RawBatch
from headcount.worker.counter import Counter
from headcount.worker.partition import Partition
from headcount.worker.site_counter import HISTORY_TICKS, CountingOutput
from headcount.worker.site_partition import TICK_NS
from small_site import small_site

SEEDS = st.integers(0, 2**63 - 1)
Entry = tuple[bytes, bytes, int]  # subject, payload, received in ns


def _ns(received_s: float) -> int:
    """Exactly: the walks' times are multiples of an eighth of a second."""
    return round(received_s * 8) * 125_000_000


def _entry(site: str, message: Message) -> Entry:
    subject = f"fix.0.{site}.{message.kind}.{message.device}"
    received_ns = _ns(message.received)
    if message.what == FORGET:
        today, key = int(message.received // DAY_S), f"{message.kind}.{message.device}".encode()
        names = {str(day): PSEUDONYMS.on(site).of(key, day) for day in range(today - 2, today + 2)}
        return b"fix.0.forget", json.dumps({"kind": message.kind, "pseudonyms": names}).encode(), received_ns
    if message.what != FIX:
        return f"{subject}.status".encode(), b"online" if message.what == ONLINE else b"offline", received_ns
    numbers = {"tst": message.t, "lat": message.lat, "lon": message.lon, "acc": message.acc}
    body = {name: value for name, value in numbers.items() if math.isfinite(value)}
    return subject.encode(), json.dumps(body).encode(), received_ns


def _log(rng: Random, site: str, messages: list[Message]) -> list[Entry]:
    """The messages with ticks between them, as they'd stand in the log, and a last tick."""
    entries: list[Entry] = []
    for message in messages:
        if rng.random() < 0.3:
            entries.append((b"fix.0.tick", b"", _ns(message.received)))
        entries.append(_entry(site, message))
    entries.append((b"fix.0.tick", b"", entries[-1][2] + 700_000_000))
    return entries


def raw_batch(
    partition: int,
    subjects: list[bytes],
    payloads: list[bytes],
    seq: Sequence[int],
    received_ns: Sequence[int],
    pending: int,
) -> RawBatch:
    """Messages as the reader delivers them."""
    return RawBatch(partition, subjects, payloads, np.array(seq), np.array(received_ns), pending)


def _deliveries(rng: Random, log: list[Entry], after: int) -> list[RawBatch]:
    found, start = [], after
    while start < len(log):
        stop = min(len(log), start + rng.choice((1, 3, 40, 1000)))
        part = log[start:stop]
        found.append(
            raw_batch(
                0,
                [subject for subject, _, _ in part],
                [payload for _, payload, _ in part],
                range(start + 1, stop + 1),
                [ns for _, _, ns in part],
                len(log) - stop,
            )
        )
        start = stop
    return found


class OnePartition(Partition):
    """A partition that is counted by itself."""

    def __init__(
        self, number: int, partitions: int, epoch: int, sites: SiteVersions | Sites, names: Pseudonyms
    ) -> None:
        several = sites if isinstance(sites, Sites) else Sites([sites])
        self.counter = Counter(several, names, partitions)
        super().__init__(number, epoch, several, self.counter._part)

    def work(self, *, step: int = 1, publish: bool = True) -> CountingOutput:
        """Count up to the last instant that is over."""
        return self.counter.work([self], step=step, publish=publish)


class _Observer:
    """The messages that a subscriber of a partition receives, across restarts."""

    def __init__(self) -> None:
        self.counts: dict[float, bytes] = {}
        self.events: dict[str, Event] = {}
        self.verdicts = np.zeros(len(VERDICTS), dtype=np.int64)
        self.rows: dict[int, tuple[float, str, int]] = {}
        self.recorded: dict[float, bytes] = {}

    def add(self, partition: Partition, output: CountingOutput) -> None:
        self.verdicts += output.verdicts.sum(axis=0)
        self.receive(output, partition.history())

    def receive(self, output: CountingOutput, batches: list[HistoryBatch], site: str = "") -> None:
        """Receive what is of a site, or all."""
        for count in output.counts:
            if site in {"", count.site}:
                assert self.counts.setdefault(count.at, count.values) == count.values
        for event in output.events:
            if site in {"", event.site}:
                assert self.events.setdefault(event.id, event) == event
        for batch in batches:
            if site in {"", batch.site}:
                self._record(batch)

    def _record(self, batch: HistoryBatch) -> None:
        if batch.fixes is not None:
            seq = np.frombuffer(batch.fixes.seq, "<i8").tolist()
            t_s = np.frombuffer(batch.fixes.t, "<f8").tolist()
            verdict = list(batch.fixes.verdict)
            names = batch.fixes.device.hex()
            device = [names[start : start + 16] for start in range(0, len(names), 16)]
            for row in zip(seq, t_s, device, verdict, strict=True):
                assert self.rows.setdefault(row[0], row[1:]) == row[1:]
        for recorded in batch.counts:
            assert self.recorded.setdefault(recorded.at, recorded.values) == recorded.values


class _Observers(_Observer):
    """The subscribers of two sites."""

    def __init__(self) -> None:
        super().__init__()
        self.of = {"first": _Observer(), "second": _Observer()}

    def receive(self, output: CountingOutput, batches: list[HistoryBatch], site: str = "") -> None:
        assert not site
        for name, observer in self.of.items():
            observer.receive(output, batches, name)


def _counted(
    rng: Random,
    log: list[Entry],
    sites: SiteVersions | Sites,
    taken: Callable[[float], None] = lambda _received_s: None,
    heard: _Observer | None = None,
) -> tuple[_Observer, OnePartition]:
    """Count a log with kills, each continued from the last saved state; `taken` is called after each delivery."""
    heard, saved, kills = heard or _Observer(), b"", 3
    partition = OnePartition(0, 1, 1, sites, PSEUDONYMS)
    while True:
        killed = False
        for delivery in _deliveries(rng, log, partition.seq):
            partition.take(delivery)
            taken(float(delivery.received_ns[-1]) / 1e9)
            if partition.due:
                heard.add(partition, partition.work(publish=rng.random() < 0.8))
            if rng.random() < 0.2:
                saved = partition.save()
            if kills and rng.random() < 0.05:
                killed = True
                break
        if not killed:
            return heard, partition
        kills -= 1
        partition = OnePartition(0, 1, 2, sites, PSEUDONYMS)
        if saved:
            partition.restore(saved)


@settings(max_examples=25)
@given(SEEDS)
def test_a_partition_stopped_anywhere_equals_the_oracle(seed: int) -> None:
    """Counts at every published instant, events and verdicts are the oracle's, with stops, kills and replays."""
    rng = Random(seed)
    campus = random_scenario(rng)
    site = parse_site(campus.geojson, "scene")
    messages = walk(rng, campus, 8, 250)
    log = _log(rng, site.id, messages)
    heard, _ = _counted(rng, log, only(ZoneLookup(site)))
    _compare(rng, campus.geojson, [zone.id for zone in site.zones], messages, heard)
    if not heard.events:
        return
    assert heard.rows.keys() <= {row + 1 for row, entry in enumerate(log) if not entry[0].endswith(b"tick")}


class _LongLog(SiteVersions):
    """The versions of a log that lasts days, as those of the random walks do."""

    @property
    def oldest(self) -> SiteVersion:
        return self.all[0]


@settings(max_examples=25)
@given(SEEDS)
def test_a_partition_over_site_changes_equals_the_oracle(seed: int) -> None:
    """However late a worker learns of versions and wherever it stops, counts and events are the oracle's."""
    rng = Random(seed)
    campus = random_scenario(rng)
    site = parse_site(campus.geojson, "scene")
    messages = walk(rng, campus, 8, 250)
    log = _log(rng, site.id, messages)
    first, last = (round(message.received / TICK_S) for message in (messages[0], messages[-1]))
    versions, geojson = [SiteVersion(1, 0, site)], campus.geojson
    for tick in sorted(rng.randint(first - 100, last) for _ in range(rng.randint(1, 6))):
        geojson = changed_site(rng, geojson)
        versions.append(SiteVersion(len(versions) + 1, tick, parse_site(geojson, "scene")))
    sites = _LongLog(versions[:1], 0.0)

    def refresh(now_s: float) -> None:
        """Learn what was stored before that time."""
        now_s = max(now_s, sites.complete_s)
        sites.all = [version for version in versions if version.from_tick < effect_tick(now_s)] or versions[
            :1
        ]
        sites.complete_s = now_s

    def may_refresh(received_s: float) -> None:
        if rng.random() < 0.4:
            refresh(received_s - rng.choice((0.0, 1.0, 30.0)))

    refresh(messages[0].received - 60)
    heard, partition = _counted(rng, log, sites, may_refresh)
    refresh(log[-1][2] / 1e9)
    heard.add(partition, partition.work())
    changes = [(version.from_s, version.site.geojson) for version in versions[1:]]
    _compare(rng, campus.geojson, [], messages, heard, changes)


@settings(max_examples=25)
@given(SEEDS)
def test_each_of_several_sites_equals_the_oracle(seed: int) -> None:
    """Sites are counted beside each other, one of them from when it is added until it is removed."""
    rng = Random(seed)
    campuses = {name: random_scenario(rng) for name in ("first", "second")}
    walks, entries, found = {}, [], []
    for name, campus in campuses.items():
        campus.geojson["features"][0]["properties"]["id"] = name
        walks[name] = walk(rng, campus, 6, 150)
        entries += [_entry(name, each) for each in walks[name]]
        found.append(SiteVersions([SiteVersion(1, 0, parse_site(campus.geojson, name))]))
    entries.sort(key=lambda entry: entry[2])
    log = [(b"fix.0.tick", b"", entries[0][2] - 10**9), *entries]
    log.append((b"fix.0.tick", b"", log[-1][2] + 700_000_000))
    begins, ends = sorted(rng.randint(log[0][2] // TICK_NS, log[-2][2] // TICK_NS) for _ in range(2))
    found[1] = SiteVersions(found[1].all, added=3, begins_tick=begins, ends_tick=max(ends, begins + 4))

    class Learned(Sites):
        """The second site is learned about just before it begins."""

        @property
        def complete_s(self) -> float:
            return complete_s

    complete_s = log[0][2] / 1e9 - 60
    sites = Learned(found[:1])

    def refresh(received_s: float) -> None:
        nonlocal complete_s
        if received_s - complete_s < 2 or rng.random() < 0.4:
            complete_s = max(complete_s, received_s)
            sites.all = [site for site in found if site.begins_tick < effect_tick(complete_s)]

    heard = _Observers()
    _, partition = _counted(rng, log, sites, refresh, heard)
    complete_s, sites.all = math.inf, found
    heard.add(partition, partition.work())
    for site in found:
        own, name = heard.of[site.site_id], site.site_id
        begins_s, ends_s = (tick * TICK_NS / 1e9 for tick in (site.begins_tick, site.ends_tick))
        assert all(at > begins_s for at in own.counts | own.recorded)
        if site.ends_tick * TICK_NS <= log[-1][2] - 1_000:
            last = max(own.counts | own.recorded)
            assert last == site.ends_tick * TICK_NS / 1e9
            assert not np.frombuffer((own.counts | own.recorded).pop(last), "<i4").any()
            inside = [e.type == "enter" for e in own.events.values()]
            assert 2 * sum(inside) == len(inside)
            # `t` is the fix's own time, which may be a minute in the future (rule 1)
            assert all(e.t <= ends_s + 60 for e in own.events.values())
            own.counts.pop(last, None), own.recorded.pop(last, None)
        messages = [each for each in walks[name] if begins_s < each.received <= ends_s]
        if own.counts or own.recorded:
            _compare(rng, campuses[name].geojson, [], messages, own)


def _compare(
    rng: Random,
    geojson: dict[str, Any],
    zones: list[str],
    messages: list[Message],
    heard: _Observer,
    changes: Sequence[tuple[float, dict[str, Any]]] = (),
) -> None:
    instants = sorted(heard.counts.items() | heard.recorded.items())
    if len(instants) > 80:
        instants = sorted(rng.sample(instants, 80))
    last = max(heard.counts | heard.recorded)
    oracle = Oracle(geojson)
    wanted = [*instants, (last, b"")]
    later = list(changes)

    def check(until: float) -> None:
        while wanted and wanted[0][0] < until:
            while later and later[0][0] <= wanted[0][0]:
                oracle.change_site(*later.pop(0))
            _check(oracle, zones or list(oracle.zones), *wanted.pop(0))
        while later and later[0][0] < until:
            oracle.change_site(*later.pop(0))

    for message in messages:
        check(message.received)
        if message.what == FIX:
            oracle.fix(
                message.received,
                message.kind,
                message.device,
                message.t,
                message.lat,
                message.lon,
                message.acc,
            )
        elif message.what == FORGET:
            oracle.forget(message.received, message.kind, message.device)
        else:
            oracle.status(message.received, message.kind, message.device, message.what == ONLINE)
    later = [change for change in later if change[0] <= last]
    check(math.inf)
    pseudonyms = PSEUDONYMS.on(site_of(geojson))
    expected = sorted(
        (e.type, e.zone, e.kind, pseudonyms.of(f"{e.kind}.{e.device}".encode(), e.day), e.t, e.reason)
        for e in oracle.events
        if e.t < last
    )
    found = sorted(
        (e.type, e.zone, e.kind, e.device, e.t, e.reason) for e in heard.events.values() if e.t < last
    )
    assert found == expected


def _check(oracle: Oracle, zones: list[str], at: float, values: bytes) -> None:
    expected = oracle.counts(at)
    if values:
        found = np.frombuffer(values, "<i4").reshape(-1, 2, 4).tolist()
        for zone, numbers in zip(zones, found, strict=True):
            for kind, own in zip(KINDS, numbers, strict=True):
                assert tuple(own) == expected[zone][kind], (at, zone, kind)


def test_an_instant_is_published_after_a_later_message() -> None:
    """A fix waits for its instant; a tick after it brings the counts that include it, and their instant."""
    rng = Random(1)
    campus = random_scenario(rng, 0)
    site = parse_site(campus.geojson, "scene")
    x, y = campus.degrees(0.0, 0.0)
    lat, lon = x, y
    partition = OnePartition(0, 1, 7, only(ZoneLookup(site)), PSEUDONYMS)
    body = json.dumps({"tst": 1000, "lat": lat, "lon": lon}).encode()
    base = 1_000_000_000_000
    subject = f"fix.0.{site.id}.person.a".encode()

    def take(first: int, entries: list[Entry]) -> list[float]:
        seq = range(first, first + len(entries))
        ns = [ns for _, _, ns in entries]
        partition.take(raw_batch(0, [e[0] for e in entries], [e[1] for e in entries], seq, ns, 0))
        return [count.at for count in partition.work(step=4).counts] if partition.due else []

    assert take(1, [(subject, body, base + 20_000_000)]) == []
    assert partition.done_seq == 0
    assert take(2, [(b"fix.0.tick", b"", base + 101_000_000)]) == [1000.1]
    assert partition.done_seq == 2
    later = [
        (subject, body.replace(b"1000", b"1001"), base + 150_000_000),
        (b"fix.0.tick", b"", base + 301_000_000),
    ]
    assert take(3, later) == [1000.2, 1000.3]
    assert HISTORY_TICKS * TICK_S == 10.0


@settings(max_examples=10)
@given(SEEDS)
def test_partitions_counted_together_equal_each_alone(seed: int) -> None:
    """Counts, events, rows and snapshots of partitions don't depend on the others, wherever one stops and goes on."""
    rng = Random(seed)
    campus = random_scenario(rng)
    site = parse_site(campus.geojson, "scene")
    count = 3
    log: list[list[Entry]] = [[] for _ in range(count)]
    for message in walk(rng, campus, 9, 200):
        number = partition_of(site.id, message.device, count)
        subject, payload, ns = _entry(site.id, message)
        log[number].append((subject.replace(b"fix.0.", b"fix.%d." % number), payload, ns))
    log_start_ns = min(entries[0][2] for entries in log if entries)
    end_ns = max(entries[-1][2] for entries in log if entries) + 10**9
    for number, entries in enumerate(log):
        entries.append((b"fix.%d.tick" % number, b"", end_ns))
    change_tick = rng.randint(log_start_ns, end_ns) // TICK_NS
    changed = parse_site(changed_site(rng, campus.geojson), "scene")
    sites = SiteVersions([SiteVersion(1, 0, site), SiteVersion(2, change_tick, changed)])
    together = Counter(Sites([sites]), PSEUDONYMS, count)
    partitions = [together.partition(number, number + 1) for number in range(count)]
    alone = [OnePartition(number, count, number + 1, sites, PSEUDONYMS) for number in range(count)]
    both = [(_Observer(), _Observer()) for _ in range(count)]
    while any(
        min(partition.seq, own.seq) < len(entries)
        for partition, own, entries in zip(partitions, alone, log, strict=True)
    ):
        for number, entries in enumerate(log):
            for each in (partitions[number], alone[number]):
                part = entries[each.seq : each.seq + rng.choice((0, 1, 30))]
                if part:
                    subjects, payloads, received_ns = zip(*part, strict=True)
                    seq = range(each.seq + 1, each.seq + 1 + len(part))
                    each.take(raw_batch(number, list(subjects), list(payloads), seq, received_ns, 0))
        output = together.work(partitions, step=rng.choice((1, 4)))
        for number, own in enumerate(alone):
            both[number][1].add(own, own.work())
            counts = [each for each in output.counts if each.partition == number]
            events = [
                event
                for event, epoch in zip(output.events, output.epochs, strict=True)
                if epoch == number + 1
            ]
            both[number][0].add(partitions[number], CountingOutput(counts, events))
        if rng.random() < 0.2:
            number = rng.randrange(count)
            saved = partitions[number].save()
            partitions[number] = together.partition(number, number + 1)
            partitions[number].restore(saved)
    for shared_engine, own_engine in both:
        assert shared_engine.events == own_engine.events
        assert shared_engine.rows == own_engine.rows
        # instants that are passed within a large step may be left out
        for ours, others in (
            (shared_engine.counts, own_engine.counts),
            (shared_engine.recorded, own_engine.recorded),
        ):
            instants = ours.keys() & others.keys()
            assert instants or not ours
            assert {at: ours[at] for at in instants} == {at: others[at] for at in instants}


@settings(max_examples=10)
@given(SEEDS)
def test_a_clock_that_is_set_back_stops_the_logs_clock(seed: int) -> None:
    """Messages received while the machine's clock was behind count as received when it was set back."""
    rng = Random(seed)
    campus = random_scenario(rng)
    site = parse_site(campus.geojson, "scene")
    log = _log(rng, site.id, walk(rng, campus, 5, 120))
    back = rng.randrange(1, len(log))
    broken = log[:back] + [(subject, body, ns - 2_500_000_000) for subject, body, ns in log[back:]]
    times = list(accumulate((ns for _, _, ns in broken), max))
    mended = [(subject, body, ns) for (subject, body, _), ns in zip(broken, times, strict=True)]
    zones, names = ZoneLookup(site), PSEUDONYMS
    heard = []
    for entries in (broken, mended):
        heard.append(_Observer())
        partition = OnePartition(0, 1, 1, only(zones), names)
        for delivery in _deliveries(Random(seed), entries, 0):
            partition.take(delivery)
            heard[-1].add(partition, partition.work())
            fresh = OnePartition(0, 1, 1, only(zones), names)
            fresh.restore(partition.save())
    for name in ("counts", "events", "rows", "recorded"):
        assert getattr(heard[0], name) == getattr(heard[1], name)


def test_a_device_in_a_foreign_partition_is_malformed() -> None:
    """A device that publishes into a partition that isn't its own is counted nowhere."""
    rng = Random(2)
    campus = random_scenario(rng, 0)
    site = parse_site(campus.geojson, "scene")
    lat, lon = campus.degrees(0.0, 0.0)
    body = json.dumps({"tst": 1000, "lat": lat, "lon": lon}).encode()
    verdicts = np.zeros(len(VERDICTS), dtype=np.int64)
    for number in range(4):
        partition = OnePartition(number, 4, 1, only(ZoneLookup(site)), PSEUDONYMS)
        subjects = [f"fix.{number}.{site.id}.person.device".encode(), b"fix.%d.tick" % number]
        ns = [1_000_000_000_000, 1_000_200_000_000]
        partition.take(raw_batch(number, subjects, [body, b""], [1, 2], ns, 0))
        verdicts += partition.work().verdicts.sum(axis=0)
    assert verdicts[VERDICTS.index("malformed")] == 3
    assert verdicts.sum() == 4


def test_two_exits_at_one_moment_are_two_events() -> None:
    """A device that timed out, returned with older fixes and left at that very moment has two exit events."""
    site = small_site()
    partition = OnePartition(0, 1, 1, only(ZoneLookup(site)), PSEUDONYMS)
    hold_s = 900
    said = [(1000, 0.0, 1000), (1500, 0.0, 1901), (1000 + hold_s, 0.05, 1902)]  # t, away, received
    entries = [
        (json.dumps({"tst": t, "lat": 50.005 + away, "lon": 0.001}).encode(), round(received * 1e9))
        for t, away, received in said
    ]
    subjects = [b"fix.0.s.person.a"] * 3 + [b"fix.0.tick"]
    payloads = [*(payload for payload, _ in entries), b""]
    partition.take(
        raw_batch(0, subjects, payloads, range(1, 5), [*(ns for _, ns in entries), 1_903 * 10**9], 0)
    )
    events = partition.work().events
    assert [(e.type, e.t, e.reason) for e in events if e.zone == "site"] == [
        ("enter", 1000, "moved"),
        ("exit", 1900, "silent"),
        ("enter", 1500, "moved"),
        ("exit", 1900, "outside"),
    ]
    assert len({event.id for event in events}) == len(events)


def test_a_removed_device_may_send_the_same_fix_again() -> None:
    """The marker has the device leave, and the same fix once more enters again: two events with two ids."""
    site = small_site()
    partition = OnePartition(0, 1, 1, only(ZoneLookup(site)), PSEUDONYMS)
    base_s = 1_790_000_000
    body = json.dumps({"tst": base_s, "lat": 50.005, "lon": 0.001}).encode()
    day = base_s // DAY_S
    marker = {"kind": "person", "pseudonyms": {str(day): PSEUDONYMS.on(site.id).of(b"person.a", day)}}
    fix, forget = (b"fix.0.s.person.a", body), (b"fix.0.forget", json.dumps(marker).encode())
    others = {"kind": "vehicle", "pseudonyms": marker["pseudonyms"]}
    said = [
        fix,
        (b"fix.0.forget", json.dumps(others).encode()),
        (b"fix.0.forget", b"{}"),
        forget,
        forget,
        fix,
    ]
    entries = [*said, (b"fix.0.tick", b"")]
    ns = [(base_s + second) * 10**9 for second in range(1, len(entries) + 1)]
    partition.take(raw_batch(0, [e[0] for e in entries], [e[1] for e in entries], range(1, 8), ns, 0))
    output = partition.work()
    assert [(e.type, e.t - base_s, e.reason) for e in output.events if e.zone == "site"] == [
        ("enter", 0, "moved"),
        ("exit", 4, "removed"),
        ("enter", 0, "moved"),
    ]
    assert len({event.id for event in output.events}) == len(output.events)
    assert {event.device for event in output.events} == {PSEUDONYMS.on(site.id).of(b"person.a", day)}
    assert output.verdicts.sum() == 2, "markers are no fixes"


def test_an_exit_after_midnight_has_the_pseudonym_of_the_enter() -> None:
    """A device that enters before midnight and times out after it has one pseudonym, also after a restore."""
    site = small_site()
    midnight_s = 1_790_000_000 // DAY_S * DAY_S + DAY_S
    body = json.dumps({"tst": midnight_s - 60, "lat": 50.005, "lon": 0.001}).encode()
    for restored in (False, True):
        partition = OnePartition(0, 1, 1, only(ZoneLookup(site)), PSEUDONYMS)
        start_ns, end_ns = (midnight_s - 60) * 10**9, (midnight_s + 900) * 10**9
        partition.take(raw_batch(0, [b"fix.0.s.person.a"], [body], [1], [start_ns], 1))
        partition.take(raw_batch(0, [b"fix.0.tick"], [b""], [2], [start_ns + 10**9], 0))
        events = partition.work().events
        assert list(partition.days) == [midnight_s // DAY_S - 1]
        if restored:
            saved = partition.save()
            assert b"person.a" not in saved
            partition = OnePartition(0, 1, 2, only(ZoneLookup(site)), PSEUDONYMS)
            partition.restore(saved)
            state = next(iter(partition.parts.values())).engine.find(b"person.a")
            assert state is not None
            assert state.present
        partition.take(raw_batch(0, [b"fix.0.tick"], [b""], [3], [end_ns], 0))
        events += partition.work().events
        assert {(e.type, e.reason) for e in events} == {("enter", "moved"), ("exit", "silent")}
        assert {e.device for e in events} == {PSEUDONYMS.on(site.id).of(b"person.a", midnight_s // DAY_S - 1)}


def test_a_site_that_is_learned_while_nothing_is_read_needs_no_old_keys() -> None:
    """The days of a partition are those of its messages, also before a new site has got any of them."""
    site = SiteVersions([SiteVersion(1, 0, small_site())])
    sites = Sites([site])
    partition = OnePartition(0, 1, 1, sites, PSEUDONYMS)
    now_ns = 1_790_000_000 * 10**9
    partition.take(raw_batch(0, [b"fix.0.tick"], [b""], [1], [now_ns], 0))
    partition.work()
    sites.all = [
        site,
        SiteVersions([SiteVersion(1, 0, small_site())], added=2, begins_tick=now_ns // TICK_NS),
    ]
    partition.work()
    assert list(partition.days) == [now_ns // 10**9 // DAY_S]
