"""Presence: which devices are connected to a server, for the bucket SEEN.

    server ──▶ each connect and disconnect ──▶ table of connections ──▶ SEEN, once a second
    server ──▶ all connections, by polls   ──▶ the same table: it repairs what was missed

The table is the only source of presence. A disconnect is written only while SEEN names this unit: the device
may have connected to another one already.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import NoReturn

import msgspec

from headcount.broker.nats_config import ACCOUNT
from headcount.errors import LogError
from headcount.messages.records import LastSeen
from headcount.messaging.connection import Connection, Message
from headcount.messaging.kv import KvBucket, KvEntry
from headcount.messaging.streams import SEEN_BUCKET
from headcount.messaging.units import UNIT_TIMEOUT_S, Units
from headcount.runtime.retry import repeat
from headcount.runtime.tasks import until_stopped

CONNECTED_SUBJECT = f"$SYS.ACCOUNT.{ACCOUNT}.CONNECT"
DISCONNECTED_SUBJECT = f"$SYS.ACCOUNT.{ACCOUNT}.DISCONNECT"
#: Changes are written at this interval, and the bucket is compared with the table at the other.
WRITE_INTERVAL_S, COMPARE_INTERVAL_S = 1.0, 60.0
#: A unit without a heartbeat for this long is gone, and its devices are not connected any more.
GONE_S, GONE_POLL_S = 2 * UNIT_TIMEOUT_S, 2.0
_READ_S = 10.0
#: Writes at the same time.
_WRITES = 100
#: Attempts to write a key that others change at the same time, or that a replica returned late.
_ATTEMPTS = 3


class _EventServer(msgspec.Struct):
    id: str


class _EventClient(msgspec.Struct):
    id: int
    user: str = ""


class _ConnectionEvent(msgspec.Struct):
    """The server's event about one connection; the fields that are used."""

    server: _EventServer
    client: _EventClient


_event = msgspec.json.Decoder(_ConnectionEvent)
#: The server's id, which changes when it restarts, and its number of a connection, which it uses once.
ConnectionKey = tuple[str, int]


class Presence:
    """The devices that are connected to one server."""

    def __init__(self, unit: str, device_of: Callable[[str], str | None]) -> None:
        """Report as `unit`; `device_of` returns the device of a connection's user, if it is a registered one's."""
        self._unit = unit
        self._device_of = device_of
        self._connections: dict[ConnectionKey, str] = {}
        self._new: dict[ConnectionKey, str] = {}  # since the poll began
        #: Connections that ended since the poll before the last one began: a server lists them for a moment.
        self._ended: set[ConnectionKey] = set()
        self._ended_before: set[ConnectionKey] = set()
        self._changed: dict[str, float] = {}  # devices, and when: Unix seconds

    @property
    def devices(self) -> set[str]:
        """The connected devices."""
        return set(self._connections.values())

    async def on_connected(self, message: Message) -> None:
        """Process the server's event about a new connection."""
        event = _event.decode(message.data)
        device = self._device_of(event.client.user)
        if device is not None:
            key = event.server.id, event.client.id
            self._connections[key] = self._new[key] = device
            self._changed[device] = time.time()

    async def on_disconnected(self, message: Message) -> None:
        """Process the server's event about the end of a connection."""
        event = _event.decode(message.data)
        key = event.server.id, event.client.id
        self._ended.add(key)
        self._new.pop(key, None)
        device = self._connections.pop(key, None)
        if device is not None:
            self._changed[device] = time.time()

    def begin_poll(self) -> None:
        """Note that the server is about to list its connections."""
        self._new.clear()
        self._ended, self._ended_before = set(), self._ended

    def end_poll(self, listed: dict[ConnectionKey, str]) -> None:
        """Replace the table by the listed connections and devices, and what has changed meanwhile."""
        before = self.devices
        ended = self._ended | self._ended_before
        found = {key: device for key, device in listed.items() if key not in ended}
        self._connections = found | self._new
        self._changed |= dict.fromkeys(before ^ self.devices, time.time())

    # --- the bucket ------------------------------------------------------------------------------------
    async def publish(self, core: Connection, is_registered: Callable[[str], bool]) -> NoReturn:
        """Write changes to SEEN once a second; all differences after a reconnect, and from time to time.

        Args:
            core: a reconnecting connection to the core.
            is_registered: whether a device exists; others get no new entry.
        """
        bucket = KvBucket(core, SEEN_BUCKET, timeout_s=_READ_S)
        compare_s, reconnects = 0.0, -1
        while True:
            await asyncio.sleep(WRITE_INTERVAL_S)
            if not core.is_connected:
                continue
            try:
                if time.monotonic() >= compare_s or core.reconnects != reconnects:
                    self._compare(await bucket.newest())
                    compare_s, reconnects = time.monotonic() + COMPARE_INTERVAL_S, core.reconnects
            except LogError:
                continue  # the next second tries again
            changed, self._changed = self._changed, {}
            present = self.devices
            writes = [
                (device, LastSeen(at_s, device in present, self._unit)) for device, at_s in changed.items()
            ]
            for first in range(0, len(writes), _WRITES):
                some = writes[first : first + _WRITES]
                await asyncio.gather(*(self._write(bucket, *one, is_registered) for one in some))

    def _compare(self, entries: dict[str, KvEntry]) -> None:
        """Note the devices for which SEEN is wrong."""
        ours = {id_ for id_, seen in _decoded(entries) if seen.connected and seen.unit == self._unit}
        self._changed = dict.fromkeys(ours ^ self.devices, time.time()) | self._changed

    async def _write(
        self, bucket: KvBucket, device: str, seen: LastSeen, is_registered: Callable[[str], bool]
    ) -> None:
        value = msgspec.json.encode(seen)
        try:
            for _ in range(_ATTEMPTS):
                if seen.connected:
                    await bucket.put(device, value)
                    return
                entry = await bucket.get(device)
                stored = None if entry is None else msgspec.json.decode(entry.value, type=LastSeen)
                elsewhere = stored is not None and stored.connected and stored.unit != self._unit
                if elsewhere or (stored is None and not is_registered(device)):
                    return
                if await bucket.replace(device, value, 0 if entry is None else entry.revision) is not None:
                    return
                await asyncio.sleep(0.1)
        except LogError:
            pass
        self._changed.setdefault(device, seen.at)  # the next second tries again


class GoneUnits:
    """Writes the disconnects of broker units that were killed: a unit that ends writes its own."""

    def __init__(self, core: Connection, own: str) -> None:
        """Use a reconnecting connection to the core; `own` is the auth service that is no broker unit."""
        self._units = Units(core)
        self._bucket = KvBucket(core, SEEN_BUCKET, timeout_s=_READ_S)
        self._own = own
        self._known: set[str] | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Poll the units until `stop` is set."""
        polling = repeat(self._poll, (LogError,), "cannot check broker units now", pause_s=GONE_POLL_S)
        await until_stopped(polling, stop)

    async def _poll(self) -> None:
        alive = set((await self._units.table()).alive(GONE_S))
        if self._known is None:
            self._known = {seen.unit for _, seen in _decoded(await self._bucket.newest())} - {self._own}
        if gone := self._known - alive:
            entries = await self._bucket.newest()
            for id_, seen in _decoded(entries):
                if seen.connected and seen.unit in gone:
                    value = msgspec.json.encode(LastSeen(time.time(), connected=False, unit=seen.unit))
                    await self._bucket.replace(id_, value, entries[id_].revision)
        self._known = alive


def _decoded(entries: dict[str, KvEntry]) -> Iterable[tuple[str, LastSeen]]:
    return ((id_, msgspec.json.decode(entry.value, type=LastSeen)) for id_, entry in entries.items())
