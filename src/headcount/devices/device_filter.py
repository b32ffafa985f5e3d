"""Which devices of a list are wanted: filtered, and a page at a time; pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice

from headcount.messages.records import Device, DeviceStatus, Seen
from headcount.messages.topics import Kind

MAX_PAGE_SIZE = 500
DEFAULT_PAGE_SIZE = 100


@dataclass(frozen=True, slots=True)
class DevicePage:
    """Some devices in the order of their ids."""

    devices: list[Device]
    #: Ask for what comes after this id to go on; "" = that was all.
    after: str
    #: Those of the devices that were ever connected since the broker started.
    seen: dict[str, Seen] = field(default_factory=dict)

    def with_seen(self, seen: Mapping[str, Seen]) -> DevicePage:
        """The same page, and when its devices were last connected."""
        here = {device.id: seen[device.id] for device in self.devices if device.id in seen}
        return dataclasses.replace(self, seen=here)


def page(
    devices: Iterable[Device],
    site: str,
    *,
    kind: Kind | None = None,
    status: DeviceStatus | None = None,
    group: str | None = None,
    text: str | None = None,
    after: str = "",
    limit: int = DEFAULT_PAGE_SIZE,
) -> DevicePage:
    """The first `limit` devices (`MAX_PAGE_SIZE` at most) after an id that a filter lets through.

    Args:
        devices: in the order of their ids; no more of them are looked at than it takes.
        site: of this site.
        kind: of this kind; None = both.
        status: with this status.
        group: that are in this group.
        text: whose label has this text in it, whatever its case.
        after: with a larger id.
        limit: so many at most.
    """
    limit = max(1, min(limit, MAX_PAGE_SIZE))
    wanted = None if text is None else text.casefold()
    chosen = (
        device
        for device in devices
        if device.id > after
        and device.site == site
        and (kind is None or device.kind == kind)
        and (status is None or device.status == status)
        and (group is None or group in device.groups)
        and (wanted is None or wanted in device.label.casefold())
    )
    first = list(islice(chosen, limit + 1))
    return DevicePage(first[:limit], first[limit - 1].id if len(first) > limit else "")
