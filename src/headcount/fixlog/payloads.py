"""Messages of the log → columns, without I/O and, as long as nothing is broken, without a loop."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import compress

import msgspec
import numpy as np

from headcount.counting.fixes import F8, FIX, I8, OFFLINE, ONLINE, U1
from headcount.wire import Fix

_decode = msgspec.json.Decoder(Fix).decode
#: What decoding hostile bytes may raise: bad JSON or types, bad UTF-8, nesting without end.
_UNDECODABLE = (msgspec.MsgspecError, ValueError, RecursionError)
_BROKEN = Fix(float("nan"), float("nan"), float("nan"))
#: The largest payload of a fix that is looked at; more is `malformed`.
MAX_FIX_BYTES = 16_384
#: So many are decoded in one go, and all of them one by one if one of them is no fix.
TOGETHER = 512
_STATUS = {b"online": ONLINE, b"offline": OFFLINE}


@dataclass(frozen=True, slots=True)
class Rows:
    """n messages of one site's devices, in the order of the log.

    `names` are `b"fix.<p>.<site>.person.alice"`, in a status message too. A message that can't be a
    fix has `t_s` NaN, and one that can't be a status the name `b""`.
    """

    names: list[bytes]
    what: U1
    received_s: F8
    seq: I8
    t_s: F8
    lat_deg: F8
    lon_deg: F8
    acc_m: F8

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
        )


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
    )


def rows(prefix: bytes, subjects: list[bytes], payloads: list[bytes], seq: I8, received_ns: I8) -> Rows:
    """Decode messages `fix.<p>.<site>.<kind>.<device>[.status]`, all of length n.

    `prefix` is `b"fix.<p>.<site>."`. Nothing raises: what can't be decoded gets columns that the engine
    calls `malformed`, and who isn't a device of this site has no slot there.
    """
    n = len(subjects)
    names, what, columns = list(subjects), np.zeros(n, dtype=np.uint8), np.empty((4, n))
    for start in range(0, n, TOGETHER):
        part = payloads[start : start + TOGETHER]
        fixes = _together(part)
        if fixes is None:
            fixes = [_one(row, prefix, names, payload, what) for row, payload in enumerate(part, start)]
        t_s, lat_deg, lon_deg, acc_m = columns[:, start : start + TOGETHER]
        t_s[:] = [fix.tst for fix in fixes]
        exact = [fix.t for fix in fixes]
        if exact.count(None) < len(exact):
            numbers = [isinstance(t, float) for t in exact]
            t_s[numbers] = list(compress(exact, numbers))
        lat_deg[:] = [fix.lat for fix in fixes]
        lon_deg[:] = [fix.lon for fix in fixes]
        acc_m[:] = [fix.acc for fix in fixes]  # None becomes NaN, which is unknown
    # a float64 can't hold nanoseconds since 1970, so seconds and their fraction go separate ways
    received_s = received_ns // 10**9
    return Rows(names, what, received_s + (received_ns - received_s * 10**9) / 1e9, seq, *columns)


def _together(payloads: list[bytes]) -> list[Fix] | None:
    """The fixes, None if one of the payloads isn't one."""
    if max(map(len, payloads)) > MAX_FIX_BYTES:
        return None
    try:
        return list(map(_decode, payloads))
    except _UNDECODABLE:
        return None


def _one(row: int, prefix: bytes, names: list[bytes], payload: bytes, what: U1) -> Fix:
    """Decode one payload of a batch that has a broken or large one, or a status, in it."""
    name, _, last = names[row].rpartition(b".")
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
