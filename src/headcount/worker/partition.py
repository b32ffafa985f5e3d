"""Count one partition: messages of the log in; counts, events and history rows out. Pure.

Time is that of the log. Every message carries the instant at which it was received, and in quiet hours the
log's ticks do. When a message received at τ is read, every message received before it has been read, so the
counts at each instant T < τ are final. They are computed at the multiples of TICK_S; fixes received after T
wait until T has been counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import msgspec
import numpy as np

from headcount.counting.engine import Engine
from headcount.counting.events import REASONS, SILENT, Events
from headcount.counting.fix_columns import F8, FORGET, I4, I8, U8, FixColumns
from headcount.counting.site import Site
from headcount.counting.site_versions import SiteVersions
from headcount.devices.pseudonyms import Pseudonyms, event_id
from headcount.errors import LogError, SnapshotError
from headcount.messages.counts import Event, PartitionCounts
from headcount.messages.device_state import DeviceState, DeviceStateRequest
from headcount.messages.fixes import VERDICTS
from headcount.messages.history import CountsAt, HistoryBatch, HistoryFixes
from headcount.messages.times import DAY_S, HISTORY_TICK_S, TICK_S
from headcount.messages.topics import ID, KINDS, partition_of
from headcount.messaging.payloads import decode
from headcount.messaging.raw_batch import RawBatch
from headcount.worker.history_rows import HistoryRows

TICK_NS = round(TICK_S * 1e9)
DAY_NS = DAY_S * 10**9
HISTORY_TICKS = round(HISTORY_TICK_S / TICK_S)
#: An instant is over when a message was received this much later: float64 seconds resolve 0.24 µs.
OVER_NS = 1_000
#: This many fixes that wait for their instant are counted together before it is over.
BATCH_ROWS = 16_384
#: Up to this many instants are published each; of more (after a stop) only the newest is.
MAX_PUBLISHED_TICKS = 5
#: After a gap longer than the log keeps messages, instants in between aren't recorded.
GAP_TICKS = round(3600 / TICK_S)
#: Bytes of counts in one message to the history at most; the broker accepts 8 MiB.
MESSAGE_BYTES = 2 << 20
#: For events that no message led to.
NO_SEQUENCES: I8 = np.zeros(0, dtype=np.int64)


@dataclass(slots=True)
class PartitionOutput:
    """Counts, events and statistics that messages of the log led to."""

    counts: list[PartitionCounts] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    #: int64: fixes by [kind (2 = unknown), verdict]
    verdicts: I8 = field(default_factory=lambda: np.zeros((3, len(VERDICTS)), dtype=np.int64))
    #: received times of the fixes, Unix seconds
    received_s: list[F8] = field(default_factory=list)


class _PartitionState(msgspec.Struct, array_like=True):
    seq: int
    tick: int
    clock_ns: int
    site_version: int
    engine: bytes


class Partition:
    """Counts one partition of the log."""

    def __init__(
        self, number: int, partitions: int, epoch: int, sites: SiteVersions, pseudonyms: Pseudonyms
    ) -> None:
        """Start at the beginning of the log; `restore` continues elsewhere.

        Args:
            number: which one.
            partitions: of how many.
            epoch: of its owner, published with its counts.
            sites: the versions of what is counted; the partitions of a worker share them.
            pseudonyms: of the `days`; on others they are random.
        """
        self.number = number
        self.epoch = epoch
        self.partitions = partitions
        self._sites = sites
        self._version = sites.oldest
        self.engine = Engine(self._site, self._version.zones, pseudonyms)
        self.seq = 0  # everything up to this is read
        self.done_seq = 0  # everything up to this is counted
        self.pending = 0
        self._prefix = b"fix.%d.%s." % (number, self._site.id.encode())
        self.engine.called(self._prefix)
        self._pseudonyms = pseudonyms
        self._undecoded: list[RawBatch] = []
        self._waiting: FixColumns | None = None  # decoded, and received after the last counted instant
        self._tick = 0  # the last instant that was counted, in TICK_S
        self._reached_ns = 0  # the log's clock at the last message that was read
        self._done_ns = 0  # and at the last that is counted
        self._rows = HistoryRows()
        self._recorded: list[CountsAt] = []
        self._batches: list[HistoryBatch] = []  # counts of earlier versions of the site
        self._tick_subject = b"fix.%d.tick" % number

    @property
    def _site(self) -> Site:
        return self._version.site

    # --- state -------------------------------------------------------------------------------
    def save(self) -> bytes:
        """The state as bytes, with the sequence after which to continue."""
        return msgspec.msgpack.encode(
            _PartitionState(
                self.done_seq, self._tick, self._done_ns, self._version.number, self.engine.snapshot()
            )
        )

    def restore(self, data: bytes) -> None:
        """Continue where `save` was called.

        Raises:
            SnapshotError: if the bytes are damaged or of another site file.
        """
        try:
            saved = msgspec.msgpack.decode(data, type=_PartitionState)
        except msgspec.MsgspecError as error:
            raise SnapshotError(f"of partition {self.number}", f"is damaged: {error}") from error
        version = self._sites.of_snapshot(saved.site_version)
        self.engine = Engine.restore(version.site, saved.engine, version.zones, self._pseudonyms)
        self._version = version
        self.engine.called(self._prefix)
        self.seq = self.done_seq = saved.seq
        self._tick = saved.tick
        self._reached_ns = self._done_ns = saved.clock_ns
        self._undecoded, self._waiting = [], None
        self._rows, self._recorded, self._batches = HistoryRows(), [], []

    # --- counting ------------------------------------------------------------------------------
    def take(self, batch: RawBatch) -> None:
        """Read messages; `work` counts them.

        Raises:
            LogError: if they are not newer than the messages read before: the reader is at another place.
        """
        if batch.seq[0] <= self.seq:
            raise LogError(f"partition {self.number}: got message {batch.seq[0]} after {self.seq}")
        if not self._tick:
            self._tick = (int(batch.received_ns[0]) - OVER_NS) // TICK_NS
        # a machine's clock may be set back; the log's stands still until it is reached again
        received_ns = np.maximum(np.maximum.accumulate(batch.received_ns), self._reached_ns)
        self.pending = batch.pending
        self.seq = int(batch.seq[-1])
        self._reached_ns = int(received_ns[-1])
        self._undecoded.append(replace(batch, received_ns=received_ns))

    @property
    def waiting_rows(self) -> int:
        """The number of messages that are read and not yet counted."""
        return sum(map(len, self._undecoded)) + (len(self._waiting) if self._waiting is not None else 0)

    @property
    def history_rows(self) -> int:
        """The number of rows that wait for `history`."""
        return len(self._rows)

    def _decoded(self) -> FixColumns | None:
        """All fixes that wait, in the order of the log."""
        if self._undecoded:
            batch, self._undecoded = RawBatch.joined(self._undecoded), []
            if b"" in batch.payloads:  # ticks and other empty messages have no meaning here
                batch = batch.pick([subject != self._tick_subject for subject in batch.subjects])
            if len(batch):
                new = decode(self._prefix, batch)
                self._waiting = new if self._waiting is None else FixColumns.joined([self._waiting, new])
        return self._waiting

    @property
    def days(self) -> range:
        """The days (their numbers since 1970) on which what waits was received; `work` needs their keys."""
        first_ns = min((int(batch.received_ns[0]) for batch in self._undecoded), default=self._reached_ns)
        if self._waiting is not None:
            first_ns = min(first_ns, int(self._waiting.received_s[0]) * 10**9)
        return range(first_ns // DAY_NS, self._reached_ns // DAY_NS + 1)

    @property
    def due(self) -> bool:
        """Whether an instant is over and not yet counted."""
        return self._reached_tick() > self._tick

    @property
    def is_site_known(self) -> bool:
        """Whether it is known by which version of the site everything that was read is counted."""
        return self._reached_tick() <= self._sites.last_tick

    def _reached_tick(self) -> int:
        return (self._reached_ns - OVER_NS) // TICK_NS

    def work(self, *, publish: bool = True) -> PartitionOutput:
        """Count up to the last instant that is over.

        Args:
            publish: include the counts in the output (those for the history are included in any case).
        """
        output = PartitionOutput()
        waiting = self._decoded()
        reached = min(self._reached_tick(), self._sites.last_tick)
        self._change_site(self._tick, output)  # where counting starts, or if the core's clock was set back
        for tick in self._ticks(reached, publish=publish):
            at = tick * TICK_NS / 1e9
            if waiting is not None:
                cut = int(np.searchsorted(waiting.received_s, at, side="right"))
                self._step(waiting.part(0, cut), output)
                waiting = waiting.part(cut, len(waiting))
            self._add_events(self.engine.advance(at), NO_SEQUENCES, output)
            self._change_site(tick, output)
            record = tick % HISTORY_TICKS == 0
            if record or publish:
                values = self.engine.counts(at).astype("<i4").tobytes()
                if record:
                    self._recorded.append(CountsAt(at, values))
                if publish:
                    output.counts.append(self._counts(at, values, _before(waiting, self.seq)))
            self._tick = tick
        changes = self._sites.between(self._version.number, reached + 1)
        if waiting is not None and len(waiting) >= BATCH_ROWS and self.is_site_known and not changes:
            # many in one instant may be counted early: they make nothing expire
            self._step(waiting, output)
            waiting = None
        self._waiting = waiting if waiting is not None and len(waiting) else None
        self.done_seq = _before(waiting, self.seq)
        # of what waits, everything was received after the last instant that was counted
        self._done_ns = self._reached_ns if self._waiting is None else self._tick * TICK_NS
        return output

    def _change_site(self, tick: int, output: PartitionOutput) -> None:
        """Rule 6: count by the version in effect at an instant, up to which everything is counted."""
        versions = self._sites.between(self._version.number, tick)
        if not self.engine.devices:  # no version in between makes a difference
            versions = versions[-1:]
        for version in versions:
            left, entered = self.engine.change_site(version.zones, tick * TICK_NS / 1e9)
            self._add_events(left, NO_SEQUENCES, output)
            self._batches += self._count_batches()
            self._version = version
            self._add_events(entered, NO_SEQUENCES, output)

    def _ticks(self, reached: int, *, publish: bool) -> list[int]:
        """The instants to count at, up to `reached`, which is always the last."""
        if reached <= self._tick:
            return []
        first = self._tick + 1
        if publish and reached - self._tick <= MAX_PUBLISHED_TICKS:
            return list(range(first, reached + 1))
        start = max(first, reached - GAP_TICKS)
        start += -start % HISTORY_TICKS
        changes = [version.from_tick for version in self._sites.between(self._version.number, reached)]
        return sorted({*range(start, reached + 1, HISTORY_TICKS), *changes, reached})

    def _step(self, part: FixColumns, output: PartitionOutput) -> None:
        """Count rows in their order; a marker is applied after everything received before it."""
        start = 0
        for row in np.flatnonzero(part.what == FORGET).tolist() if FORGET in part.what else ():
            self._count(part.part(start, row), output)
            self._remove(part.part(row, row + 1), output)
            start = row + 1
        self._count(part.part(start, len(part)) if start else part, output)

    def _remove(self, one: FixColumns, output: PartitionOutput) -> None:
        seq = int(one.seq[0])
        removal = one.removals.get(seq)
        if removal is not None:
            removed = self.engine.remove(removal, float(one.received_s[0]))
            self._add_events(removed, one.seq, output)

    def _count(self, part: FixColumns, output: PartitionOutput) -> None:
        if not len(part):
            return
        device = self.engine.slots(part.names, self._admit)
        step = self.engine.step(part, device)
        stored = step.stored
        who, received_s = device[stored], part.received_s[stored]
        if len(who):
            names = self._pseudonyms_of(who, received_s)
            self._rows.add(part, stored, names, self.engine.kinds(who), step.verdicts[stored])
        self._add_events(step.events, part.seq, output)
        fix = step.verdicts != 255
        kind = np.where(device >= 0, self.engine.kinds(device), 2)[fix]
        code = kind.astype(np.int64) * len(VERDICTS) + step.verdicts[fix]
        output.verdicts += np.bincount(code, minlength=3 * len(VERDICTS)).reshape(3, -1)
        output.received_s.append(part.received_s)

    def _admit(self, key: bytes) -> bool:
        """Whether a key that isn't known yet is a device of this partition."""
        kind, _, device = key.decode(errors="replace").partition(".")
        return (
            kind in KINDS
            and ID.fullmatch(device) is not None
            and partition_of(self._site.id, device, self.partitions) == self.number
        )

    def _pseudonyms_of(self, slots: I4, received_s: F8) -> U8:
        """The pseudonym of each slot's device on the day on which its fix was received."""
        first, last = int(received_s.min() // DAY_S), int(received_s.max() // DAY_S)
        if first == last:
            return self.engine.names(slots, first)
        return self._pseudonyms_on(slots, (received_s // DAY_S).astype(np.int32))

    def _pseudonyms_on(self, slots: I4, days: I4) -> U8:
        found = np.empty(len(slots), dtype=np.uint64)
        for day in np.unique(days).tolist():
            found[days == day] = self.engine.names(slots[days == day], day)
        return found

    def _add_events(self, events: Events, seqs: I8, output: PartitionOutput) -> None:
        """Add events to the output; `seqs` are the sequences of the rows that led to them."""
        if not len(events):
            return
        site, zones = self._site.id, self._site.zones
        columns = zip(
            self._pseudonyms_on(events.device, events.day).tobytes().hex(" ", 8).split(),
            self.engine.kinds(events.device).tolist(),
            events.zone.tolist(),
            events.enter.tolist(),
            events.t_s.tolist(),
            events.reason.tolist(),
            self._led_to(events, seqs),
            strict=True,
        )
        for name, kind, index, enter, t_s, reason, seq in columns:
            change: Literal["enter", "exit"] = "enter" if enter else "exit"
            zone, why = zones[index].id, REASONS[reason]
            id_ = event_id(name, zone, change, t_s, why, seq)
            output.events.append(Event(id_, site, zone, change, KINDS[kind], name, t_s, why))

    def _led_to(self, events: Events, seqs: I8) -> list[int]:
        """The sequence of the message that led to each event; 0 for expired devices."""
        if not len(seqs):
            return [0] * len(events)
        led: list[int] = np.where(events.reason == SILENT, 0, seqs[np.maximum(events.row, 0)]).tolist()
        return led

    def _counts(self, at: float, values: bytes, seq: int) -> PartitionCounts:
        return PartitionCounts(
            self._site.id,
            self.number,
            self.partitions,
            self.epoch,
            seq,
            at,
            self._version.number,
            len(self._site.zones),
            values,
        )

    def device_state(self, request: DeviceStateRequest) -> DeviceState | None:
        """The state of a device; None: it is unknown."""
        known = self.engine.find(f"{request.kind}.{request.device}".encode())
        if known is None:
            return None
        lat = lon = None
        if known.x_m is not None and known.y_m is not None:
            lats, lons = self._site.unproject(np.array([known.x_m]), np.array([known.y_m]))
            lat, lon = float(lats[0]), float(lons[0])
        return DeviceState(
            present=known.present,
            zones=known.zones,
            last_t=known.last_t_s,
            lat=lat,
            lon=lon,
            acc=known.acc_m,
            offline=known.offline,
            last_verdict=VERDICTS[known.verdict] if known.verdict < len(VERDICTS) else None,
        )

    def history(self) -> list[HistoryBatch]:
        """The rows counted since the last call, in messages of a bounded size."""
        batches = [*self._batches, *(self._batch(fixes, []) for fixes in self._rows.take())]
        self._batches = []
        return batches + self._count_batches()

    def _count_batches(self) -> list[HistoryBatch]:
        """The recorded counts, with the zones of the version by which they were counted."""
        recorded, self._recorded = self._recorded, []
        instants = max(1, MESSAGE_BYTES // (32 * len(self._site.zones)))
        return [
            self._batch(None, recorded[start : start + instants])
            for start in range(0, len(recorded), instants)
        ]

    def _batch(self, fixes: HistoryFixes | None, recorded: list[CountsAt]) -> HistoryBatch:
        zones = [zone.id for zone in self._site.zones]
        return HistoryBatch(self._site.id, self.number, self.partitions, self.epoch, zones, fixes, recorded)


def _before(waiting: FixColumns | None, last: int) -> int:
    """The sequence before the first row that still waits, otherwise the last one that was read."""
    return int(waiting.seq[0]) - 1 if waiting is not None and len(waiting) else last
