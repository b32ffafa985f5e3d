"""Messages of the log → columns, without I/O and, as long as nothing is broken, without a loop."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import compress

import msgspec
import numpy as np

from headcount.counting.fix_columns import F8, FIX, FORGET, I8, OFFLINE, ONLINE, U1
from headcount.messages.fixes import Fix, ForgetMarker
from headcount.messages.topics import KINDS

_decode = msgspec.json.Decoder(Fix).decode
_decode_forget = msgspec.json.Decoder(ForgetMarker).decode
#: What decoding hostile bytes may raise: bad JSON or types, bad UTF-8, nesting without end.
_UNDECODABLE = (msgspec.MsgspecError, ValueError, RecursionError)
_BROKEN = Fix(float("nan"), float("nan"), float("nan"))
#: The largest payload of a fix that is looked at; more is `malformed`.
MAX_FIX_BYTES = 16_384
#: So many are decoded in one go, and all of them one by one if one of them is no fix.
BATCH_DECODE = 512
_STATUS = {b"online": ONLINE, b"offline": OFFLINE}
_DAY, _NAME = re.compile(r"\d{1,6}"), re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Marker:
    """Who is to be forgotten: the kind, and the device's name on each day (as `Names.many` has it)."""

    kind: int  # index into KINDS
    labels: dict[int, int]


@dataclass(frozen=True, slots=True)
class Rows:
    """n messages of one site's devices, in the order of the log.

    `names` are `b"fix.<p>.<site>.person.alice"`, in a status message too. A message that can't be a
    fix has `t_s` NaN, and one that can't be a status the name `b""`. Where `what` is FORGET, the marker is
    in `markers` under the row's sequence; one that can't be read is in none.
    """

    names: list[bytes]
    what: U1
    received_s: F8
    seq: I8
    t_s: F8
    lat_deg: F8
    lon_deg: F8
    acc_m: F8
    markers: dict[int, Marker] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many messages there are."""
        return len(self.names)

    def part(self, start: int, stop: int) -> Rows:
        """The rows from `start` up to, but not including, `stop`."""
        cut = slice(start, stop)
        return Rows(
            self.names[cut],
            self.what[cut],
            self.received_s[cut],
            self.seq[cut],
            self.t_s[cut],
            self.lat_deg[cut],
            self.lon_deg[cut],
            self.acc_m[cut],
            self._markers(cut) if self.markers else self.markers,
        )

    def _markers(self, cut: slice) -> dict[int, Marker]:
        there = self.seq[cut][self.what[cut] == FORGET].tolist()
        return {seq: self.markers[seq] for seq in there if seq in self.markers}


def joined(parts: list[Rows]) -> Rows:
    """All rows of some parts, in their order."""
    if len(parts) == 1:
        return parts[0]
    names: list[bytes] = []
    for part in parts:
        names += part.names
    return Rows(
        names,
        np.concatenate([part.what for part in parts]),
        np.concatenate([part.received_s for part in parts]),
        np.concatenate([part.seq for part in parts]),
        np.concatenate([part.t_s for part in parts]),
        np.concatenate([part.lat_deg for part in parts]),
        np.concatenate([part.lon_deg for part in parts]),
        np.concatenate([part.acc_m for part in parts]),
        {seq: marker for part in parts for seq, marker in part.markers.items()},
    )


def rows(prefix: bytes, subjects: list[bytes], payloads: list[bytes], seq: I8, received_ns: I8) -> Rows:
    """Decode messages `fix.<p>.<site>.<kind>.<device>[.status]` and `fix.<p>.forget`, all of length n.

    `prefix` is `b"fix.<p>.<site>."`. Nothing raises: what can't be decoded gets columns that the engine
    calls `malformed`, and who isn't a device of this site has no slot there.
    """
    n = len(subjects)
    names, what, columns = list(subjects), np.zeros(n, dtype=np.uint8), np.empty((4, n))
    for start in range(0, n, BATCH_DECODE):
        part = payloads[start : start + BATCH_DECODE]
        fixes = _together(part)
        if fixes is None:
            fixes = [_one(row, prefix, names, payload, what) for row, payload in enumerate(part, start)]
        t_s, lat_deg, lon_deg, acc_m = columns[:, start : start + BATCH_DECODE]
        t_s[:] = [fix.tst for fix in fixes]
        exact = [fix.t for fix in fixes]
        if exact.count(None) < len(exact):
            numbers = [isinstance(t, float) for t in exact]
            t_s[numbers] = list(compress(exact, numbers))
        lat_deg[:] = [fix.lat for fix in fixes]
        lon_deg[:] = [fix.lon for fix in fixes]
        acc_m[:] = [fix.acc for fix in fixes]  # None becomes NaN, which is unknown
    # a float64 can't hold nanoseconds since 1970, so seconds and their fraction go separate ways
    seconds = received_ns // 10**9
    markers = _markers(np.flatnonzero(what == FORGET).tolist(), payloads, seq) if what.any() else {}
    received_s = seconds + (received_ns - seconds * 10**9) / 1e9
    t_s, lat_deg, lon_deg, acc_m = columns
    return Rows(names, what, received_s, seq, t_s, lat_deg, lon_deg, acc_m, markers)


def _markers(found: Iterable[int], payloads: list[bytes], seq: I8) -> dict[int, Marker]:
    markers = {int(seq[row]): _marker(payloads[row]) for row in found}
    return {number: marker for number, marker in markers.items() if marker is not None}


def _marker(payload: bytes) -> Marker | None:
    try:
        said = _decode_forget(payload) if len(payload) <= MAX_FIX_BYTES else None
    except _UNDECODABLE:
        return None
    if said is None or not all(map(_DAY.fullmatch, said.pseudonyms)):
        return None
    if not all(map(_NAME.fullmatch, said.pseudonyms.values())):
        return None
    labels = {
        int(day): int.from_bytes(bytes.fromhex(name), sys.byteorder) for day, name in said.pseudonyms.items()
    }
    return Marker(KINDS.index(said.kind), labels)


def _together(payloads: list[bytes]) -> list[Fix] | None:
    """The fixes, None if one of the payloads isn't one."""
    if max(map(len, payloads)) > MAX_FIX_BYTES:
        return None
    try:
        return list(map(_decode, payloads))
    except _UNDECODABLE:
        return None


def _one(row: int, prefix: bytes, names: list[bytes], payload: bytes, what: U1) -> Fix:
    """Decode one payload of a batch that has a broken or large one, a status or a marker in it."""
    name, _, last = names[row].rpartition(b".")
    if last == b"forget" and prefix.startswith(name + b".") and name.count(b".") == 1:
        names[row], what[row] = b"", FORGET
        return _BROKEN
    if last == b"status" and name.startswith(prefix) and b"." in name[len(prefix) :]:
        names[row] = name if payload in _STATUS else b""
        what[row] = _STATUS.get(payload, FIX)
        return _BROKEN
    if len(payload) > MAX_FIX_BYTES:
        return _BROKEN
    try:
        return _decode(payload)
    except _UNDECODABLE:
        return _BROKEN
