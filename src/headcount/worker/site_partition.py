"""A site's part of a partition of the log: where it is counted, what waits, and its rows for the history. Pure.

Time is that of the log. Every message carries the instant at which it was received, and in quiet hours the
log's ticks do. When a message received at τ is read, every message received before it has been read, so the
counts at each instant T < τ are final. They are computed at multiples of TICK_S; fixes received after T
wait until T has been counted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import msgspec
import numpy as np

from headcount.counting.engine import Engine
from headcount.counting.fix_columns import FixColumns
from headcount.counting.site_versions import SiteVersion, SiteVersions
from headcount.errors import SnapshotError
from headcount.messages.device_state import DeviceState, DeviceStateRequest
from headcount.messages.fixes import VERDICTS
from headcount.messages.history import CountsAt, HistoryBatch, HistoryFixes
from headcount.messages.times import TICK_S
from headcount.messaging.raw_batch import RawBatch
from headcount.worker.history_rows import HistoryRows

TICK_NS = round(TICK_S * 1e9)
#: An instant is over when a message was received this much later: float64 seconds resolve 0.24 µs.
OVER_NS = 1_000
#: Bytes of counts in one message to the history at most; the broker accepts 8 MiB.
MESSAGE_BYTES = 2 << 20


class _State(msgspec.Struct, array_like=True):
    seq: int
    tick: int
    clock_ns: int
    site_version: int
    engine: bytes


class SitePartition:
    """A site's part of a partition of the log, as `SiteCounter.partition` creates it.

    It is counted from when the site was added until it is removed.
    """

    def __init__(
        self,
        number: int,
        partitions: int,
        epoch: int,
        sites: SiteVersions,
        engine_of: Callable[[SiteVersion], Engine],
    ) -> None:
        """Start at the beginning of the log; `restore` continues elsewhere.

        Args:
            number: which one.
            partitions: of how many.
            epoch: of its owner, published with its counts.
            sites: the versions of the site.
            engine_of: the engine that counts partitions by a version.
        """
        self.number = number
        self.partitions = partitions
        self.epoch = epoch
        self.seq = 0  # everything up to this is read
        self.done_seq = 0  # everything up to this is counted
        self.tick = 0  # the last instant that was counted, in TICK_S
        self.reached_ns = 0  # the log's clock at the last message that was read
        self.rows = HistoryRows()
        self.recorded: list[CountsAt] = []
        self._sites = sites
        self._engine_of = engine_of
        self._batches: list[HistoryBatch] = []  # counts of earlier versions of the site
        self._use(sites.oldest)
        self._undecoded: list[RawBatch] = []
        self._waiting: FixColumns | None = None  # decoded, and received after the last counted instant
        self._done_ns = 0  # the log's clock at the last message that is counted
        self._tick_subject = b"fix.%d.tick" % number

    def _use(self, version: SiteVersion) -> None:
        """Be counted by a version from now on, without devices."""
        self.version, self.engine, self._site = version, self._engine_of(version), version.site
        self.engine.drop(self.number)
        self.engine.set_prefix(b"fix.%d.%s." % (self.number, self._site.id.encode()), self.number)

    def change_site(self, version: SiteVersion) -> None:
        """Move its devices, which have been placed again, to the engine of another version."""
        before, self._batches = self.engine, [*self._batches, *self._count_batches()]
        self.version, self.engine, self._site = version, self._engine_of(version), version.site
        before.move(self.engine, self.number)

    @property
    def site_id(self) -> str:
        """The site's id."""
        return self._site.id

    @property
    def has_ended(self) -> bool:
        """Whether the site is removed, and everything before that is counted."""
        return self.tick >= self._sites.ends_tick

    def end(self) -> None:
        """Drop what was received after the site's removal."""
        self._undecoded, self._waiting = [], None
        self.close()

    def close(self) -> None:
        """Free its state; nothing is to be counted or saved afterwards."""
        self.engine.drop(self.number)

    # --- state -------------------------------------------------------------------------------
    def save(self) -> bytes:
        """The state as bytes, with the sequence after which to continue."""
        state = self.engine.snapshot(self.number)
        return msgspec.msgpack.encode(
            _State(self.done_seq, self.tick, self._done_ns, self.version.number, state)
        )

    def restore(self, data: bytes) -> None:
        """Continue where `save` was called.

        Raises:
            SnapshotError: if the bytes are damaged or of another site file.
        """
        try:
            saved = msgspec.msgpack.decode(data, type=_State)
        except msgspec.MsgspecError as error:
            raise SnapshotError(f"of partition {self.number}", f"is damaged: {error}") from error
        version = self._sites.of_snapshot(saved.site_version)
        self.close()
        self._use(version)
        self.engine.load(saved.engine, self.number)
        self.seq = self.done_seq = saved.seq
        self.tick = saved.tick
        self.reached_ns = self._done_ns = saved.clock_ns
        self._undecoded, self._waiting = [], None
        self.rows, self.recorded, self._batches = HistoryRows(), [], []

    # --- reading and counting ------------------------------------------------------------------
    def take(self, batch: RawBatch, first_ns: int, seq: int, reached_ns: int) -> None:
        """Read messages of the site; `SiteCounter.work` counts them.

        Args:
            batch: those after `seq` count; the log's clock never goes back in it.
            first_ns: when the first message of the partition was received that is read together with them.
            seq: the last message of the partition that is read together with them.
            reached_ns: the log's clock at that message.
        """
        begins_tick, ends_tick = self._sites.begins_tick, self._sites.ends_tick
        if not self.tick:
            self.tick = max(begins_tick, (first_ns - OVER_NS) // TICK_NS)
        new = (batch.seq > self.seq) & (batch.received_ns > begins_tick * TICK_NS)
        if ends_tick < sys.maxsize:
            new &= batch.received_ns <= ends_tick * TICK_NS
        self.seq, self.reached_ns = max(seq, self.seq), max(reached_ns, self.reached_ns)
        if new.any():
            self._undecoded.append(batch if new.all() else batch.pick(new))

    @property
    def waiting_rows(self) -> int:
        """The number of messages that are read and not yet counted."""
        return sum(map(len, self._undecoded)) + self.decoded_rows

    @property
    def decoded_rows(self) -> int:
        """The number of messages that are decoded and not yet counted."""
        return len(self._waiting) if self._waiting is not None else 0

    @property
    def reached_tick(self) -> int:
        """The last instant that is over, in TICK_S, until the site is removed."""
        return min((self.reached_ns - OVER_NS) // TICK_NS, self._sites.ends_tick)

    @property
    def is_site_known(self) -> bool:
        """Whether it is known by which version of the site everything that was read is counted."""
        return self.reached_tick <= self._sites.last_tick

    @property
    def first_waiting_ns(self) -> int:
        """When the first message was received that is read and not yet counted; there is one."""
        first_ns = min((int(batch.received_ns[0]) for batch in self._undecoded), default=self.reached_ns)
        return first_ns if self._waiting is None else min(first_ns, int(self._waiting.received_s[0]) * 10**9)

    def take_read(self) -> RawBatch | None:
        """Remove and return the messages that are to be decoded; None if there are none."""
        if not self._undecoded:
            return None
        batch, self._undecoded = RawBatch.joined(self._undecoded), []
        if b"" in batch.payloads:  # ticks and other empty messages have no meaning here
            batch = batch.pick([subject != self._tick_subject for subject in batch.subjects])
        return batch if len(batch) else None

    def add_decoded(self, columns: FixColumns) -> None:
        """Add what was decoded of the messages that `take_read` returned."""
        waiting = self._waiting
        self._waiting = columns if waiting is None else FixColumns.joined([waiting, columns])

    def take_decoded(self, at: float | None) -> FixColumns | None:
        """Remove and return the rows received at or before an instant (Unix seconds), or all."""
        waiting = self._waiting
        if waiting is None:
            return None
        cut = len(waiting) if at is None else int(np.searchsorted(waiting.received_s, at, side="right"))
        self._waiting = waiting.part(cut, len(waiting)) if cut < len(waiting) else None
        return waiting.part(0, cut)

    @property
    def counted_seq(self) -> int:
        """The sequence before the first row that still waits, otherwise the last one that was read."""
        return int(self._waiting.seq[0]) - 1 if self._waiting is not None else self.seq

    def mark_counted(self) -> None:
        """Set where to continue after a restore: all rows that don't wait are counted."""
        self.done_seq = self.counted_seq
        # of what waits, everything was received after the last instant that was counted
        self._done_ns = self.reached_ns if self._waiting is None else self.tick * TICK_NS

    def device_state(self, request: DeviceStateRequest) -> DeviceState | None:
        """The state of a device; None: it is unknown."""
        known = self.engine.find(f"{request.kind}.{request.device}".encode(), self.number)
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

    @property
    def history_rows(self) -> int:
        """The number of rows that wait for `history`."""
        return len(self.rows)

    def history(self) -> list[HistoryBatch]:
        """The rows counted since the last call, in messages of a bounded size."""
        batches = [*self._batches, *(self._batch(fixes, []) for fixes in self.rows.take())]
        self._batches = []
        return batches + self._count_batches()

    def _count_batches(self) -> list[HistoryBatch]:
        """The recorded counts, with the zones of the version by which they were counted."""
        recorded, self.recorded = self.recorded, []
        instants = max(1, MESSAGE_BYTES // (32 * len(self._site.zones)))
        return [
            self._batch(None, recorded[start : start + instants])
            for start in range(0, len(recorded), instants)
        ]

    def _batch(self, fixes: HistoryFixes | None, recorded: list[CountsAt]) -> HistoryBatch:
        zones = [zone.id for zone in self._site.zones]
        return HistoryBatch(self._site.id, self.number, self.partitions, self.epoch, zones, fixes, recorded)
