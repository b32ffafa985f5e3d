"""Rows of the history that name somebody, taken out of the segments that hold them.

A segment is written anew beside its place and renamed over it, so a reader finds the old one or the new one, and
after a kill at any moment there is one of them, and the same request does the rest. The leftover of a
kill ends in `PART`, which the next start removes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headcount.history.segments import PART, encoding, on_disk, synchronised
from headcount.messages.history import EraseRequest

#: Names in one request: those of a device on the days that are kept, and some more.
MAX_NAMES = 100
PSEUDONYM = re.compile(r"[0-9a-f]{16}")
#: Never the name of a segment: `segments` gives those of a flush theirs at the start.
_REWRITTEN = f".erasing{PART}"


def asked(payload: bytes) -> list[str] | None:
    """The pseudonyms of a request; None where it is none."""
    try:
        names = msgspec.json.decode(payload, type=EraseRequest).pseudonyms
    except msgspec.DecodeError:
        return None
    proper = len(names) <= MAX_NAMES and all(PSEUDONYM.fullmatch(name) for name in names)
    return names if proper else None


def erase_rows(root: Path, names: Sequence[str]) -> int:
    """Take all rows of fixes with these pseudonyms out of the history at `root`; how many there were.

    Nobody else may write there meanwhile.

    Raises:
        DataFolderError: the disk is full or refuses. Asking again does the rest.
    """
    wanted, erased = pa.array(names, pa.string()), 0
    with on_disk(root):
        for path in sorted(root.glob("fixes/hour=*/*.parquet")):
            devices = pq.read_table(path, columns=["device"]).column("device").cast(pa.string())
            theirs = pc.sum(pc.is_in(devices, value_set=wanted)).as_py() or 0
            if theirs:
                _rewrite(path, wanted)
                erased += theirs
    return erased


def _rewrite(path: Path, wanted: pa.Array) -> None:
    table = pq.read_table(path)
    left = table.filter(pc.invert(pc.is_in(table.column("device").cast(pa.string()), value_set=wanted)))
    if len(left):
        part = path.with_name(path.name + _REWRITTEN)
        with part.open("wb") as file:
            pq.write_table(left, file, **encoding(left))
            synchronised(file)
        part.rename(path)
    else:
        path.unlink()
    synchronised(path.parent)
