"""Erasure of the rows of a device or a site from the segments of the history.

Segments with such rows are replaced by their remaining rows. It is complete when every segment of a manifest
was found to have none: another process may have merged segments meanwhile, whose output is then checked too.
Rows that writers commit later are theirs to prevent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headcount.errors import DamagedSegmentError
from headcount.history import replacing
from headcount.history.catalog import Catalog
from headcount.history.damage import damage_named, read_whole, set_aside
from headcount.history.manifest import PAUSES, Hold, Segment
from headcount.history.objects import ObjectStore
from headcount.history.replacing import Mask, Replacement
from headcount.messages.history import EraseRequest
from headcount.messages.topics import ID

#: Maximum number of pseudonyms in a request: more than a device has within the retention.
MAX_NAMES = 100
PSEUDONYM = re.compile(r"[0-9a-f]{16}")
#: The data sets with pseudonyms.
_OF_DEVICES = ("fixes", PAUSES, "events")
_BATCH = 16


@dataclass(frozen=True, slots=True)
class ErasedRows:
    """The result of an erasure."""

    rows: int = 0  # deleted
    held: int = 0  # no query reads them any more, and a legal hold keeps them


def asked(payload: bytes) -> EraseRequest | None:
    """The decoded request; None if it is invalid."""
    try:
        found = msgspec.json.decode(payload, type=EraseRequest)
    except msgspec.DecodeError:
        return None
    names = found.pseudonyms
    if found.site:
        return found if not names and ID.fullmatch(found.site) else None
    proper = len(names) <= MAX_NAMES and all(PSEUDONYM.fullmatch(name) for name in names)
    return found if proper else None


def erase_rows(catalog: Catalog, request: EraseRequest, now_s: float) -> ErasedRows:
    """Erase all rows with these pseudonyms, or all rows of a site.

    Rows under a legal hold leave the segments that queries read, and are kept for the hold. A damaged segment
    is set aside, where no query reads it and where it expires. The replaced segments are deleted before this
    returns. Repeating the call completes an interrupted one.

    Raises:
        DataFolderError, StoreError: the store cannot be read or written.
    """
    clean: set[str] = set()
    rows = 0
    while True:
        manifest = catalog.manifest()
        unchecked = [
            each for each in manifest.segments if each.name not in clean and _may_have(each, request)
        ]
        if not unchecked:
            return ErasedRows(rows, _held_rows(catalog, request, now_s))
        plan: list[Replacement] = []
        for segment in unchecked:
            try:
                change = _without(catalog, segment, request, manifest.holds)
            except DamagedSegmentError as error:
                set_aside(catalog, error.name, error.problem, now_s)
                continue
            if change is None:
                clean.add(segment.name)
            else:
                plan.append(change)
            if len(plan) == _BATCH:
                break
        if replacing.apply(catalog, plan, manifest.holds, now_s):
            rows += sum(each.dropped_rows for each in plan if each.segment.dataset != PAUSES)
            kept = {held.segment.name for each in plan for held in each.held}
            catalog.store.delete({each.segment.name for each in plan} - kept)


def _may_have(segment: Segment, request: EraseRequest) -> bool:
    return request.site in segment.sites if request.site else segment.dataset in _OF_DEVICES


def _without(
    catalog: Catalog, segment: Segment, request: EraseRequest, holds: Sequence[Hold]
) -> Replacement | None:
    """Plan to take the rows out of a segment; None: it has none."""
    if segment.sites == (request.site,):
        return replacing.drop(catalog, segment, holds)
    if not request.site and not _has_pseudonym(catalog.store, segment, request.pseudonyms):
        return None
    table = read_whole(catalog.store, segment)
    return replacing.split(catalog, segment, table, _matching(table, request), holds)


def _has_pseudonym(store: ObjectStore, segment: Segment, names: list[str]) -> bool:
    wanted = pa.array(names, pa.string())
    with damage_named(store, segment), store.open(segment.name) as source:
        options = {"read_dictionary": ["device"], "page_checksum_verification": True}
        for chunk in pq.ParquetFile(source, **options).read(["device"])["device"].chunks:
            if pc.any(pc.is_in(chunk.dictionary, value_set=wanted)).as_py():
                return True
    return False


def _matching(table: pa.Table, request: EraseRequest) -> Mask:

    column, names = ("site", [request.site]) if request.site else ("device", request.pseudonyms)
    found = pc.is_in(table[column].cast(pa.string()), value_set=pa.array(names, pa.string()))
    mask: Mask = found.to_numpy().astype(np.bool_)
    return mask


def _held_rows(catalog: Catalog, request: EraseRequest, now_s: float) -> int:
    """The number of rows that are kept only for holds."""
    rows = 0
    for segment in [each.segment for each in catalog.manifest().held if _may_have(each.segment, request)]:
        try:
            rows += int(_matching(read_whole(catalog.store, segment), request).sum())
        except DamagedSegmentError as error:
            set_aside(catalog, error.name, error.problem, now_s)
    return rows
