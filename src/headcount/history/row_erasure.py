"""Erasure of the rows of a device or a site from the segments of the history.

The remaining rows of a segment are written to a new one, which replaces it in the manifest.
"""

from __future__ import annotations

import re

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from headcount.errors import OvertakenError
from headcount.history.catalog import Catalog
from headcount.history.manifest import Manifest, Segment
from headcount.messages.history import EraseRequest
from headcount.messages.topics import ID

#: Maximum number of pseudonyms in a request: more than a device has within the retention.
MAX_NAMES = 100
PSEUDONYM = re.compile(r"[0-9a-f]{16}")


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


def erase_rows(catalog: Catalog, request: EraseRequest) -> int:
    """Erase all fixes and events with these pseudonyms, or all rows of a site; return their number.

    Raises:
        DataFolderError, StoreError: the store cannot be read or written. Repeating the call completes it.
    """
    datasets = ("fixes", "counts", "events") if request.site else ("fixes", "events")
    column, names = ("site", [request.site]) if request.site else ("device", request.pseudonyms)
    wanted, erased = pa.array(names, pa.string()), 0
    for segment in (each for dataset in datasets for each in catalog.manifest().of(dataset)):
        erased += _erase_from(catalog, segment, column, wanted)
    return erased


def _erase_from(catalog: Catalog, segment: Segment, column: str, wanted: pa.Array) -> int:
    import pyarrow.compute as pc  # noqa: PLC0415  # 9 MB that only an erasure needs

    with catalog.store.open(segment.name) as file:
        table = pq.ParquetFile(file).read()
    theirs = pc.is_in(table[column].cast(pa.string()), value_set=wanted)
    number = pc.sum(theirs).as_py() or 0
    if not number:
        return 0
    left = table.filter(pc.invert(theirs))
    span_s, t_span_s = (segment.from_s, segment.to_s), (segment.t_from_s, segment.t_to_s)
    new = (
        [catalog.write(segment.dataset, left, span_s, t_span_s=t_span_s, box=segment.box)]
        if len(left)
        else []
    )

    def change(before: Manifest) -> Manifest:
        if segment not in before.segments:
            raise OvertakenError(catalog.store.url)
        kept = (each for each in before.segments if each != segment)
        return msgspec.structs.replace(before, segments=(*kept, *new))

    catalog.commit(change)
    catalog.store.delete([segment.name])
    return int(number)
