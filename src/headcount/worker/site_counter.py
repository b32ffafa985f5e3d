"""Count partitions of the log together on a site: one engine for all that are counted by a version of it. Pure.

An instant costs a few array operations, whatever the number of partitions. Each partition has its own place in
the log, and its counts, events and rows are the same as if it were counted alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from headcount.counting.engine import Engine, StepResult
from headcount.counting.events import Events
from headcount.counting.fix_columns import F8, FORGET, I4, I8, FixColumns
from headcount.counting.site_versions import SiteVersion, SiteVersions
from headcount.devices.pseudonyms import Pseudonyms
from headcount.messages.counts import Event, PartitionCounts
from headcount.messages.fixes import VERDICTS
from headcount.messages.history import CountsAt
from headcount.messages.times import DAY_S, HISTORY_TICK_S, TICK_S
from headcount.messages.topics import ID, KINDS, partition_of
from headcount.messaging.payloads import decode
from headcount.messaging.raw_batch import RawBatch
from headcount.worker.event_messages import event_messages, pseudonyms_on
from headcount.worker.site_partition import TICK_NS, SitePartition

HISTORY_TICKS = round(HISTORY_TICK_S / TICK_S)
#: This many fixes of a partition that wait for their instant are counted together before it is over.
BATCH_ROWS = 16_384
#: Up to this many instants are published each; of more (after a stop) only the newest is.
MAX_PUBLISHED_TICKS = 5
#: After a gap longer than the log keeps messages, instants in between aren't recorded.
GAP_TICKS = round(3600 / TICK_S)
#: For events that no message led to.
NO_SEQUENCES: I8 = np.zeros(0, dtype=np.int64)


@dataclass(slots=True)
class CountingOutput:
    """Counts, events and statistics that messages of the log led to."""

    counts: list[PartitionCounts] = field(default_factory=list)  # those of an instant follow each other
    events: list[Event] = field(default_factory=list)
    #: of the owner of each event's partition
    epochs: list[int] = field(default_factory=list)
    #: int64: fixes by [kind (2 = unknown), verdict]
    verdicts: I8 = field(default_factory=lambda: np.zeros((3, len(VERDICTS)), dtype=np.int64))
    #: received times of the fixes, Unix seconds
    received_s: list[F8] = field(default_factory=list)


class SiteCounter:
    """Counts partitions on one site."""

    def __init__(self, sites: SiteVersions, pseudonyms: Pseudonyms, partitions: int) -> None:
        """Start without devices.

        Args:
            sites: the versions of what is counted.
            pseudonyms: of the `days` of the partitions; on others they are random.
            partitions: P, of which it counts some.
        """
        self.partitions = partitions
        self._sites = sites
        self._site_id = sites.newest.site.id
        self._pseudonyms = pseudonyms.on(self._site_id)
        self._engines: dict[int, Engine] = {}  # by number of the version

    def partition(self, number: int, epoch: int) -> SitePartition:
        """The part of a partition at the start of the log, for its owner's epoch; it replaces an earlier one."""
        self.drop(number)
        return SitePartition(number, self.partitions, epoch, self._sites, self._engine_of)

    def drop(self, number: int) -> None:
        """Free the state of a partition."""
        for engine in self._engines.values():
            engine.drop(number)

    def _engine_of(self, version: SiteVersion) -> Engine:
        """The engine that counts by a version; those without devices are freed."""
        self._engines = {
            number: engine
            for number, engine in self._engines.items()
            if engine.devices or number == version.number
        }
        if version.number not in self._engines:
            self._engines[version.number] = Engine(version.site, version.zones, self._pseudonyms)
        return self._engines[version.number]

    def work(
        self,
        partitions: Sequence[SitePartition],
        output: CountingOutput,
        *,
        until_tick: int | None = None,
        step: int = 1,
        publish: bool = True,
    ) -> None:
        """Count partitions up to the last instant that is over in each.

        Args:
            partitions: that this counter created, each once.
            output: is extended.
            until_tick: no further than to this instant, in TICK_S.
            step: publish at multiples of this, in TICK_S.
            publish: include the counts in the output (those for the history are included in any case).
        """
        self._decode(partitions)
        known_tick = self._sites.last_tick
        groups: dict[tuple[int, int, int], list[SitePartition]] = {}
        for partition in partitions:
            # where counting starts, or if the core's clock was set back
            self._change_site([partition], partition.tick, output)
            reached = min(partition.reached_tick, known_tick)
            reached = reached if until_tick is None else min(reached, until_tick)
            key = id(partition.engine), partition.tick, reached // step * step
            groups.setdefault(key, []).append(partition)
        for (_, first, reached), group in groups.items():
            for tick in self._ticks(group[0].version, first, reached, step, publish=publish):
                self._count_instant(group, tick, output, publish=publish)
            for partition in group:
                changes = self._sites.between(partition.version.number, partition.reached_tick + 1)
                if partition.decoded_rows >= BATCH_ROWS and partition.is_site_known and not changes:
                    # many in one instant may be counted early: they make nothing expire
                    self._step([(partition, partition.take_decoded(None))], output)
                partition.mark_counted()

    def _decode(self, partitions: Sequence[SitePartition]) -> None:
        """Decode what partitions have read: together, except where a removal's sequence must be unique."""
        together: list[tuple[SitePartition, RawBatch]] = []
        site = self._site_id.encode()
        for partition in partitions:
            batch = partition.take_read()
            if batch is None:
                continue
            if b"fix.%d.forget" % partition.number in batch.subjects or len(batch) > BATCH_ROWS:
                partition.add_decoded(decode(site, batch))
            else:
                together.append((partition, batch))
        if together:
            columns, start = decode(site, RawBatch.joined([batch for _, batch in together])), 0
            for partition, batch in together:
                partition.add_decoded(columns.part(start, start + len(batch)))
                start += len(batch)

    def _count_instant(
        self, group: Sequence[SitePartition], tick: int, output: CountingOutput, *, publish: bool
    ) -> None:
        at = tick * TICK_NS / 1e9
        self._step([(partition, partition.take_decoded(at)) for partition in group], output)
        numbers, engine = [partition.number for partition in group], group[0].engine
        self._add_events(engine.advance(at, numbers), NO_SEQUENCES, group, output)
        self._change_site(group, tick, output)
        if tick == self._sites.ends_tick:
            publish = True  # the zeros that remain
            for partition in group:
                left = engine.place_nowhere(at, partition.number)
                self._add_events(left, NO_SEQUENCES, [partition], output)
        record = tick % HISTORY_TICKS == 0
        if record or publish:
            counts = group[0].engine.counts_of(at, numbers).astype("<i4")
            for partition, values in zip(group, counts, strict=True):
                raw = values.tobytes()
                if record:
                    partition.recorded.append(CountsAt(at, raw))
                if publish:
                    output.counts.append(self._counts(partition, at, raw))
        for partition in group:
            partition.tick = tick
            if partition.has_ended:
                partition.end()

    def _change_site(self, group: Sequence[SitePartition], tick: int, output: CountingOutput) -> None:
        """Rule 6: count by the version in effect at an instant, up to which everything is counted."""
        at = tick * TICK_NS / 1e9
        versions = self._sites.between(group[0].version.number, tick)
        if versions and not any(
            partition.engine.devices for partition in group
        ):  # none in between makes a difference
            versions = versions[-1:]
        for version in versions:
            for partition in group:
                left, entered = partition.engine.place_again(version.zones, at, partition.number)
                self._add_events(left, NO_SEQUENCES, [partition], output)
                self._add_events(entered, NO_SEQUENCES, [partition], output, version)
                partition.change_site(version)

    def _step(self, parts: Sequence[tuple[SitePartition, FixColumns | None]], output: CountingOutput) -> None:
        """Count rows in the order of each partition; a marker is applied after everything received before it."""
        together: list[tuple[SitePartition, FixColumns]] = []
        for partition, part in parts:
            if part is None or not len(part):
                continue
            if FORGET not in part.what:
                together.append((partition, part))
                continue
            start = 0
            for row in np.flatnonzero(part.what == FORGET).tolist():
                self._count([(partition, part.part(start, row))], output)
                self._remove(partition, part.part(row, row + 1), output)
                start = row + 1
            self._count([(partition, part.part(start, len(part)))], output)
        self._count(together, output)

    def _remove(self, partition: SitePartition, one: FixColumns, output: CountingOutput) -> None:
        removal = one.removals.get(int(one.seq[0]))
        if removal is not None:
            removed = partition.engine.remove(removal, float(one.received_s[0]), partition.number)
            self._add_events(removed, one.seq, [partition], output)

    def _count(self, parts: Sequence[tuple[SitePartition, FixColumns]], output: CountingOutput) -> None:
        group, lengths = [partition for partition, _ in parts], [len(part) for _, part in parts]
        if not sum(lengths):
            return
        rows = FixColumns.joined([part for _, part in parts])
        of = np.repeat(np.array([partition.number for partition in group], dtype=np.int32), lengths)
        engine = group[0].engine
        device = engine.slots(rows.names, self._admit, of)
        result = engine.step(rows, device)
        self._add_rows(parts, device, result)
        self._add_events(result.events, rows.seq, group, output)
        fix = result.verdicts != 255
        kind = np.where(device >= 0, engine.kinds(device), 2)[fix]
        code = kind.astype(np.int64) * len(VERDICTS) + result.verdicts[fix]
        output.verdicts += np.bincount(code, minlength=3 * len(VERDICTS)).reshape(3, -1)
        output.received_s.append(rows.received_s)

    def _add_rows(
        self, parts: Sequence[tuple[SitePartition, FixColumns]], device: I4, result: StepResult
    ) -> None:
        """Add the rows that belong in the history to their partitions."""
        which = np.flatnonzero(result.stored)
        if not len(which):
            return
        slots, verdicts = device[which], result.verdicts[which]
        received_s = np.concatenate([part.received_s for _, part in parts])[which]
        engine = parts[0][0].engine
        names = pseudonyms_on(engine, slots, (received_s // DAY_S).astype(np.int32))
        kinds = engine.kinds(slots)
        start = 0
        for partition, part in parts:
            first, last = np.searchsorted(which, (start, start + len(part))).tolist()
            cut = slice(first, last)
            if first < last:
                partition.rows.add(part, which[cut] - start, names[cut], kinds[cut], verdicts[cut])
            start += len(part)

    def _admit(self, name: bytes) -> bool:
        """Whether a name that isn't known yet is that of a device of its partition."""
        _, number, _, kind, device = name.decode(errors="replace").split(".", 4)
        return (
            kind in KINDS
            and ID.fullmatch(device) is not None
            and partition_of(self._site_id, device, self.partitions) == int(number)
        )

    def _add_events(
        self,
        events: Events,
        seqs: I8,
        group: Sequence[SitePartition],
        output: CountingOutput,
        version: SiteVersion | None = None,
    ) -> None:
        """Add events of partitions of one engine to the output.

        Args:
            events: to add.
            seqs: the sequences of the rows that led to them.
            group: the partitions.
            output: is extended.
            version: whose zones they have; None: the one by which the partitions are counted.
        """
        if not len(events):
            return
        engine, zones = group[0].engine, (version or group[0].version).site.zones
        epochs = {partition.number: partition.epoch for partition in group}
        output.events += event_messages(engine, events, self._site_id, zones, seqs)
        output.epochs += [epochs[number] for number in engine.partitions(events.device).tolist()]

    def _ticks(
        self, version: SiteVersion, counted: int, reached: int, step: int, *, publish: bool
    ) -> list[int]:
        """The instants to count at, after `counted` and up to `reached`, which is always the last."""
        if reached <= counted:
            return []
        if publish and reached - counted <= MAX_PUBLISHED_TICKS * step:
            ticks = range(counted // step * step + step, reached + 1, step)
        else:
            start = max(counted + 1, reached - GAP_TICKS)
            ticks = range(start + -start % HISTORY_TICKS, reached + 1, HISTORY_TICKS)
        changes = [each.from_tick for each in self._sites.between(version.number, reached)]
        return sorted({*ticks, *changes, reached})

    def _counts(self, partition: SitePartition, at: float, values: bytes) -> PartitionCounts:
        return PartitionCounts(
            self._site_id,
            partition.number,
            self.partitions,
            partition.epoch,
            partition.counted_seq,
            at,
            partition.version.number,
            len(partition.version.site.zones),
            values,
        )
