"""Decode messages of the log into columns; pure, and without a loop as long as no message is broken."""

from __future__ import annotations

import re
import sys
from itertools import compress

import msgspec
import numpy as np

from headcount.counting.fix_columns import FIX, FORGET, OFFLINE, ONLINE, U1, FixColumns, Removal
from headcount.decoding import DecodeError
from headcount.messages.fixes import Fix, ForgetMarker
from headcount.messages.topics import KINDS
from headcount.messaging.fix_json import MAX_FIX_BYTES, UNDECODABLE, plain, read_fix
from headcount.messaging.raw_batch import RawBatch

_decode = msgspec.json.Decoder(Fix).decode
_decode_marker = msgspec.json.Decoder(ForgetMarker).decode
_BROKEN = Fix(float("nan"), float("nan"), float("nan"))
#: Messages that are decoded together; one by one if one of them is no fix.
BATCH_DECODE = 512
_STATUS = {b"online": ONLINE, b"offline": OFFLINE}
_DAY, _PSEUDONYM = re.compile(r"\d{1,6}"), re.compile(r"[0-9a-f]{16}")


def decode(site: bytes, batch: RawBatch) -> FixColumns:
    """Decode messages `fix.<p>.<site>.<kind>.<device>[.status]` and `fix.<p>.forget`, one or more.

    The names are `b"fix.<p>.<site>.person.alice"`, of status messages too; a status that can't be decoded has
    the name `b""`.

    Args:
        site: its id.
        batch: any bytes, of one or more partitions if there is at most one marker of each sequence. Nothing
            raises: what can't be decoded gets columns that the engine judges `malformed`, and senders that
            aren't devices of this site get no slot there.
    """
    payloads, received_ns, n = batch.payloads, batch.received_ns, len(batch)
    names, what, columns = list(batch.subjects), np.zeros(n, dtype=np.uint8), np.empty((4, n))
    for start in range(0, n, BATCH_DECODE):
        part = payloads[start : start + BATCH_DECODE]
        fixes = _decode_all(part)
        if fixes is None:
            fixes = [_decode_one(row, site, names, payload, what) for row, payload in enumerate(part, start)]
        t_s, lat_deg, lon_deg, acc_m = columns[:, start : start + BATCH_DECODE]
        t_s[:] = [fix.tst for fix in fixes]  # None becomes NaN
        exact = [fix.t for fix in fixes]
        if exact.count(None) < len(exact):
            numbers = [isinstance(t, float) for t in exact]
            t_s[numbers] = list(compress(exact, numbers))
        lat_deg[:] = [fix.lat for fix in fixes]
        lon_deg[:] = [fix.lon for fix in fixes]
        acc_m[:] = [fix.acc for fix in fixes]  # None becomes NaN, which is unknown
    # a float64 can't hold nanoseconds since 1970, so seconds and their fraction go separate ways
    seconds = received_ns // 10**9
    removals = _removals(np.flatnonzero(what == FORGET).tolist(), batch) if what.any() else {}
    received_s = seconds + (received_ns - seconds * 10**9) / 1e9
    t_s, lat_deg, lon_deg, acc_m = columns
    return FixColumns(what, received_s, t_s, lat_deg, lon_deg, acc_m, batch.seq, names, removals)


def _removals(rows: list[int], batch: RawBatch) -> dict[int, Removal]:
    found = {int(batch.seq[row]): _removal(batch.payloads[row]) for row in rows}
    return {seq: removal for seq, removal in found.items() if removal is not None}


def _removal(payload: bytes) -> Removal | None:
    try:
        marker = _decode_marker(payload) if len(payload) <= MAX_FIX_BYTES else None
    except UNDECODABLE:
        return None
    if marker is None or not all(map(_DAY.fullmatch, marker.pseudonyms)):
        return None
    if not all(map(_PSEUDONYM.fullmatch, marker.pseudonyms.values())):
        return None
    pseudonyms = {
        int(day): int.from_bytes(bytes.fromhex(hex_), sys.byteorder)
        for day, hex_ in marker.pseudonyms.items()
    }
    return Removal(KINDS.index(marker.kind), pseudonyms)


def _decode_all(payloads: list[bytes]) -> list[Fix] | None:
    """The fixes, None if one of the payloads isn't one."""
    if max(map(len, payloads)) > MAX_FIX_BYTES:
        return None
    try:
        return list(map(_decode, payloads))
    except UNDECODABLE:
        return None


def _decode_one(row: int, site: bytes, names: list[bytes], payload: bytes, what: U1) -> Fix:
    """Decode one payload of a batch that has a broken or large one, a status or a marker in it."""
    name, _, last = names[row].rpartition(b".")
    if last == b"forget" and name.startswith(b"fix.") and name.count(b".") == 1:
        names[row], what[row] = b"", FORGET
        return _BROKEN
    parts = name.split(b".", 4)
    if last == b"status" and len(parts) == 5 and parts[2] == site:
        status = plain(payload)
        names[row] = name if status in _STATUS else b""
        what[row] = _STATUS.get(status, FIX)
        return _BROKEN
    try:
        return read_fix(payload)
    except DecodeError:
        return _BROKEN
