"""A copy of the registry in memory, for those who look often: read once, and then kept up to date.

It hears what is written to the buckets DEVICE and SEEN, and after each new connection reads all of it
again. It lags behind the registry by milliseconds; whoever must be sure asks the registry itself. Secrets'
hashes aren't in it.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right, insort
from collections.abc import Callable, Iterator
from sys import intern

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from headcount.devices.pages import DEFAULT_ROWS, Page, page
from headcount.devices.registry import decoded
from headcount.errors import LogError
from headcount.fixlog.bucket import Bucket
from headcount.fixlog.streams import DEVICE_BUCKET, SEEN_BUCKET
from headcount.wire import DEVICE_KEY, Device, DeviceStatus, Kind, Seen

#: Between looks at the connection, and attempts to read.
CHECK_S = 0.5
#: Erasing tells nobody its end: those who are being erased are looked up every so often, so many at once.
_ERASED_CHECK_S = 5.0
_ERASED_AT_ONCE = 500
_DEVICES = f"$KV.{DEVICE_BUCKET}.{DEVICE_KEY.format(id='')}"
_SEEN = f"$KV.{SEEN_BUCKET}."

_log = logging.getLogger(__name__)


class Directory:
    """All devices and when they were last connected, in memory."""

    def __init__(self) -> None:
        """Start empty; `keep` fills it."""
        self.ready = asyncio.Event()
        self.seen: dict[str, Seen] = {}
        self._devices: dict[str, Device] = {}
        self._ids: list[str] = []  # sorted
        self._aliases: dict[str, str] = {}
        self._heard: set[str] | None = None  # ids of which something was heard while all are read

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
        limit: int = DEFAULT_ROWS,
    ) -> Page:
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
        following: tuple[Client, int] | None = None
        next_check_s = 0.0
        loop = asyncio.get_running_loop()
        while True:
            now = client()
            state = (now, now.stats["reconnects"])
            try:
                if now.is_connected and state != following:
                    if following is None or following[0] is not now:
                        await self._subscribe(now)
                    await self._read(now)
                    following = state
                    self.ready.set()
                elif now.is_connected and loop.time() >= next_check_s:
                    next_check_s = loop.time() + _ERASED_CHECK_S
                    await self._drop_erased(Bucket(now, now.jetstream(), DEVICE_BUCKET))
            except (LogError, nats.errors.Error, OSError, TimeoutError) as error:
                _log.debug("the registry can't be read yet: %s", error)
            await asyncio.sleep(CHECK_S)

    async def _subscribe(self, client: Client) -> None:
        await client.subscribe(f"{_DEVICES}*", cb=self._hear_device)
        await client.subscribe(f"{_SEEN}*", cb=self._hear_seen)
        await client.flush()

    async def _read(self, client: Client) -> None:
        """Take everything that is there, but nothing older than what is heard meanwhile."""
        log = client.jetstream()
        self._heard = heard = set[str]()
        try:
            entries = await Bucket(client, log, DEVICE_BUCKET).newest(DEVICE_KEY.format(id="*"))
            seen = await Bucket(client, log, SEEN_BUCKET).newest()
        finally:
            self._heard = None
        found = {key.partition(".")[2] for key in entries}
        for id_ in [id_ for id_ in self._devices if id_ not in found and id_ not in heard]:
            self.drop(id_)
        for key, entry in entries.items():
            if key.partition(".")[2] not in heard:
                self.put(decoded(entry.value))
        for id_, entry in seen.items():
            self._take_seen(id_, entry.value)

    async def _hear_device(self, message: Msg) -> None:
        id_ = message.subject.removeprefix(_DEVICES)
        if self._heard is not None:
            self._heard.add(id_)
        try:
            self.put(decoded(message.data))
        except msgspec.MsgspecError:
            _log.warning("what was written to the registry is no device")

    async def _hear_seen(self, message: Msg) -> None:
        self._take_seen(message.subject.removeprefix(_SEEN), message.data)

    def _take_seen(self, id_: str, value: bytes) -> None:
        if id_ not in self._devices:  # where everything is open, anybody may be connected
            return
        try:
            self.seen[id_] = msgspec.json.decode(value, type=Seen)
        except msgspec.MsgspecError:
            self.seen.pop(id_, None)

    async def _drop_erased(self, bucket: Bucket) -> None:
        erasing = [device.id for device in self._devices.values() if device.status == "erasing"]
        for id_ in erasing[:_ERASED_AT_ONCE]:
            if not await bucket.newest(DEVICE_KEY.format(id=id_)):
                self.drop(id_)

    def _unname(self, device: Device) -> None:
        for alias in device.aliases:
            if self._aliases.get(alias) == device.id:
                del self._aliases[alias]
