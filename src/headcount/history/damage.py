"""Segments that are not what was written: recognised, and set aside so that no answer fails again.

A file that the manifest does not name is never read, so a foreign file (`._…` of a restored backup) harms
nothing. A segment is checked against the manifest's SHA-256 where all of it is read anyway (compaction,
erasure, `headcount doctor`), and by the checksums of its pages in queries.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from headcount.errors import DamagedSegmentError, ObjectNotFoundError
from headcount.history.catalog import Catalog
from headcount.history.manifest import MANIFEST, DamagedSegment, Manifest, Segment
from headcount.history.objects import ObjectStore, StoredObject
from headcount.history.reader import CLOCKS

_log = logging.getLogger(__name__)

#: The name of a segment, of one that is being written in a folder, and of what a check of a bucket writes.
SEGMENT = re.compile(
    r"([a-z]+)/hour=\d{4}-\d\d-\d\dT\d\d/[0-9a-f]{32}\.parquet(\.\d+\.new)?|check-[0-9a-f]{32}"
)


@contextmanager
def damage_named(store: ObjectStore, segment: Segment) -> Iterator[None]:
    """Turn errors of a segment's content into the error that names it.

    Raises:
        DamagedSegmentError: it is damaged or missing.
    """
    try:
        yield
    except ObjectNotFoundError as error:
        raise DamagedSegmentError(store.url, segment.name, "it is missing") from error
    except pa.ArrowMemoryError:
        raise
    except (pa.ArrowException, KeyError, UnicodeDecodeError) as error:
        raise DamagedSegmentError(store.url, segment.name, str(error) or type(error).__name__) from error
    except OSError as error:
        if error.errno:  # the disk or the permissions; errors of the content have none
            raise
        raise DamagedSegmentError(store.url, segment.name, str(error)) from error


def read_whole(store: ObjectStore, segment: Segment) -> pa.Table:
    """Read and verify a whole segment; its names are dictionaries, which take less memory.

    Raises:
        DamagedSegmentError: it is not what was written.
        DataFolderError, StoreError: the store cannot be read.
    """
    with damage_named(store, segment):
        data = store.get(segment.name)
        _verify(store, segment, data)
        names = [each.name for each in pq.read_schema(pa.BufferReader(data)) if each.type == pa.string()]
        source = pa.BufferReader(data)
        with pq.ParquetFile(source, read_dictionary=names, page_checksum_verification=True) as file:
            table = file.read().unify_dictionaries().combine_chunks()
        clock = CLOCKS[segment.dataset][0]
        if len(table) != segment.rows or not {"site", clock} <= set(table.column_names):
            raise DamagedSegmentError(
                store.url, segment.name, f"it has {len(table)} rows of other columns than expected"
            )
    return table


def problem_of(store: ObjectStore, segment: Segment) -> str | None:
    """The problem of a segment, or None.

    Raises:
        DataFolderError, StoreError: the store cannot be read.
    """
    try:
        read_whole(store, segment)
    except DamagedSegmentError as error:
        return error.problem
    return None


def set_aside(catalog: Catalog, name: str, problem: str, now_s: float) -> bool:
    """Take a damaged segment out of the manifest's segments; returns whether this call did.

    A segment that is only missing because it was replaced meanwhile is in no newer manifest.
    """
    done = False

    def change(before: Manifest) -> Manifest | None:
        nonlocal done
        readable = (*before.segments, *(each.segment for each in before.held))
        found = next((each for each in readable if each.name == name), None)
        done = found is not None
        if found is None:
            return None
        return msgspec.structs.replace(
            before,
            segments=tuple(each for each in before.segments if each.name != name),
            held=tuple(each for each in before.held if each.segment.name != name),
            damaged=(*before.damaged, DamagedSegment(found, problem, now_s)),
        )

    catalog.commit(change)
    if done:
        _log.error("history in %s: %s: its rows are missing in answers", catalog.store.url, problem)
    return done


def restore(catalog: Catalog, name: str) -> bool:
    """Take a damaged segment back whose file was restored; returns whether it was set aside."""
    done = False

    def change(before: Manifest) -> Manifest | None:
        nonlocal done
        found = next((each.segment for each in before.damaged if each.segment.name == name), None)
        done = found is not None
        if found is None:
            return None
        damaged = tuple(each for each in before.damaged if each.segment.name != name)
        return msgspec.structs.replace(before, damaged=damaged, segments=(*before.segments, found))

    catalog.commit(change)
    return done


def foreign_objects(found: Iterable[StoredObject]) -> list[str]:
    """The names of objects that headcount has not written, as a copy or a restored backup leaves them."""
    return sorted(
        each.name
        for each in found
        if each.name not in {MANIFEST, f"{MANIFEST}.new"} and SEGMENT.fullmatch(each.name) is None
    )


def _verify(store: ObjectStore, segment: Segment, data: bytes) -> None:
    if not data:
        raise DamagedSegmentError(store.url, segment.name, "it is empty")
    if len(data) != segment.bytes:
        problem = f"it has {len(data)} of {segment.bytes} bytes"
        raise DamagedSegmentError(store.url, segment.name, problem)
    if hashlib.sha256(data).hexdigest() != segment.sha256:
        raise DamagedSegmentError(
            store.url, segment.name, "its checksum differs from that of what was written"
        )
