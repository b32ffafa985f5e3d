"""Erasure of the rows of a device or a site from the segments of the history.

The remaining rows of a segment are written to a temporary file, which is renamed over it. So readers, also
after a kill, find either the old segment or the new one, and repeating the request completes it. A
temporary file that a kill leaves ends in `PART`; the next start removes it.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from headcount.history.segment_files import all_segments, is_readable, set_aside
from headcount.history.segments import PART, sync_folder, write_segment
from headcount.messages.history import EraseRequest
from headcount.messages.topics import ID
from headcount.runtime.private_files import folder_errors

#: Maximum number of pseudonyms in a request: more than a device has within the retention.
MAX_NAMES = 100
PSEUDONYM = re.compile(r"[0-9a-f]{16}")
#: Never the temporary name of a flush's segment, which `segments` would rename at the start.
_REWRITTEN = f".erasing{PART}"


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


def erase_rows(root: Path, request: EraseRequest) -> int:
    """Erase all fixes with these pseudonyms, or all rows of a site, below `root`; return their number.

    The caller prevents other writes meanwhile. A segment that cannot be read is set aside, where no query
    reads it and retention drops it.

    Raises:
        DataFolderError: the disk is full or a write failed. Repeating the call completes it.
    """
    kinds = ("fixes", "counts") if request.site else ("fixes",)
    column, names = ("site", [request.site]) if request.site else ("device", request.pseudonyms)
    wanted, erased = pa.array(names, pa.string()), 0
    with folder_errors(root):
        for path in (path for kind in kinds for path in all_segments(root, kind)):
            try:
                erased += _erase_from(path, column, wanted)
            except (pa.ArrowException, OSError, KeyError):
                if is_readable(path):  # it is the disk or the memory
                    raise
                set_aside(root, path)
    return erased


def _erase_from(path: Path, column: str, wanted: pa.Array) -> int:
    import pyarrow.compute as pc  # noqa: PLC0415  # 9 MB that only an erasure needs

    theirs = pc.is_in(pq.read_table(path, columns=[column])[column].cast(pa.string()), value_set=wanted)
    number = pc.sum(theirs).as_py() or 0
    if number:
        _replace(path, pq.read_table(path).filter(pc.invert(theirs)))
    return int(number)


def _replace(path: Path, left: pa.Table) -> None:
    if len(left):
        part = path.with_name(path.name + _REWRITTEN)
        write_segment(part, left)
        part.rename(path)
    else:
        path.unlink()
    sync_folder(path.parent)
