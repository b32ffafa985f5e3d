"""A partition of the log with all sites: where it is read, and a part for each site. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec
import numpy as np

from headcount.counting.site_versions import Sites, SiteVersions
from headcount.errors import LogError, SnapshotError
from headcount.messages.device_state import DeviceState, DeviceStateRequest
from headcount.messages.history import HistoryBatch
from headcount.messages.times import DAY_S
from headcount.messaging.raw_batch import RawBatch
from headcount.worker.site_partition import OVER_NS, TICK_NS, SitePartition

DAY_NS = DAY_S * 10**9


class _PartitionState(msgspec.Struct, array_like=True):
    seq: int
    sites: dict[str, bytes]


class Partition:
    """A partition of the log, as `Counter.partition` creates it."""

    def __init__(
        self,
        number: int,
        epoch: int,
        sites: Sites,
        create: Callable[[SiteVersions, int, int], SitePartition],
    ) -> None:
        """Start at the beginning of the log; `restore` continues elsewhere.

        Args:
            number: which one.
            epoch: of its owner, published with its counts.
            sites: what is counted.
            create: a site's part of a partition of a number, for an epoch.
        """
        self.number = number
        self.epoch = epoch
        self.seq = 0  # everything up to this is read
        self.pending = 0
        self.reached_ns = 0  # the log's clock at the last message that was read
        self.fix_seq = 0  # the last message that was read and isn't a tick
        self.marker_seq = 0  # the last marker that was read: a device was erased
        self.parts: dict[str, SitePartition] = {}  # by key of the site
        self._sites = sites
        self._create = create
        self._read: list[RawBatch] = []  # what no part has got yet
        self._marker = b"fix.%d.forget" % number

    def close(self) -> None:
        """Free its state; nothing is to be counted or saved afterwards."""
        for part in self.parts.values():
            part.close()

    # --- state -------------------------------------------------------------------------------
    @property
    def done_seq(self) -> int:
        """Everything up to this is counted, or of no site."""
        waiting = [int(batch.seq[0]) - 1 for batch in self._read[:1]]
        return min([*waiting, *(part.done_seq for part in self._live)], default=self.seq)

    @property
    def _live(self) -> list[SitePartition]:
        return [part for part in self.parts.values() if not part.has_ended]

    def save(self) -> bytes:
        """The state as bytes, with the sequence after which to continue."""
        sites = {key: part.save() for key, part in self.parts.items() if not part.has_ended}
        return msgspec.msgpack.encode(_PartitionState(self.done_seq, sites))

    @property
    def sites(self) -> frozenset[str]:
        """The keys of the sites in its state."""
        return frozenset(key for key, part in self.parts.items() if not part.has_ended)

    def restore(self, data: bytes) -> None:
        """Continue where `save` was called.

        Raises:
            SnapshotError: if the bytes are damaged or of unknown versions of the sites.
        """
        try:
            saved = msgspec.msgpack.decode(data, type=_PartitionState)
        except msgspec.MsgspecError as error:
            raise SnapshotError(f"of partition {self.number}", f"is damaged: {error}") from error
        self.close()
        self.parts, self._read = {}, []
        for key, state in saved.sites.items():
            site = self._sites.with_key(key)
            if site is not None:  # else it was removed hours ago
                self.parts[key] = self._create(site, self.number, self.epoch)
                self.parts[key].restore(state)
        self.seq = saved.seq
        self.reached_ns = min((part.reached_ns for part in self.parts.values()), default=0)

    # --- reading and counting ------------------------------------------------------------------
    def take(self, batch: RawBatch) -> None:
        """Read messages; `Counter.work` counts them.

        Raises:
            LogError: if they are not newer than the messages read before: the reader is at another place.
        """
        if batch.seq[0] <= self.seq:
            raise LogError(f"partition {self.number}: got message {batch.seq[0]} after {self.seq}")
        # a machine's clock may be set back; the log's stands still until it is reached again
        received_ns = np.maximum(np.maximum.accumulate(batch.received_ns), self.reached_ns)
        self.pending = batch.pending
        self.seq = int(batch.seq[-1])
        self.reached_ns = int(received_ns[-1])
        if batch.payloads.count(b"") < len(batch):
            self.fix_seq = self.seq
        if self._marker in batch.subjects:
            self.marker_seq = self.seq
        self._read.append(replace(batch, received_ns=received_ns))

    def distribute(self) -> None:
        """Give each site the messages that were read, as far as it is known which sites there are."""
        for key in [key for key in self.parts if self._sites.with_key(key) is None]:
            self.parts.pop(key).close()
        for site in self._sites.all:
            if site.key not in self.parts:
                self.parts[site.key] = self._create(site, self.number, self.epoch)
        if not self._read:
            return
        batch, self._read = RawBatch.joined(self._read), []
        # a site that isn't known yet begins after this instant
        known_ns = min(self._sites.last_tick * TICK_NS, self.reached_ns)
        known = int(np.searchsorted(batch.received_ns, known_ns, side="right"))
        if known < len(batch):
            known_rows = np.arange(len(batch)) < known
            self._read = [batch.pick(~known_rows)]
            batch = batch.pick(known_rows)
        if not len(batch):
            return
        first_ns, seq, reached_ns = int(batch.received_ns[0]), int(batch.seq[-1]), int(batch.received_ns[-1])
        for part, rows in self._by_site(batch):
            part.take(rows, first_ns, seq, reached_ns)

    def _by_site(self, batch: RawBatch) -> list[tuple[SitePartition, RawBatch]]:
        """The messages of each site; markers are for all, and what is of no site is malformed in the first."""
        parts = list(self.parts.values())
        if len(parts) == 1:
            return [(parts[0], batch)]
        names = [b"" if subject == self._marker else subject.split(b".", 3)[2] for subject in batch.subjects]
        known = {part.site_id.encode() for part in parts}
        found = []
        for place, part in enumerate(parts):
            own = part.site_id.encode()
            which = [name in {own, b""} or (place == 0 and name not in known) for name in names]
            found.append((part, batch.pick(which)))
        return found

    @property
    def waiting_rows(self) -> int:
        """The number of messages that are read and not yet counted."""
        return sum(map(len, self._read)) + sum(part.waiting_rows for part in self.parts.values())

    @property
    def due(self) -> bool:
        """Whether an instant is over and not yet counted."""
        reached_tick = (self.reached_ns - OVER_NS) // TICK_NS
        begins = bool(self._read) and not self.parts
        return begins or any(reached_tick > part.tick for part in self._live)

    @property
    def is_site_known(self) -> bool:
        """Whether it is known by which sites and versions everything that was read is counted."""
        return (self.reached_ns - OVER_NS) // TICK_NS <= self._sites.last_tick

    @property
    def days(self) -> range:
        """The days (their numbers since 1970) on which what waits was received; counting it needs their keys."""
        first_ns = [int(batch.received_ns[0]) for batch in self._read[:1]]
        first_ns += [part.first_waiting_ns for part in self._live if part.waiting_rows]
        return range(min(first_ns, default=self.reached_ns) // DAY_NS, self.reached_ns // DAY_NS + 1)

    def device_state(self, request: DeviceStateRequest) -> DeviceState | None:
        """The state of a device; None: it is unknown."""
        for part in self._live:
            if part.site_id == request.site:
                return part.device_state(request)
        return None

    @property
    def history_rows(self) -> int:
        """The number of rows that wait for `history`."""
        return sum(part.history_rows for part in self.parts.values())

    def history(self) -> list[HistoryBatch]:
        """The rows counted since the last call, in messages of a bounded size."""
        return [batch for part in self.parts.values() for batch in part.history()]
