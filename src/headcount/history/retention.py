"""Positions expire after a day: whole hours are dropped."""

from __future__ import annotations

from collections.abc import Iterable

from headcount.history.catalog import Catalog
from headcount.history.hours import HOUR_S, hour_start

KEEP_S = 24 * HOUR_S


def expired(names: Iterable[str], now_s: float, keep_s: float = KEEP_S) -> list[str]:
    """The hour folders of which every row is at least `keep_s` old at `now_s`; other names are never included.

    An hour goes as a whole, so its first rows stay for up to `keep_s` and one hour.
    """
    starts = {name: hour_start(name) for name in names}
    return [name for name, start in starts.items() if start is not None and start + HOUR_S + keep_s <= now_s]


def drop_expired(catalog: Catalog, now_s: float, keep_s: float = KEEP_S) -> list[str]:
    """Remove the segments of expired hours; returns their names.

    Raises:
        DataFolderError, StoreError: the store cannot be written.
    """
    names = {
        segment.name
        for segment in catalog.manifest().segments
        if expired([segment.name.split("/")[1]], now_s, keep_s)
    }
    if names:
        catalog.commit(lambda before: before.without(names, now_s))
        catalog.store.delete(names)
    return sorted(names)
