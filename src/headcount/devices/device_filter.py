"""Filtered lists of devices, a page at a time; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

from headcount.messages.records import Device, DeviceStatus, LastSeen
from headcount.messages.topics import Kind

MAX_PAGE_SIZE = 500
DEFAULT_PAGE_SIZE = 100


@dataclass(frozen=True, slots=True)
class DevicePage:
    """Some devices in the order of their ids."""

    devices: list[Device]
    #: The next page starts after this id; "" = this was the last page.
    after: str
    #: Connections of these devices since the broker started.
    seen: dict[str, LastSeen]


@dataclass(frozen=True, slots=True)
class DeviceFilter:
    """Conditions on the devices of a list; None = any."""

    site: str
    kind: Kind | None = None
    status: DeviceStatus | None = None
    group: str | None = None
    text: str | None = None  # part of the label, in any case
    after: str = ""  # only larger ids
    limit: int = DEFAULT_PAGE_SIZE  # devices a page, at most `MAX_PAGE_SIZE`

    def matches(self, device: Device) -> bool:
        """Whether a device meets all conditions."""
        return (
            device.id > self.after
            and device.site == self.site
            and (self.kind is None or device.kind == self.kind)
            and (self.status is None or device.status == self.status)
            and (self.group is None or self.group in device.groups)
            and (self.text is None or self.text.casefold() in device.label.casefold())
        )

    def page(self, devices: Iterable[Device], seen: Mapping[str, LastSeen]) -> DevicePage:
        """The first page of `devices`, which are in the order of their ids; reads no more than it needs."""
        limit = max(1, min(self.limit, MAX_PAGE_SIZE))
        found = list(islice(filter(self.matches, devices), limit + 1))
        page, more = found[:limit], len(found) > limit
        here = {device.id: seen[device.id] for device in page if device.id in seen}
        return DevicePage(page, page[-1].id if more else "", here)
