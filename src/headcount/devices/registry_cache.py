"""A copy of the registry in memory, for frequent queries: read once, then updated.

It watches the buckets DEVICE and SEEN, and lags behind them by milliseconds; where that matters, query the
registry itself. It does not contain hashes of secrets.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right, insort
from collections.abc import Iterator
from sys import intern

from headcount.devices.device_filter import DeviceFilter, DevicePage
from headcount.errors import LogError
from headcount.messages.records import DEVICE_KEY, Device, LastSeen, decode_or_none
from headcount.messaging.connection import Connection
from headcount.messaging.kv import KvBucket
from headcount.messaging.kv_watch import watch
from headcount.messaging.streams import DEVICE_BUCKET, SEEN_BUCKET

#: Interval at which the connection is checked.
POLL_INTERVAL_S = 0.5
#: Watchers are not notified when an erasure ends: devices being erased are polled, in batches.
_ERASED_POLL_INTERVAL_S = 5.0
_ERASED_BATCH = 500
_DEVICE_PREFIX = DEVICE_KEY.format(id="")

_log = logging.getLogger(__name__)


class RegistryCache:
    """All devices and when they were last connected, in memory."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.seen: dict[str, LastSeen] = {}
        self._devices: dict[str, Device] = {}
        self._ids: list[str] = []  # sorted
        self._aliases: dict[str, str] = {}
        self._missing = {DEVICE_BUCKET, SEEN_BUCKET}  # not read yet

    def __len__(self) -> int:
        return len(self._devices)

    def get(self, id_: str) -> Device | None:
        """The device with this id, without the hash of its secret."""
        return self._devices.get(id_)

    def by_alias(self, alias: str) -> str | None:
        """The id of the device with this alias."""
        return self._aliases.get(alias)

    def all(self, after: str = "") -> Iterator[Device]:
        """The devices after an id, in order. Do not await anything while iterating."""
        start = bisect_right(self._ids, after)
        return (self._devices[self._ids[at]] for at in range(start, len(self._ids)))

    def list(self, wanted: DeviceFilter) -> DevicePage:
        """A page of the devices that pass a filter."""
        return wanted.page(self.all(wanted.after), self.seen)

    def put(self, device: Device) -> None:
        """Add or replace a device."""
        before = self._devices.get(device.id)
        if before is None:
            insort(self._ids, device.id)
        else:
            self._drop_aliases(before)
        device.secret, device.ingest_key, device.site = "", "", intern(device.site)
        device.groups = [intern(group) for group in device.groups]
        self._devices[device.id] = device
        for alias in device.aliases:
            self._aliases[alias] = device.id

    def drop(self, id_: str) -> None:
        """Remove a device."""
        device = self._devices.pop(id_, None)
        if device is not None:
            self._drop_aliases(device)
            del self._ids[bisect_right(self._ids, id_) - 1]
        self.seen.pop(id_, None)

    async def run(self, connection: Connection) -> None:
        """Fill and update the copy until cancelled."""
        bucket = KvBucket(connection, DEVICE_BUCKET)
        async with asyncio.TaskGroup() as loops:
            devices = watch(
                connection,
                DEVICE_BUCKET,
                f"{_DEVICE_PREFIX}*",
                on_all=self._replace_devices,
                on_change=self._update_device,
            )
            seen = watch(connection, SEEN_BUCKET, "*", on_all=self._replace_seen, on_change=self._update_seen)
            loops.create_task(devices, name="registry cache: devices")
            loops.create_task(seen, name="registry cache: last seen")
            while True:
                await asyncio.sleep(_ERASED_POLL_INTERVAL_S)
                await self._drop_erased(bucket)

    def _replace_devices(self, found: dict[str, bytes]) -> None:
        """Replace all devices; those that were not found are removed."""
        there = {key.removeprefix(_DEVICE_PREFIX) for key in found}
        for id_ in [id_ for id_ in self._devices if id_ not in there]:
            self.drop(id_)
        for key, value in found.items():
            self._update_device(key, value)
        self._mark_read(DEVICE_BUCKET)

    def _update_device(self, key: str, value: bytes | None) -> None:
        if value is None:
            self.drop(key.removeprefix(_DEVICE_PREFIX))
            return
        device = decode_or_none(value, Device)
        if device is None:
            _log.warning("ignoring an invalid entry in the registry")
        else:
            self.put(device)

    def _replace_seen(self, found: dict[str, bytes]) -> None:
        self.seen.clear()
        for id_, value in found.items():
            self._update_seen(id_, value)
        self._mark_read(SEEN_BUCKET)

    def _mark_read(self, bucket: str) -> None:
        self._missing.discard(bucket)
        if not self._missing:
            self.ready.set()

    def _update_seen(self, id_: str, value: bytes | None) -> None:
        self.seen.pop(id_, None)
        if seen := decode_or_none(value, LastSeen):
            self.seen[id_] = seen

    async def _drop_erased(self, bucket: KvBucket) -> None:
        erasing = [device.id for device in self._devices.values() if device.status == "erasing"]
        try:
            for id_ in erasing[:_ERASED_BATCH]:
                if not await bucket.newest(DEVICE_KEY.format(id=id_)):
                    self.drop(id_)
        except LogError as error:
            _log.debug("cannot poll the devices being erased: %s", error)

    def _drop_aliases(self, device: Device) -> None:
        for alias in device.aliases:
            if self._aliases.get(alias) == device.id:
                del self._aliases[alias]
