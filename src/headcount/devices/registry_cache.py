"""A copy of the registry in memory, for those who look often: read once, and then kept up to date.

It follows the buckets DEVICE and SEEN, and lags behind them by milliseconds; whoever must be sure asks the
registry itself. Secrets' hashes aren't in it.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right, insort
from collections.abc import Callable, Iterator
from sys import intern

import msgspec
from nats.aio.client import Client

from headcount.devices.device_filter import DEFAULT_PAGE_SIZE, DevicePage, page
from headcount.devices.registry import decode_device
from headcount.errors import LogError
from headcount.messages.records import DEVICE_KEY, Device, DeviceStatus, Seen
from headcount.messages.topics import Kind
from headcount.messaging.kv import Bucket
from headcount.messaging.kv_watch import follow
from headcount.messaging.streams import DEVICE_BUCKET, SEEN_BUCKET

#: Between looks at the connection.
POLL_INTERVAL_S = 0.5
#: Erasing tells nobody its end: those who are being erased are looked up every so often, so many at once.
_ERASED_POLL_INTERVAL_S = 5.0
_ERASED_BATCH = 500
_DEVICE_PREFIX = DEVICE_KEY.format(id="")

_log = logging.getLogger(__name__)


class RegistryCache:
    """All devices and when they were last connected, in memory."""

    def __init__(self) -> None:
        """Start empty; `keep` fills it."""
        self.ready = asyncio.Event()
        self.seen: dict[str, Seen] = {}
        self._devices: dict[str, Device] = {}
        self._ids: list[str] = []  # sorted
        self._aliases: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._devices)

    def get(self, id_: str) -> Device | None:
        """The device with this id, without its secret's hash."""
        return self._devices.get(id_)

    def by_alias(self, alias: str) -> str | None:
        """The id of the device that a name of another format leads to."""
        return self._aliases.get(alias)

    def all(self, after: str = "") -> Iterator[Device]:
        """The devices in the order of their ids, those after an id. Don't wait for anything in between."""
        start = bisect_right(self._ids, after)
        return (self._devices[self._ids[at]] for at in range(start, len(self._ids)))

    def list(
        self,
        site: str,
        *,
        kind: Kind | None = None,
        status: DeviceStatus | None = None,
        group: str | None = None,
        text: str | None = None,
        after: str = "",
        limit: int = DEFAULT_PAGE_SIZE,
    ) -> DevicePage:
        """A page of the devices of a site; see `pages.page`."""
        devices = self.all(after)
        chosen = page(
            devices, site, kind=kind, status=status, group=group, text=text, after=after, limit=limit
        )
        return chosen.with_seen(self.seen)

    def put(self, device: Device) -> None:
        """Take in a device as it is now."""
        before = self._devices.get(device.id)
        if before is None:
            insort(self._ids, device.id)
        else:
            self._unname(before)
        device.secret, device.site = "", intern(device.site)
        device.groups = [intern(group) for group in device.groups]
        self._devices[device.id] = device
        for alias in device.aliases:
            self._aliases[alias] = device.id

    def drop(self, id_: str) -> None:
        """Forget a device."""
        device = self._devices.pop(id_, None)
        if device is not None:
            self._unname(device)
            del self._ids[bisect_right(self._ids, id_) - 1]
        self.seen.pop(id_, None)

    async def keep(self, client: Callable[[], Client]) -> None:
        """Fill it and keep it up to date until cancelled; `client` says over which connection now."""
        while True:
            now = client()
            if now.is_connected:
                await self._follow(now, client)
            await asyncio.sleep(POLL_INTERVAL_S)

    async def _follow(self, now: Client, client: Callable[[], Client]) -> None:
        """Follow both buckets over one connection until there is another."""
        over = asyncio.Event()
        async with asyncio.TaskGroup() as loops:
            devices = follow(
                now,
                DEVICE_BUCKET,
                f"{_DEVICE_PREFIX}*",
                on_all=self._take_all,
                on_change=self._take,
                until=over,
            )
            seen = follow(
                now, SEEN_BUCKET, "*", on_all=self._take_all_seen, on_change=self._take_seen, until=over
            )
            loops.create_task(devices, name="directory: devices")
            loops.create_task(seen, name="directory: last seen")
            erased_s = 0.0
            try:
                while client() is now and not now.is_closed:
                    await asyncio.sleep(POLL_INTERVAL_S)
                    erased_s += POLL_INTERVAL_S
                    if erased_s >= _ERASED_POLL_INTERVAL_S:
                        erased_s = 0.0
                        await self._drop_erased(Bucket(now, now.jetstream(), DEVICE_BUCKET))
            finally:
                over.set()

    def _take_all(self, found: dict[str, bytes]) -> None:
        """Everything there is: what isn't in it is gone."""
        there = {key.removeprefix(_DEVICE_PREFIX) for key in found}
        for id_ in [id_ for id_ in self._devices if id_ not in there]:
            self.drop(id_)
        for key, value in found.items():
            self._take(key, value)
        self.ready.set()

    def _take(self, key: str, value: bytes | None) -> None:
        if value is None:
            self.drop(key.removeprefix(_DEVICE_PREFIX))
            return
        try:
            self.put(decode_device(value))
        except msgspec.MsgspecError:
            _log.warning("what was written to the registry is no device")

    def _take_all_seen(self, found: dict[str, bytes]) -> None:
        self.seen.clear()
        for id_, value in found.items():
            self._take_seen(id_, value)

    def _take_seen(self, id_: str, value: bytes | None) -> None:
        try:
            self.seen[id_] = msgspec.json.decode(value or b"", type=Seen)
        except msgspec.MsgspecError:
            self.seen.pop(id_, None)

    async def _drop_erased(self, bucket: Bucket) -> None:
        erasing = [device.id for device in self._devices.values() if device.status == "erasing"]
        try:
            for id_ in erasing[:_ERASED_BATCH]:
                if not await bucket.newest(DEVICE_KEY.format(id=id_)):
                    self.drop(id_)
        except LogError as error:
            _log.debug("the registry doesn't say who is erased: %s", error)

    def _unname(self, device: Device) -> None:
        for alias in device.aliases:
            if self._aliases.get(alias) == device.id:
                del self._aliases[alias]
