"""The engine: fixes and time in; verdicts, events and counts out.

It has no clock. Each fix carries the instant at which it was received, and `advance` and `counts`
take theirs as an argument, so the same calls always give the same answers (rule 5). How a stream is
cut into batches makes no difference: whether a device expired before a fix was received is decided
by that fix's own instant.

It counts one or more partitions of the log in the same columns, so a call costs the same for all of them as for
one. Partitions don't influence each other: each can be at another instant, and is saved and loaded by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from headcount.counting import presence, verdicts
from headcount.counting.counts import ZoneCounter
from headcount.counting.device_table import DeviceTable, PseudonymSource
from headcount.counting.events import Events, joined
from headcount.counting.fix_columns import B1, I4, I8, OFFLINE, U1, U8, FixColumns, ProjectedFixes, Removal
from headcount.counting.presence import KnownDevice
from headcount.counting.rounds import rounds_of
from headcount.counting.site import Site
from headcount.counting.zone_lookup import ZoneLookup
from headcount.errors import SnapshotError

#: Interval at which forgotten devices are removed from memory.
SWEEP_S = 3600.0
SNAPSHOT_FORMAT = 5


@dataclass(frozen=True, slots=True)
class StepResult:
    """The result of a batch: for each row its verdict (255 for a status message) and where it goes; all events."""

    verdicts: U1
    stored: B1  # belongs in the history
    events: Events


class _Snapshot(msgspec.Struct, array_like=True):  # of one partition
    format: int
    site: bytes
    sets: bytes  # those in use, as bits
    devices: int
    columns: dict[str, bytes]
    sweep: float


class Engine:
    """Counts the devices of some partitions on one site; callers without a log use partition 0 alone."""

    def __init__(
        self, site: Site, zones: ZoneLookup | None = None, names: PseudonymSource | None = None
    ) -> None:
        """Start without devices.

        Args:
            site: the campus.
            zones: its zones, if they were prepared already (several engines may share them).
            names: source of the pseudonyms under which devices are published, saved and removed; not
                needed for counting alone.
        """
        self.zones = ZoneLookup(site) if zones is None else zones
        self._digest = site.digest()
        self._table = DeviceTable(names)
        self._set_counter()
        self._sweep: dict[int, float] = {}  # partition → the number of the last sweep
        self._removed: list[int] = []  # slots to free before the next call that hands out slots
        #: No device expires before this; a lower bound, so most calls need no search.
        self._next_expiry_s = -np.inf

    def _set_counter(self) -> None:
        """Count in the zones as they are now, all circles compared again."""
        self.zones.sets.track(self._table)
        self._counts = ZoneCounter(self.zones, self._table)
        self._table.moved[: len(self._table)] = True

    @property
    def devices(self) -> int:
        """The number of devices in memory, present or not."""
        return self._table.devices

    @property
    def generation(self) -> int:
        """While it is the same, all slots that `slots` returned stay valid."""
        return self._table.generation

    def set_prefix(self, prefix: bytes, partition: int = 0) -> None:
        """Set the prefix before the key in the names given to `slots`, before the first of the partition."""
        self._table.set_prefix(partition, prefix)

    def slots(
        self, names: list[bytes], admit: Callable[[bytes], bool] = lambda _: True, partition: int | I4 = 0
    ) -> I4:
        """The slots of devices, int32 [n], valid until the next `advance`.

        Args:
            names: `b"person.alice"`: kind, dot, id, after the prefix of its partition.
            admit: called with each unknown name; a rejected one gets the slot -1, and its fixes the verdict
                `malformed`.
            partition: of all names or of each.
        """
        self._free_removed()
        return self._table.slots(names, admit, partition)

    def key(self, slot: int) -> bytes:
        """The key of a slot's device, until the next `advance`; b"" after `restore` until it sends a message."""
        return self._table.key(slot)

    def kinds(self, slots: I4) -> U1:
        """The kind of each slot's device, uint8 [n], an index into `topics.KINDS`; undefined for slot -1."""
        return self._table.kind[slots]

    def names(self, slots: I4, day: int) -> U8:
        """The pseudonyms of devices on a day, uint64 [n]; for restored slots, the saved one.

        Pseudonyms are cached: repeated calls for one day are array look-ups.
        """
        return self._table.names(slots, day)

    def partitions(self, slots: I4) -> I4:
        """The partition of each slot's device, int32 [n]."""
        return self._table.partition[slots]

    def find(self, key: bytes, partition: int = 0) -> KnownDevice | None:
        """The state of a device, None if it is unknown."""
        slot = self._table.find(key, partition)
        if slot < 0 or slot in self._removed:
            return None
        table = self._table
        zones = self.zones.sets[int(table.zones[slot])]
        known = not np.isnan(table.x_m[slot])
        return KnownDevice(
            present=bool(zones),
            zones=[self.zones.site.zones[zone].id for zone in zones],
            last_t_s=None if np.isnan(table.last_t_s[slot]) else float(table.last_t_s[slot]),
            x_m=float(table.x_m[slot]) if known else None,
            y_m=float(table.y_m[slot]) if known else None,
            acc_m=float(table.acc_m[slot]),
            offline=bool(np.isfinite(table.offline_s[slot])),
            verdict=int(table.verdict[slot]),
        )

    @np.errstate(over="ignore")  # of hostile numbers; infinite products compare rightly
    def step(self, fixes: FixColumns, slots: I4) -> StepResult:
        """Judge fixes in the order in which they were received, and use them.

        Args:
            fixes: n rows; `received_s` must not decrease for a device.
            slots: of their devices, as returned by the method `slots`, int32 [n].

        Returns:
            A verdict for each row, and the resulting changes of membership.
        """
        table = self._table
        self.zones.sets.collect()
        # numpy's index type makes look-ups twice as fast
        device = slots.astype(np.intp)
        verdict = verdicts.without_state(fixes, slots)
        batch = self._projected(fixes, device, verdict)
        events: list[Events] = []
        for rows in rounds_of(device, np.flatnonzero((verdict == verdicts.NONE) & (device >= 0))):
            self._round(batch if len(rows) == len(fixes) else batch.pick(rows), rows, verdict, events)
        known = (device >= 0) & (fixes.what == 0)
        if known.all():
            table.verdict[device] = verdict
        else:
            table.verdict[device[known]] = verdict[known]
        return StepResult(verdict, verdicts.stored(self.zones, verdict, batch), joined(events))

    def _projected(self, fixes: FixColumns, device: I8, known: U1) -> ProjectedFixes:
        x_m, y_m = self.zones.site.project(fixes.lat_deg, fixes.lon_deg)
        kind = self._table.kind[device]
        acc_m = np.where((fixes.acc_m > 0.0) & (fixes.acc_m < np.inf), fixes.acc_m, 0.0)
        return ProjectedFixes(
            device,
            kind,
            fixes.what,
            fixes.received_s,
            fixes.t_s,
            x_m,
            y_m,
            acc_m,
            verdicts.of_the_fix_alone(self.zones, known, kind, fixes.received_s, fixes.t_s, x_m, y_m, acc_m),
            self.zones.cells(x_m, y_m),
        )

    def _round(self, fixes: ProjectedFixes, rows: I8, verdict: U1, events: list[Events]) -> None:
        """Process at most one row per device; `rows` are the positions of their verdicts."""
        table, zones = self._table, self.zones
        all_devices = device = fixes.device
        expired = table.expires_s[device] < fixes.received_s
        if expired.any():
            events.append(presence.expire(zones, table, device[expired]))
        old = verdicts.forgotten(table, device, fixes.received_s)
        if old.any():
            presence.reset(table, device[old])
        status = fixes.what != 0
        if status.any():
            offline_s = np.where(fixes.what[status] == OFFLINE, fixes.received_s[status], np.inf)
            presence.apply_status(zones, table, device[status], offline_s)
            rows, fixes = rows[~status], fixes.pick(~status)
        judged = verdicts.with_state(zones.site, table, fixes)
        used = judged == verdicts.ACCEPTED
        if not used.all():
            jumps = judged == verdicts.IMPLAUSIBLE
            table.implausible_run[fixes.device[jumps]] += 1
            table.implausible_t_s[fixes.device[jumps]] = fixes.t_s[jumps]
            coarse = (judged == verdicts.INACCURATE) | (judged == verdicts.OUTSIDE)
            if coarse.any():
                left = presence.place_coarse(zones, table, fixes.pick(coarse), rows[coarse], judged[coarse])
                events.append(left)
            verdict[rows] = judged
            rows, fixes = rows[used], fixes.pick(used)
        verdict[rows], moved = presence.place(zones, table, fixes, rows)
        events.append(moved)
        self._next_expiry_s = min(self._next_expiry_s, float(table.expires_s[all_devices].min()))

    def advance(self, now_s: float, partitions: Sequence[int] | None = None) -> Events:
        """Expire all devices whose hold ended before `now_s`; the events carry those instants.

        Args:
            now_s: Unix seconds.
            partitions: whose devices; None: of all.
        """
        table, sweep = self._table, now_s // SWEEP_S
        self._free_removed()
        if partitions is None:
            partitions = table.partitions
        if due := [number for number in partitions if self._sweep.get(number, -np.inf) < sweep]:
            self._sweep.update(dict.fromkeys(due, sweep))
            self._sweep_devices(now_s, due)
        events = joined([])
        if now_s > self._next_expiry_s:
            expires_s = table.expires_s[: len(table)]
            gone = np.flatnonzero(expires_s < now_s).astype(np.int32)
            gone = gone[np.isin(table.partition[gone], partitions)]
            events = presence.expire(self.zones, table, gone)
            self._next_expiry_s = float(expires_s.min(initial=np.inf))
        return events

    def change_site(self, zones: ZoneLookup, at_s: float) -> tuple[Events, Events]:
        """Count by another version of the site from now on (rule 6).

        Args:
            zones: those of the new version.
            at_s: when it takes effect; everything received at or before it has been processed.

        Returns:
            The exits, expired holds included, whose zones are those of the old version; and the entries, with
            the zones of the new one.
        """
        left, entered = self.place_again(zones, at_s, None)
        self.zones.sets.untrack(self._table)
        self.zones, self._digest = zones, zones.site.digest()
        self._set_counter()
        self._next_expiry_s = -np.inf
        return left, entered

    def place_again(self, zones: ZoneLookup, at_s: float, partition: int | None) -> tuple[Events, Events]:
        """Place the devices of a partition, or all, in the zones of another version; see `change_site`.

        A partition is to be moved to the engine of that version next, by `move`.
        """
        expired = self.advance(at_s, None if partition is None else [partition])
        device = self._table.taken(partition).astype(np.intp)
        left, entered = presence.place_again(self.zones, zones, self._table, device, at_s)
        return joined([expired, left]), entered

    def place_nowhere(self, at_s: float, partition: int) -> Events:
        """Take the devices of a partition out of all zones: the site is removed. Call `advance` first."""
        return presence.leave_site(self.zones, self._table, self._table.taken(partition), at_s)

    def move(self, other: Engine, partition: int) -> None:
        """Move the state of a partition to the engine of another version, after `place_again`."""
        other._free_removed()
        other.drop(partition)
        self._table.move(other._table, partition)
        other._sweep[partition] = self._sweep.get(partition, -np.inf)
        other._next_expiry_s = -np.inf
        self.drop(partition)

    def counts(self, now_s: float) -> I4:
        """The counts of partition 0 at `now_s`: int32 [zones, kinds, numbers]. Call `advance(now_s)` first."""
        counts: I4 = self._counts.take(now_s, [0])[0]
        return counts

    def counts_of(self, now_s: float, partitions: Sequence[int]) -> I4:
        """The counts of each of some partitions, in their order: int32 [partitions, zones, kinds, numbers]."""
        return self._counts.take(now_s, partitions)

    def present(self) -> I4:
        """The counts at the instant of the last `advance`, without low, high and stale: int32 [zones, kinds]."""
        return self._counts.present()

    def _sweep_devices(self, now_s: float, partitions: Sequence[int]) -> None:
        table = self._table
        taken = table.taken()
        taken = taken[np.isin(table.partition[taken], partitions)]
        never = np.isnan(table.last_t_s[taken])
        self._counts.refresh()  # so its pairs contain no slot that is about to be reused
        table.forget(taken[never | verdicts.forgotten(table, taken, now_s)].tolist())

    def forget(self, keys: list[bytes]) -> None:
        """Delete the state of devices without any event; the slots of others stay valid."""
        self._forget([slot for slot in map(self._table.find, keys) if slot >= 0])

    def drop(self, partition: int) -> None:
        """Delete the state of a partition without any event."""
        self._free_removed()
        self._forget(self._table.taken(partition).tolist())
        self._sweep.pop(partition, None)

    def _forget(self, slots: list[int]) -> None:
        self._table.moved[slots] = True
        self._table.zones[slots] = 0
        self._counts.refresh()
        self._table.forget(slots)

    def remove(self, removal: Removal, now_s: float, partition: int = 0) -> Events:
        """Remove a device from every zone now and delete its state; an unknown device changes nothing.

        Args:
            removal: its kind, and its pseudonyms on all days whose pseudonyms may still be in use.
            now_s: Unix seconds; holds that ended earlier expire first.
            partition: of the device.

        Returns:
            The changes of membership. Slots stay valid until `slots` or `advance` is called.
        """
        self._free_removed()
        table = self._table
        slots = table.called(removal.kind, removal.pseudonyms, partition)
        expired = presence.expire(self.zones, table, slots[table.expires_s[slots] < now_s])
        removed = presence.remove(self.zones, table, slots, now_s)
        self._removed = slots.tolist()
        return joined([expired, removed])

    def _free_removed(self) -> None:
        if self._removed:
            self._counts.refresh()
            self._table.forget(self._removed)
            self._removed = []

    def snapshot(self, partition: int = 0) -> bytes:
        """The state of a partition as bytes, from which `load` makes one with the same behaviour.

        It holds no keys, only each device's pseudonym of the day on which its last used fix was received.

        Raises:
            ValueError: the engine has no source of pseudonyms.
        """
        self._free_removed()
        devices, columns = self._table.dump(partition)
        sets = self.zones.sets
        used, index = sets.used(np.frombuffer(columns["zones"], dtype=np.int32))
        columns["zones"] = index.astype(np.int32).tobytes()
        bits = sets.bits[used].tobytes()
        sweep = self._sweep.get(partition, -np.inf)
        saved = _Snapshot(SNAPSHOT_FORMAT, self._digest, bits, devices, columns, sweep)
        return msgspec.msgpack.encode(saved)

    def load(self, data: bytes, partition: int = 0) -> None:
        """Replace the state of a partition by a snapshot, made with the same pseudonyms.

        Raises:
            SnapshotError: the snapshot has another format, is of another site, or is damaged; the partition is
                empty then.
        """
        self.drop(partition)
        site = self.zones.site
        try:
            saved = msgspec.msgpack.decode(data, type=_Snapshot)
            if saved.format != SNAPSHOT_FORMAT:
                raise SnapshotError(site.id, f"has format {saved.format} instead of {SNAPSHOT_FORMAT}")
            if saved.site != self._digest:
                raise SnapshotError(site.id, "was made with another site file")
            sets = self.zones.sets
            numbers = sets.numbers(np.frombuffer(saved.sets, dtype=np.uint64).reshape(-1, sets.words))
            index = np.frombuffer(saved.columns.get("zones", b""), dtype=np.int32)
            columns = saved.columns | {"zones": numbers[index].astype(np.int32).tobytes()}
            self._table.load(saved.devices, columns, partition)
        except (msgspec.MsgspecError, ValueError, IndexError) as error:
            raise SnapshotError(site.id, f"is damaged: {error}") from error
        self._sweep[partition] = saved.sweep
        self._next_expiry_s = -np.inf

    @classmethod
    def restore(
        cls, site: Site, data: bytes, zones: ZoneLookup | None = None, names: PseudonymSource | None = None
    ) -> Engine:
        """A new engine with the partition of which `data` is a snapshot; see `load`."""
        engine = cls(site, zones, names)
        engine.load(data)
        return engine
